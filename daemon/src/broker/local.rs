//! The broker of a single daemon. The daemon's hub assigns the ids, and the daemon's log stores the messages.
//!
//! A message is *kept* when it survives what the setting `durability` names:
//!
//! | `durability` | a message is kept | which thread writes the log |
//! |---|---|---|
//! | `memory` | at once | none: there is no log |
//! | `process` | when it is written to the log | the first thread that asks for an outcome writes all messages so far |
//! | `disk` | when the log is synced to the disk | a background thread; publishers wait for that thread |
//!
//! If the log cannot be written, a published message is not acknowledged. With `on_error = "refuse"`, further messages of
//! clients are refused before they are published.

use std::{fmt, sync::Arc};

use comet_proto::ChannelName;

use super::{Broker, NotKept, Receipt, ReceiptState, SourceKind};
use crate::hub::{Hub, NewMessage, Workers};

/// The broker of a single daemon.
pub struct Local {
    hub: Arc<Hub>,
}

impl Local {
    /// A broker that publishes into this hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { hub })
    }
}

impl Broker for Local {
    fn publish(&self, source: SourceKind, new: NewMessage<'_>) -> Receipt {
        if source == SourceKind::Client
            && let Err(error) = self.hub.admits()
        {
            return Receipt {
                progress: ReceiptState::Refused(Box::new(NotKept::Refused(error))),
                woken: Workers::default(),
            };
        }
        let (id, woken) = self.hub.publish_and_wake(new);
        self.receipt(id, woken)
    }

    fn delete(&self, channel: &ChannelName) -> Receipt {
        let removal = self.hub.remove_messages(channel);
        self.hub.end_subscriptions(channel);
        self.changed(removal.id)
    }

    fn changed(&self, id: u64) -> Receipt {
        self.receipt(id, Workers::default())
    }

    fn acknowledges_at_once(&self) -> bool {
        self.hub.keeps_at_once()
    }
}

impl Local {
    fn receipt(&self, id: u64, woken: Workers) -> Receipt {
        let progress = match self.hub.has_kept(id) {
            true => ReceiptState::Kept(id),
            false => ReceiptState::Logged(Logged {
                hub: self.hub.clone(),
                id,
            }),
        };
        Receipt { progress, woken }
    }
}

/// A published message that is not kept yet.
pub(super) struct Logged {
    hub: Arc<Hub>,
    pub(super) id: u64,
}

impl Logged {
    pub(super) fn now(&self) -> Option<Result<u64, NotKept>> {
        let kept = self.hub.try_kept(self.id)?;
        Some(kept.map(|()| self.id).map_err(NotKept::Published))
    }

    pub(super) async fn outcome(&self) -> Result<u64, NotKept> {
        let kept = self.hub.kept(self.id).await;
        kept.map(|()| self.id).map_err(NotKept::Published)
    }

    pub(super) fn keep_soon(&self) -> bool {
        self.hub.keep_soon(self.id)
    }
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logged")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

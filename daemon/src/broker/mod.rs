//! The broker: every source publishes through it, and learns from the receipt when its message may be acknowledged.
//!
//! The rules of acknowledgement are here and in the implementations, and nowhere else. A source only passes the outcome
//! on to its publisher, in the words of its protocol. `docs/adr/0014-one-way-to-publish.md` explains the decisions.

mod local;

pub use local::Local;
use local::Logged;

use comet_proto::ChannelName;

use crate::{
    hub::{NewMessage, Workers},
    store::StoreError,
};

/// Gives messages their ids, and sees to it that the hub gets them.
pub trait Broker: Send + Sync {
    /// Publishes a message. Never waits.
    fn publish(&self, source: SourceKind, new: NewMessage<'_>) -> Receipt;

    /// Removes the messages of a channel, and ends the subscriptions that wait for the channel. The receipt says when the
    /// messages stay removed after a restart. Never waits.
    fn delete(&self, channel: &ChannelName) -> Receipt;

    /// The receipt of a change of the hub that is no message and has this id, such as a removal of one message.
    fn changed(&self, id: u64) -> Receipt;

    /// Whether [`Receipt::now`] gives the outcome of a message that is published now. A caller that cannot wait asks this
    /// before it publishes. False also while the log fails, because refusing a message may take longer.
    fn acknowledges_at_once(&self) -> bool;
}

/// Where a message comes from. This decides whether the message can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A client that gets the outcome as its answer, and can publish again.
    Client,
    /// A file that was touched. Nobody would repeat the touch after a refusal, so such a message is never refused.
    File,
    /// The daemon itself, such as for presence. Never refused, because nobody would publish the message again.
    Daemon,
}

/// The outcome of a publish: at once, or when the message is kept as the settings say.
#[derive(Debug)]
pub struct Receipt {
    progress: ReceiptState,
    woken: Workers,
}

#[derive(Debug)]
enum ReceiptState {
    Kept(u64),
    // In a box, because a refusal is rare, and receipts should be small.
    Refused(Box<NotKept>),
    /// Published, and kept as soon as the log has the message.
    Logged(Logged),
}

/// Why a message must not be acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotKept {
    /// The message was not published.
    #[error("messages are refused while they cannot be kept: {0}")]
    Refused(StoreError),
    /// The message was published, and a crash would lose it.
    #[error("it may reach subscribers, but it is not kept: {0}")]
    Published(StoreError),
}

impl Receipt {
    /// The outcome, if it can be found without waiting: the message's id once the message is kept. Writes the log if that
    /// alone is missing.
    pub fn now(&self) -> Option<Result<u64, NotKept>> {
        match &self.progress {
            ReceiptState::Kept(id) => Some(Ok(*id)),
            ReceiptState::Refused(reason) => Some(Err((**reason).clone())),
            ReceiptState::Logged(logged) => logged.now(),
        }
    }

    /// Waits for the outcome: the message's id once the message is kept.
    ///
    /// # Errors
    /// The message must not be acknowledged.
    pub async fn outcome(&self) -> Result<u64, NotKept> {
        match &self.progress {
            ReceiptState::Kept(id) => Ok(*id),
            ReceiptState::Refused(reason) => Err((**reason).clone()),
            ReceiptState::Logged(logged) => logged.outcome().await,
        }
    }

    /// Starts to keep the message, for a publisher that does not wait. Returns true when the message is kept.
    pub fn keep_soon(&self) -> bool {
        match &self.progress {
            ReceiptState::Kept(_) => true,
            ReceiptState::Refused(_) => false,
            ReceiptState::Logged(logged) => logged.keep_soon(),
        }
    }

    /// The reason, if the message was refused and so not published.
    pub fn refusal(&self) -> Option<&NotKept> {
        match &self.progress {
            ReceiptState::Refused(reason) => Some(reason),
            ReceiptState::Kept(_) | ReceiptState::Logged(_) => None,
        }
    }

    /// The message's id, if the message is published. Only [`Receipt::outcome`] says whether it is kept.
    pub fn id(&self) -> Option<u64> {
        match &self.progress {
            ReceiptState::Kept(id) => Some(*id),
            ReceiptState::Refused(_) => None,
            ReceiptState::Logged(logged) => Some(logged.id),
        }
    }

    /// The workers that were woken to deliver the message.
    pub fn woken(&self) -> Workers {
        self.woken
    }
}

impl NotKept {
    /// Why the message cannot be kept.
    pub fn cause(&self) -> &StoreError {
        let (Self::Refused(cause) | Self::Published(cause)) = self;
        cause
    }
}

#[cfg(test)]
pub(crate) mod tests;

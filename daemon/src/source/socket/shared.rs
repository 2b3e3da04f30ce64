//! The data that all connections share, and who may connect and publish.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use comet_proto::ChannelName;
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::{
    peer::{Peer, user_name},
    slots::{NoSlot, Slots},
};
use crate::{
    broker::Broker,
    config::{ByPrefix, Config, SocketConfig},
    drain::Drain,
    hub::subscriber::Audience,
    metrics::Metrics,
    presence::Presence,
    users::{AllowList, entry_of},
};

/// The most users whose refusal is logged, each once. Further ones are only counted.
const MAX_LOGGED: usize = 1024;

pub(super) type WriteStatus = dyn Fn(&mut Vec<u8>);

/// What was refused to a user.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RefusedAction {
    Connecting,
    Slot,
    Publishing,
}

/// The data that all connections share.
pub(super) struct Shared {
    pub(super) audience: Rc<Audience>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) config: RefCell<Rc<SocketConfig>>,
    /// Who may publish where.
    pub(super) rules: RefCell<ByPrefix<AllowList>>,
    /// Appends the reply to `status` as a line.
    pub(super) write_status: Box<WriteStatus>,
    pub(super) drain: Drain,
    pub(super) slots: Rc<Slots>,
    /// How often `config` has changed, and who waits for that: connections of peers who are not allowed any more end.
    pub(super) settings: Cell<u64>,
    pub(super) changed: Notify,
    /// The number of refused peers that still send.
    pub(super) refused: Cell<usize>,
    /// Cached names of users who were refused, because looking one up can take long.
    pub(super) names: RefCell<HashMap<u32, Rc<str>>>,
    /// The refusals that were already logged, by user.
    pub(super) logged: RefCell<HashSet<(u32, RefusedAction)>>,
}

impl Shared {
    pub(super) fn config(&self) -> Rc<SocketConfig> {
        self.config.borrow().clone()
    }

    pub(super) async fn follow(&self, settings: Option<watch::Receiver<Arc<Config>>>) {
        if let Some(mut settings) = settings {
            while settings.changed().await.is_ok() {
                let config = settings.borrow_and_update().clone();
                self.config.replace(Rc::new(config.socket.clone()));
                self.rules.replace(config.channels.socket.clone());
                self.slots.follow(&config);
                self.settings.set(self.settings.get() + 1);
                self.changed.notify_waiters();
            }
        }
        std::future::pending().await
    }

    /// Waits until the settings differ from those.
    pub(super) async fn changed(&self, settings: u64) {
        while self.settings.get() == settings {
            self.changed.notified().await;
        }
    }

    /// The error for a peer for which there is no slot.
    pub(super) fn refuse_no_slot(&self, peer: &Peer, why: &NoSlot) -> String {
        self.metrics.socket_refused.add(1);
        match why {
            NoSlot::Full(most) => {
                let more = self.config().max_connections.saturating_mul(2);
                format!(
                    "limit of {most} connections; max_connections = {more} under [socket] allows more"
                )
            }
            NoSlot::Share(share) => {
                let (name, all) = (self.name_of(peer), self.config().max_connections);
                let more = share.saturating_mul(2).min(all).max(share + 1);
                let reason = format!(
                    "user {name} has {share} connections, all that one user may have; max_per_user = {more} under \
                     [socket] allows more"
                );
                self.log_refusal(peer, RefusedAction::Slot, &reason);
                reason
            }
        }
    }

    /// Why the peer may not connect.
    pub(super) fn refusal(&self, peer: &Peer) -> Option<String> {
        let allow = &self.config().allow;
        if allow.is_empty() || peer.is_in(allow) {
            return None;
        }
        self.metrics.socket_refused.add(1);
        let name = self.name_of(peer);
        let entry = entry_of(peer.uid());
        let reason = format!(
            "user {name} may not connect: socket.allow lacks {entry:?}; it is allowed by allow = [{entry:?}] under [socket]"
        );
        self.log_refusal(peer, RefusedAction::Connecting, &reason);
        Some(reason)
    }

    /// Why the peer may not publish there.
    pub(super) fn forbids(&self, peer: &Peer, channel: &ChannelName) -> Option<String> {
        let rules = self.rules.borrow();
        let (prefix, rule) = rules.find(channel)?;
        if peer.is_in(rule) {
            return None;
        }
        self.metrics.socket_forbidden.add(1);
        let name = self.name_of(peer);
        let entry = entry_of(peer.uid());
        let reason = format!(
            "user {name} may not publish to {channel}: socket under [[channel]] lacks {entry:?}; it is allowed by \
             socket = [{entry:?}] under [[channel]] with prefix = {prefix:?}"
        );
        self.log_refusal(peer, RefusedAction::Publishing, &reason);
        Some(reason)
    }

    /// The peer's name, looked up once for each user.
    pub(super) fn name_of(&self, peer: &Peer) -> Rc<str> {
        let mut names = self.names.borrow_mut();
        if names.len() >= MAX_LOGGED {
            names.clear();
        }
        let name = names.entry(peer.uid());
        name.or_insert_with(|| user_name(peer.uid()).into()).clone()
    }

    pub(super) fn log_refusal(&self, peer: &Peer, refused: RefusedAction, reason: &str) {
        let mut logged = self.logged.borrow_mut();
        if logged.len() < MAX_LOGGED && logged.insert((peer.uid(), refused)) {
            warn!("{reason}; later refusals of this user are only counted");
        }
    }
}

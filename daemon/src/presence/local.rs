//! Presence on a single daemon: the members are in memory, and a restart forgets them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use comet_proto::{ChannelName, EventName};

use super::{Member, Members, Presence, PresenceChange, PresentMember};
use crate::{
    broker::{Broker, SourceKind},
    hub::{Hub, NewMessage},
};

/// With more members than this, single changes of a channel are not published any more, but their number once a second.
/// 10,000 members that come back after a restart would otherwise get 10,000 messages each.
const MANY: usize = 1000;

/// With fewer members than this, single changes are published again. The number is lower than [`MANY`], because every switch
/// makes the clients ask for the list.
const FEW: usize = 900;

/// Maximum number of bytes that the members of all channels use. A client can be one member after the other, and each of them stays
/// for the grace time.
const MAX_BYTES: usize = 64 << 20;

/// The bytes of a member without its id and info.
const FIXED: usize = 256;

/// Number of members that leave while the members are locked once.
const SLICE: usize = 512;

/// The time that clients have to come back after a restart.
const SETTLING: Duration = Duration::from_secs(10);

/// The members of all channels.
pub struct LocalPresence {
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    /// Presence messages are published while the lock is held, so that they are in the order of the changes.
    state: Mutex<PresenceState>,
}

#[derive(Default)]
struct PresenceState {
    channels: HashMap<ChannelName, ChannelMembers>,
    /// Members that may have left, with the time when that is decided.
    leaving: BinaryHeap<Reverse<(Instant, ChannelName, Arc<str>)>>,
    /// Channels with many members that have changed.
    changed: BTreeSet<ChannelName>,
    /// The bytes that all members use.
    bytes: usize,
    /// Set after a restart: the moment at which members whose clients have not come back count as gone.
    settled: Option<Instant>,
}

struct ChannelMembers {
    /// The channel of the presence messages.
    messages: ChannelName,
    members: BTreeMap<Arc<str>, Connections>,
    /// Only the number of members is published.
    is_counted: bool,
}

/// A member's connections to one channel.
struct Connections {
    member: Member,
    count: u32,
    /// When the member leaves, if it has no connection.
    leaves: Option<Instant>,
    /// Whether the member is in [`PresenceState::leaving`].
    is_queued: bool,
}

impl LocalPresence {
    /// Nobody is on any channel. `is_restart`: clients may have lists of members from an earlier run of the daemon.
    #[must_use]
    pub fn new(hub: Arc<Hub>, broker: Arc<dyn Broker>, is_restart: bool) -> Arc<Self> {
        let state = PresenceState {
            settled: is_restart.then(|| Instant::now() + SETTLING),
            ..PresenceState::default()
        };
        Arc::new(Self {
            hub,
            broker,
            state: Mutex::new(state),
        })
    }

    /// Publishes who has left. Must be called about once a second.
    pub fn tick(&self) {
        self.tick_at(Instant::now());
    }

    fn tick_at(&self, now: Instant) {
        while self.let_some_go(now) {}
        let mut state = self.lock();
        let mut changed = std::mem::take(&mut state.changed);
        if state.settled.take_if(|settled| *settled <= now).is_some() {
            changed.extend(state.channels.keys().cloned());
        }
        for channel in changed {
            if let Some(known) = state.channels.get_mut(&channel) {
                known.is_counted &= known.members.len() >= FEW;
                self.publish(known, &channel, &PresenceChange::Counted);
            }
            state.forget_if_empty(&channel);
        }
    }

    /// Removes some of the members whose time to leave has come. Returns whether there may be more.
    fn let_some_go(&self, now: Instant) -> bool {
        let mut state = self.lock();
        for _ in 0..SLICE {
            let Some((channel, id)) = state.next_due(now) else {
                return false;
            };
            self.let_go(&mut state, &channel, &id, now);
        }
        true
    }

    fn leave_at(&self, channel: &ChannelName, id: &Arc<str>, leaves: Instant, now: Instant) {
        let mut state = self.lock();
        let Some(known) = state.find(channel, id) else {
            return;
        };
        known.count -= 1;
        if known.count > 0 {
            return;
        }
        known.leaves = Some(leaves);
        if leaves <= now {
            return self.let_go(&mut state, channel, id, now);
        }
        if !std::mem::replace(&mut known.is_queued, true) {
            state.queue(leaves, channel, id);
        }
    }

    /// Removes a member whose time to leave has come. If that time is later, queues the member again.
    fn let_go(
        &self,
        state: &mut PresenceState,
        channel: &ChannelName,
        id: &Arc<str>,
        now: Instant,
    ) {
        let Some(known) = state.find(channel, id) else {
            return;
        };
        known.is_queued = false;
        match known.leaves {
            None => {}
            Some(leaves) if leaves > now => {
                known.is_queued = true;
                state.queue(leaves, channel, id);
            }
            Some(_) => self.remove(state, channel, id),
        }
    }

    fn remove(&self, state: &mut PresenceState, channel: &ChannelName, id: &Arc<str>) {
        let Some(known) = state.channels.get_mut(channel) else {
            return;
        };
        if let Some(gone) = known.members.remove(id) {
            state.bytes -= cost(&gone.member);
            let change = PresenceChange::Left(gone.member);
            match known.is_counted {
                true => _ = state.changed.insert(channel.clone()),
                false => self.publish(known, channel, &change),
            }
        }
        state.forget_if_empty(channel);
    }

    fn publish(&self, known: &ChannelMembers, channel: &ChannelName, change: &PresenceChange) {
        let message = NewMessage {
            channels: known.messages.clone().into(),
            name: EventName::default(),
            data: change.data(channel, known.members.len()),
            attributes: None,
            key: None,
        };
        // Nobody waits until the message is in the log. The first reader or the background check writes it.
        self.broker.publish(SourceKind::Daemon, message);
    }

    fn lock(&self) -> MutexGuard<'_, PresenceState> {
        self.state
            .lock()
            .expect("no code panics while it holds the lock of the members")
    }
}

impl Presence for LocalPresence {
    fn enter(&self, channel: &ChannelName, member: &Member) -> bool {
        let Some(messages) = channel.presence() else {
            return false; // an internal channel has no members
        };
        let mut state = self.lock();
        let PresenceState {
            channels,
            changed,
            bytes,
            ..
        } = &mut *state;
        let known = channels
            .entry(channel.clone())
            .or_insert_with(|| ChannelMembers {
                messages,
                members: BTreeMap::new(),
                is_counted: false,
            });
        if let Some(known) = known.members.get_mut(member.id()) {
            *bytes += cost(member);
            *bytes -= cost(&known.member);
            known.member = member.clone();
            known.count += 1;
            known.leaves = None;
            return true;
        }
        if *bytes + cost(member) > MAX_BYTES {
            state.forget_if_empty(channel);
            return false;
        }
        *bytes += cost(member);
        let connections = Connections {
            member: member.clone(),
            count: 1,
            leaves: None,
            is_queued: false,
        };
        known.members.insert(member.id().clone(), connections);
        known.is_counted |= known.members.len() > MANY;
        match known.is_counted {
            true => _ = changed.insert(channel.clone()),
            false => self.publish(known, channel, &PresenceChange::Joined(member.clone())),
        }
        true
    }

    fn leave(&self, channel: &ChannelName, id: &Arc<str>, grace: Duration) {
        let now = Instant::now();
        self.leave_at(channel, id, now + grace, now);
    }

    fn members(&self, channel: &ChannelName, after: Option<&str>) -> Members {
        let state = self.lock();
        let cursor = self.hub.last();
        let Some(known) = state.channels.get(channel) else {
            return Members {
                cursor,
                ..Members::default()
            };
        };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = known.members.range::<str, _>((after, Bound::Unbounded));
        let list = rest.by_ref().take(Members::MAX);
        let list: Vec<PresentMember> = list
            .map(|(_, connections)| PresentMember {
                member: connections.member.clone(),
                connections: connections.count,
            })
            .collect();
        let last = list.last().map(|last| last.member.id().clone());
        Members {
            next: last.filter(|_| rest.next().is_some()),
            list,
            count: known.members.len(),
            cursor,
        }
    }
}

fn cost(member: &Member) -> usize {
    FIXED + member.id().len() + member.info().map_or(0, str::len)
}

impl PresenceState {
    fn find(&mut self, channel: &ChannelName, id: &str) -> Option<&mut Connections> {
        self.channels.get_mut(channel)?.members.get_mut(id)
    }

    /// Forgets a channel without members, unless its last change is still to be published.
    fn forget_if_empty(&mut self, channel: &ChannelName) {
        let known = self.channels.get(channel);
        if known.is_some_and(|known| known.members.is_empty() && !known.is_counted) {
            self.channels.remove(channel);
        }
    }

    fn queue(&mut self, leaves: Instant, channel: &ChannelName, id: &Arc<str>) {
        let entry = (leaves, channel.clone(), id.clone());
        self.leaving.push(Reverse(entry));
    }

    /// The next member that may have left.
    fn next_due(&mut self, now: Instant) -> Option<(ChannelName, Arc<str>)> {
        let Reverse((due, ..)) = self.leaving.peek()?;
        if *due > now {
            return None;
        }
        let Reverse((_, channel, id)) = self.leaving.pop()?;
        Some((channel, id))
    }
}

#[cfg(test)]
mod tests;

//! Removes messages from a channel before their time, and ends the subscriptions that wait for a channel.
//!
//! A removal has an id of its own, so that the log has its place among the messages. A removed message is a gap for a client
//! that has not received it, like a message that was trimmed.

use comet_proto::ChannelName;

use super::{Hub, keep::Unwritten, state::HubState, workers::Workers};
use crate::store::Record;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// The number of messages.
    pub messages: usize,
    /// When every id up to this one is kept ([`Hub::kept`]), the messages stay removed after a restart.
    pub id: u64,
}

impl Hub {
    /// Removes all messages of a channel that were published before this call. Messages of several channels stay in their
    /// other channels.
    pub fn remove_messages(&self, channel: &ChannelName) -> Removal {
        let now = self.time.now();
        self.lock().remove(channel, None, now)
    }

    /// Removes the message with this id from a channel.
    pub fn remove_message(&self, channel: &ChannelName, id: u64) -> Removal {
        let now = self.time.now();
        self.lock().remove(channel, Some(id), now)
    }

    /// Calls every subscriber that waits for this channel, and tells it that the channel was deleted: see
    /// [`Feed::deleted`](super::subscriber::Feed::deleted). The protocol of the subscriber decides whether the
    /// subscription ends. Later subscribers are not concerned.
    pub fn end_subscriptions(&self, channel: &ChannelName) {
        let woken = self.lock().mark_deleted(channel);
        woken
            .iter()
            .for_each(|worker| self.wakers[worker].notify_one());
    }
}

impl HubState {
    /// Removes one message or all messages of a channel.
    fn remove(&mut self, name: &ChannelName, message: Option<u64>, now: u64) -> Removal {
        let id = now.max(self.last + 1);
        let messages = self.remove_before(name, message, id);
        if messages == 0 {
            return Removal {
                messages,
                id: self.last,
            };
        }
        self.last = id;
        let (channel, message) = (name.clone(), message.unwrap_or(0));
        self.log(Record::Removed {
            id,
            channel,
            message,
        });
        Removal { messages, id }
    }

    /// Removes one message, or all messages before `id`. Returns the number of removed messages.
    pub(super) fn remove_before(
        &mut self,
        name: &ChannelName,
        message: Option<u64>,
        id: u64,
    ) -> usize {
        let Some(channel) = self.channels.get_mut(name) else {
            return 0;
        };
        match message {
            None => channel.history.remove_before(id, &mut self.kept),
            Some(message) => channel.history.remove(message, &mut self.kept).into(),
        }
    }

    /// Queues a change for the log, if there is one.
    pub(super) fn log(&mut self, change: Record<'static>) {
        if let Some(queue) = &mut self.unwritten {
            queue.push(Unwritten::Change(change.into()));
        }
    }

    /// Returns the workers to wake.
    fn mark_deleted(&mut self, name: &ChannelName) -> Workers {
        let Some(channel) = self.channels.get_mut(name) else {
            return Workers::default();
        };
        let interested = Workers(channel.interest);
        for worker in interested.iter() {
            self.deleted[worker].insert(channel.name.clone());
        }
        interested
    }
}

//! The subscription of a connection: channels that come and go, and a cursor. The history is read when the task is woken.

use std::{cell::Cell, rc::Rc};

use comet_proto::{
    ChannelName, ChannelNames, ChannelNamesError, Cursor, MAX_CHANNELS, Since, line,
};
use tokio::sync::Notify;

use super::{
    line_buffer::CHUNK,
    shared::Shared,
    unwritten::{UnwrittenMessages, Written},
};
use crate::hub::{
    ChannelSet,
    subscriber::{AfterDelivery, Feed, Subscriber},
};

/// The channels of a connection, and the messages that it has still to write.
pub(super) struct SocketSubscription {
    set: ChannelSet,
    /// Messages from one read of the history that are not sent yet.
    unwritten: UnwrittenMessages,
    waker: Rc<TaskWaker>,
    shared: Rc<Shared>,
}

/// The subscriber in the audience. It only wakes the connection's task.
#[derive(Default)]
struct TaskWaker {
    notify: Notify,
    /// Whether there may be messages to read.
    has_unread: Cell<bool>,
}

impl Subscriber for TaskWaker {
    fn deliver(self: Rc<Self>, _: &mut Feed<'_>) -> AfterDelivery {
        if !self.has_unread.replace(true) {
            self.notify.notify_one();
        }
        AfterDelivery::Stay
    }
}

pub(super) async fn woken(subscription: Option<&SocketSubscription>) {
    match subscription {
        Some(subscription) => subscription.waker.notify.notified().await,
        None => std::future::pending().await,
    }
}

impl SocketSubscription {
    /// A subscription without channels.
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        shared.metrics.subscribers.add(1);
        let waker = Rc::<TaskWaker>::default();
        Self {
            set: ChannelSet::join(&shared.audience, waker.clone()),
            unwritten: UnwrittenMessages::default(),
            waker,
            shared: shared.clone(),
        }
    }

    /// Adds channels, of which messages after `since` are delivered (`None`: from now on). Others go on as before. `presence`:
    /// also adds the presence messages of the channels.
    ///
    /// # Errors
    /// There would be more than [`MAX_CHANNELS`]; none is added.
    pub(super) fn add(
        &mut self,
        channels: &ChannelNames,
        since: Option<Since>,
        presence: bool,
    ) -> Result<(), ChannelNamesError> {
        let known = self.set.channels();
        let new = channels.iter().filter(|name| !known.contains(name));
        let all = known.iter().chain(new);
        let count = all.filter(|name| !name.is_internal()).count();
        if count > MAX_CHANNELS {
            return Err(ChannelNamesError::TooMany(count));
        }
        let since = since.map(|since| self.shared.audience.hub().resolve(since));
        self.set.add(channels, since);
        if presence {
            let presence = channels.iter().filter_map(ChannelName::presence);
            self.set.add(&presence.collect::<Vec<_>>(), since);
        }
        self.waker.has_unread.set(true);
        Ok(())
    }

    /// Drops channels, also their messages that are not sent yet. To be called between two messages.
    pub(super) fn remove(&mut self, channels: &ChannelNames) {
        for channel in channels.iter() {
            self.set.remove(channel);
            let presence = channel.presence();
            presence.map(|presence| self.set.remove(&presence));
        }
        self.unwritten.retain(self.set.channels());
    }

    /// Whether it has a channel left.
    pub(super) fn has_channels(&self) -> bool {
        !self.set.channels().is_empty()
    }

    /// Appends about one chunk. Returns true if everything is written, and the next message wakes the task.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < CHUNK {
            match self.unwritten.write_next(self.set.channels(), out) {
                Written::Message => {
                    out.push(b'\n');
                    self.shared.metrics.delivered.add(1);
                }
                Written::Piece => {}
                Written::Nothing if self.read(out) => {}
                Written::Nothing => return true,
            }
        }
        false
    }

    /// Whether a message is only partly written, so that no other line may follow yet.
    pub(super) fn is_within_message(&self) -> bool {
        self.unwritten.is_within_message()
    }

    /// Reads new messages. Returns false if there are none, and the next message wakes the task.
    fn read(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.waker.has_unread.get() {
            return false;
        }
        let backlog = self.set.read(CHUNK);
        self.waker.has_unread.set(backlog.is_news());
        if backlog.gap {
            // Whoever comes back with it gets what follows here.
            let before = backlog.messages.first().map(|first| Cursor(first.id - 1));
            line::write_gap(before.unwrap_or(backlog.cursor), out);
        }
        self.unwritten = backlog.messages.into();
        self.waker.has_unread.get()
    }
}

impl Drop for SocketSubscription {
    fn drop(&mut self) {
        self.shared.metrics.subscribers.sub(1);
    }
}

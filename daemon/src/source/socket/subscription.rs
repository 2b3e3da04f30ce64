//! The subscription of a connection: a set of channels and a cursor, which reads the history when it is woken.

use std::{cell::Cell, rc::Rc};

use comet_proto::{ChannelNames, Cursor, Since, line};
use tokio::sync::Notify;

use super::{
    line_buffer::CHUNK,
    shared::Shared,
    unwritten::{UnwrittenMessages, Written},
};
use crate::hub::subscriber::{AfterDelivery, Audience, Feed, Subscriber, SubscriberKey};

/// A set of channels and a cursor.
pub(super) struct SocketSubscription {
    channels: ChannelNames,
    /// The last id that was sent or is in `unwritten`; `None` before the subscription has begun.
    cursor: Option<Cursor>,
    /// Messages from one read of the history that are not sent yet.
    unwritten: UnwrittenMessages,
    waker: Rc<TaskWaker>,
    shared: Rc<Shared>,
}

/// The subscriber in the audience. It only wakes the connection's task.
#[derive(Default)]
struct TaskWaker {
    notify: Notify,
    /// The place in the audience while there is nothing to read.
    joined: Cell<Option<SubscriberKey>>,
}

impl Subscriber for TaskWaker {
    fn deliver(&self, _: &mut Feed<'_>) -> AfterDelivery {
        self.joined.set(None);
        self.notify.notify_one();
        AfterDelivery::Leave
    }
}

pub(super) async fn woken(subscription: Option<&SocketSubscription>) {
    match subscription {
        Some(subscription) => subscription.waker.notify.notified().await,
        None => std::future::pending().await,
    }
}

impl SocketSubscription {
    pub(super) fn new(shared: &Rc<Shared>, channels: ChannelNames, since: Option<Since>) -> Self {
        shared.metrics.subscribers.add(1);
        Self {
            channels,
            cursor: since.map(|since| shared.audience.hub().resolve(since)),
            unwritten: UnwrittenMessages::default(),
            waker: Rc::default(),
            shared: shared.clone(),
        }
    }

    /// Appends about one chunk. Returns true if everything is written, and the next message wakes the task.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < CHUNK {
            match self.unwritten.write_next(out) {
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

    /// Reads new messages. Returns false if there are none, and the subscriber has joined the audience.
    fn read(&mut self, out: &mut Vec<u8>) -> bool {
        let audience: &Audience = &self.shared.audience;
        if self.waker.joined.get().is_some() {
            return false;
        }
        match audience.join(&self.channels, self.cursor, self.waker.clone()) {
            Ok((key, cursor)) => {
                self.cursor = Some(cursor);
                self.waker.joined.set(Some(key));
                false
            }
            Err(mut backlog) => {
                backlog.cut(CHUNK);
                if backlog.gap {
                    // Whoever comes back with it gets what follows here.
                    let before = backlog.messages.first().map(|first| Cursor(first.id - 1));
                    line::write_gap(before.unwrap_or(backlog.cursor), out);
                }
                self.cursor = Some(backlog.cursor);
                self.unwritten = backlog.messages.into();
                true
            }
        }
    }
}

impl Drop for SocketSubscription {
    fn drop(&mut self) {
        if let Some(key) = self.waker.joined.take() {
            self.shared.audience.leave(key);
        }
        self.shared.metrics.subscribers.sub(1);
    }
}

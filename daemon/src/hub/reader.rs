//! A reader: the channels and the cursor of a client that waits. Joining, reading on, gaps and the end of the right to read
//! are the same for every protocol. A protocol decides when to read, and writes what the reader returns.

use std::{num::NonZeroU32, ops::Deref, rc::Rc};

use comet_proto::{ChannelName, Cursor};

use super::{
    Backlog, Hub,
    subscriber::{Audience, Feed, SharedBacklog, Subscriber, SubscriberKey},
};

/// See the module. The channels do not change; [`ChannelSet`](super::ChannelSet) is for clients that add and drop channels.
///
/// Every backlog that a method returns is to be delivered: the cursor has already moved to its end.
#[derive(Debug)]
pub struct Reader<C> {
    channels: C,
    /// Every message up to this id was read, or was covered by a gap.
    cursor: Cursor,
    /// The place in the audience, after [`Reader::join`].
    key: Option<SubscriberKey>,
    /// The end of the right to read: a second since 1970, or [`REVOKED`]. `None`: never.
    end: Option<NonZeroU32>,
    /// The client has not been told of a gap yet. The next backlog has it.
    has_untold_gap: bool,
    postpones_gaps: bool,
}

/// Value of [`Reader::end`]: new settings have ended the right. As a second it has passed long ago.
const REVOKED: NonZeroU32 = NonZeroU32::MIN;

/// When the right to read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightEnds {
    Never,
    /// The token expires at this second since 1970. Not a moment of a monotonic clock, because the system clock may be set
    /// while the client waits.
    At(u64),
    /// New settings have ended the right.
    Revoked,
}

impl<C: Deref<Target = [ChannelName]>> Reader<C> {
    /// A reader of the messages after `since`. `None`: from this moment on.
    pub fn new(hub: &Hub, channels: C, since: Option<Cursor>) -> Self {
        Self {
            channels,
            cursor: since.unwrap_or_else(|| hub.last()),
            key: None,
            end: None,
            has_untold_gap: false,
            postpones_gaps: false,
        }
    }

    /// Lets the right to read end at a second since 1970.
    #[must_use]
    pub fn until(mut self, second: Option<u64>) -> Self {
        self.end = second.map(|second| {
            let second = u32::try_from(second).unwrap_or(u32::MAX);
            NonZeroU32::new(second).unwrap_or(REVOKED)
        });
        self
    }

    /// Lets the reader begin with a gap, because messages before its cursor are withheld.
    #[must_use]
    pub fn starting_with_gap(mut self, is_gap: bool) -> Self {
        self.has_untold_gap = is_gap;
        self
    }

    /// For protocols that cannot tell of a gap without a message: the client goes on waiting, and the next message has the
    /// gap.
    #[must_use]
    pub fn postponing_gaps(mut self, postpones: bool) -> Self {
        self.postpones_gaps = postpones;
        self
    }

    pub fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    /// The cursor with which the client can come back.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Returns a backlog of at most `bytes`, or one message. `None`: there is nothing to read, and `subscriber` has joined the
    /// audience.
    pub fn join(
        &mut self,
        audience: &Audience,
        subscriber: &Rc<impl Subscriber + 'static>,
        bytes: usize,
    ) -> Option<Backlog> {
        if self.channels.is_empty() {
            self.cursor = audience.hub().last();
            return None;
        }
        let backlog = loop {
            if self.has_untold_gap && !self.postpones_gaps {
                break audience.hub().since(&self.channels, self.cursor);
            }
            match audience.join(&self.channels, Some(self.cursor), subscriber.clone()) {
                Err(backlog) if self.postpones(&backlog) => {}
                Err(backlog) => break backlog,
                Ok((key, cursor)) => {
                    (self.key, self.cursor) = (Some(key), cursor);
                    return None;
                }
            }
        };
        Some(self.take(backlog, bytes))
    }

    /// Whether the subscriber is in the audience.
    pub fn has_joined(&self) -> bool {
        self.key.is_some()
    }

    /// Like [`Reader::join`], for a subscriber that has stayed in the audience: only the channels with new messages are read.
    pub fn read_on(&mut self, audience: &Audience, bytes: usize) -> Option<Backlog> {
        let backlog = audience.read(self.key?, self.cursor);
        if backlog.is_news() && !self.postpones(&backlog) {
            return Some(self.take(backlog, bytes));
        }
        self.cursor = backlog.cursor;
        None
    }

    /// Returns the messages and gaps after the cursor, of at most `bytes`, or one message. `None`: there are none.
    pub fn read(&mut self, hub: &Hub, bytes: usize) -> Option<Backlog> {
        let backlog = hub.since(&self.channels, self.cursor);
        if backlog.is_news() && !self.postpones(&backlog) {
            return Some(self.take(backlog, bytes));
        }
        self.cursor = backlog.cursor;
        None
    }

    /// Whether there is something after the cursor. The cursor stays.
    pub fn has_news(&self, hub: &Hub) -> bool {
        hub.since(&self.channels, self.cursor).is_news()
    }

    /// Returns everything after the cursor, for the last answer to a client. It may be empty.
    pub fn read_rest(&mut self, hub: &Hub) -> Backlog {
        let backlog = hub.since(&self.channels, self.cursor);
        self.take_all(backlog)
    }

    /// Like [`Reader::read`], during a delivery: what many subscribers read alike is read and rendered once.
    pub fn read_shared(&mut self, feed: &mut Feed<'_>) -> Option<Rc<SharedBacklog>> {
        let shared = feed.read(self.cursor);
        let backlog = shared.backlog();
        if !backlog.is_news() || self.postpones(backlog) {
            return None;
        }
        if self.has_untold_gap {
            let alone = self.take_all(backlog.clone());
            return Some(Rc::new(SharedBacklog::new(alone)));
        }
        self.cursor = backlog.cursor;
        Some(shared)
    }

    /// Leaves the audience. To be called before the reader is dropped, and before another [`Reader::join`].
    pub fn leave(&mut self, audience: &Audience) {
        if let Some(key) = self.key.take() {
            audience.leave(key);
        }
    }

    /// When the right to read ends.
    pub fn ends(&self) -> RightEnds {
        match self.end {
            None => RightEnds::Never,
            Some(REVOKED) => RightEnds::Revoked,
            Some(second) => RightEnds::At(second.get().into()),
        }
    }

    /// Whether the right has ended at this second since 1970.
    pub fn has_ended(&self, now: u64) -> bool {
        self.end.is_some_and(|end| u64::from(end.get()) <= now)
    }

    /// Ends the right to read.
    pub fn revoke(&mut self) {
        self.end = Some(REVOKED);
    }

    /// Keeps what fits into `bytes`, adds the gap that the client has not been told of, and moves the cursor.
    fn take(&mut self, mut backlog: Backlog, bytes: usize) -> Backlog {
        backlog.cut(bytes);
        self.take_all(backlog)
    }

    /// Adds the gap that the client has not been told of, and moves the cursor.
    fn take_all(&mut self, mut backlog: Backlog) -> Backlog {
        backlog.gap |= std::mem::take(&mut self.has_untold_gap);
        self.cursor = backlog.cursor;
        backlog
    }

    /// Passes over a gap without messages, if the protocol cannot tell of it now. Returns whether it did.
    fn postpones(&mut self, backlog: &Backlog) -> bool {
        let postpones = self.postpones_gaps && backlog.gap && backlog.messages.is_empty();
        if postpones {
            (self.has_untold_gap, self.cursor) = (true, backlog.cursor);
        }
        postpones
    }
}

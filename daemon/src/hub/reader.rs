//! A reader: the channels and the cursor of one subscription. Joining the audience, reading, gaps and the end of the right
//! to read are the same for every protocol, so they are implemented here. A protocol decides when to read, and writes what
//! the reader returns.

use std::{num::NonZeroU32, ops::Deref, rc::Rc};

use comet_proto::{ChannelName, Cursor};

use super::{
    Backlog, Hub,
    subscriber::{Audience, Feed, SharedBacklog, Subscriber, SubscriberKey},
};

/// Reads the messages of a fixed list of channels. [`ChannelSet`](super::ChannelSet) is for clients that add and drop
/// channels.
///
/// The caller must deliver every backlog that a method returns, because the cursor has already moved to its end.
#[derive(Debug)]
pub struct Reader<C> {
    channels: C,
    /// Every message up to this id was read, or is covered by a gap.
    cursor: Cursor,
    /// The subscriber in the audience. `None` before [`Reader::join`] and after [`Reader::leave`].
    key: Option<SubscriberKey>,
    /// When the right to read ends: a second since 1970, or [`REVOKED`]. `None`: never.
    end: Option<NonZeroU32>,
    /// There was a gap that no backlog contained. The next backlog contains it.
    has_pending_gap: bool,
    /// The protocol can report a gap only together with a message.
    postpones_gaps: bool,
}

/// Value of [`Reader::end`]: new settings have ended the right to read. The value is second 1 since 1970, which has passed.
const REVOKED: NonZeroU32 = NonZeroU32::MIN;

/// When the right to read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightEnds {
    Never,
    /// The token expires at this second since 1970, by the system clock. A monotonic clock would be wrong, because the system
    /// clock may be set while the client waits.
    At(u64),
    /// New settings have ended the right.
    Revoked,
}

impl<C: Deref<Target = [ChannelName]>> Reader<C> {
    /// A reader of the messages after `since`. `None`: messages that are published from now on.
    pub fn new(hub: &Hub, channels: C, since: Option<Cursor>) -> Self {
        Self {
            channels,
            cursor: since.unwrap_or_else(|| hub.last()),
            key: None,
            end: None,
            has_pending_gap: false,
            postpones_gaps: false,
        }
    }

    /// Makes the right to read end at this second since 1970. `None`: never.
    #[must_use]
    pub fn until(mut self, second: Option<u64>) -> Self {
        self.end = second.map(|second| {
            let second = u32::try_from(second).unwrap_or(u32::MAX);
            NonZeroU32::new(second).unwrap_or(REVOKED)
        });
        self
    }

    /// Makes the first backlog contain a gap, because messages before the reader's cursor are withheld.
    #[must_use]
    pub fn starting_with_gap(mut self, is_gap: bool) -> Self {
        self.has_pending_gap = is_gap;
        self
    }

    /// For protocols that cannot report a gap without a message: after a gap the client keeps waiting, and the gap is
    /// reported together with the next message.
    #[must_use]
    pub fn postponing_gaps(mut self, postpones: bool) -> Self {
        self.postpones_gaps = postpones;
        self
    }

    pub fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    /// The cursor with which the client can continue in another request.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Returns a backlog of at most `bytes`; a larger message comes alone. `None`: there is nothing to read, and `subscriber`
    /// has joined the audience. A reader without channels never joins.
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
            if self.has_pending_gap && !self.postpones_gaps {
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

    /// Like [`Reader::read`], for a subscriber in the audience. Reads only the channels with new messages.
    pub fn read_on(&mut self, audience: &Audience, bytes: usize) -> Option<Backlog> {
        let backlog = audience.read(self.key?, self.cursor);
        if backlog.is_news() && !self.postpones(&backlog) {
            return Some(self.take(backlog, bytes));
        }
        self.cursor = backlog.cursor;
        None
    }

    /// Returns the messages and gaps after the cursor, of at most `bytes`; a larger message comes alone. `None`: there are
    /// none.
    pub fn read(&mut self, hub: &Hub, bytes: usize) -> Option<Backlog> {
        let backlog = hub.since(&self.channels, self.cursor);
        if backlog.is_news() && !self.postpones(&backlog) {
            return Some(self.take(backlog, bytes));
        }
        self.cursor = backlog.cursor;
        None
    }

    /// Whether there are messages or gaps after the cursor. Does not move the cursor.
    pub fn has_news(&self, hub: &Hub) -> bool {
        hub.since(&self.channels, self.cursor).is_news()
    }

    /// Returns everything after the cursor, for the last answer to a client. The backlog may be empty.
    pub fn read_rest(&mut self, hub: &Hub) -> Backlog {
        let backlog = hub.since(&self.channels, self.cursor);
        self.take_all(backlog)
    }

    /// Like [`Reader::read`], during a delivery. A backlog that is the same for many subscribers is read and rendered once.
    pub fn read_shared(&mut self, feed: &mut Feed<'_>) -> Option<Rc<SharedBacklog>> {
        let shared = feed.read(self.cursor);
        let backlog = shared.backlog();
        if !backlog.is_news() || self.postpones(backlog) {
            return None;
        }
        if self.has_pending_gap {
            let alone = self.take_all(backlog.clone());
            return Some(Rc::new(SharedBacklog::new(alone)));
        }
        self.cursor = backlog.cursor;
        Some(shared)
    }

    /// Leaves the audience. Must be called before the reader is dropped, and before another [`Reader::join`].
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

    /// Whether the right to read has ended by this second since 1970.
    pub fn has_ended(&self, now: u64) -> bool {
        self.end.is_some_and(|end| u64::from(end.get()) <= now)
    }

    /// Ends the right to read.
    pub fn revoke(&mut self) {
        self.end = Some(REVOKED);
    }

    /// Cuts the backlog to `bytes`, adds a pending gap, and moves the cursor to the end of the backlog.
    fn take(&mut self, mut backlog: Backlog, bytes: usize) -> Backlog {
        backlog.cut(bytes);
        self.take_all(backlog)
    }

    /// Adds a pending gap, and moves the cursor to the end of the backlog.
    fn take_all(&mut self, mut backlog: Backlog) -> Backlog {
        backlog.gap |= std::mem::take(&mut self.has_pending_gap);
        self.cursor = backlog.cursor;
        backlog
    }

    /// If the backlog is a gap without messages, and the protocol cannot report such a gap: remembers the gap, moves the
    /// cursor, and returns true.
    fn postpones(&mut self, backlog: &Backlog) -> bool {
        let postpones = self.postpones_gaps && backlog.gap && backlog.messages.is_empty();
        if postpones {
            (self.has_pending_gap, self.cursor) = (true, backlog.cursor);
        }
        postpones
    }
}

//! The channels of a subscriber that adds and drops channels while it waits.

use std::rc::Rc;

use comet_proto::{ChannelName, Cursor};

use super::{
    Backlog,
    subscriber::{Audience, Feed, SharedBacklog, Subscriber, SubscriberKey},
};

/// A set of channels with one cursor. Each channel also has its own start: an added channel delivers only messages that are
/// published after it was added, or after the cursor that was given for it.
///
/// The subscriber is in the audience as long as the set exists, and stays in the audience after each delivery.
pub struct ChannelSet {
    audience: Rc<Audience>,
    key: SubscriberKey,
    channels: Vec<ChannelName>,
    /// Every message that the set must deliver was read up to this id.
    cursor: Cursor,
    /// `None`: the audience's marks say which channels have messages after the cursor.
    catch_up: Option<Box<CatchUp>>,
}

/// A channel was added after the message at the cursor. Its marks are not complete yet, so all channels are read without the
/// marks.
#[derive(Default)]
struct CatchUp {
    /// After this id was read, the marks are complete.
    until: Cursor,
    /// For each channel the id after which its messages are delivered.
    starts: Vec<Cursor>,
    /// The cursor that was given for an added channel is not a cursor of this daemon.
    gap: bool,
}

impl ChannelSet {
    /// A set without channels. `subscriber` is called for messages of the channels that are added later.
    pub fn join(audience: &Rc<Audience>, subscriber: Rc<dyn Subscriber>) -> Self {
        let (key, cursor) = audience.join_without_channels(subscriber);
        Self {
            audience: audience.clone(),
            key,
            channels: Vec::new(),
            cursor,
            catch_up: None,
        }
    }

    /// The channels, in the order in which they were added.
    pub fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    /// The cursor with which a client that reconnects can continue.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Adds channels, whose messages after `since` are read (`None`: from now on). Channels that are already in the set do not
    /// change. The caller must read afterwards, because the new channels may already have messages.
    pub fn add(&mut self, channels: &[ChannelName], since: Option<Cursor>) {
        let new = channels.iter().filter(|name| !self.channels.contains(name));
        let mut new: Vec<ChannelName> = new.cloned().collect();
        if new.is_empty() {
            return;
        }
        self.audience.share_names(&mut new);
        let now = self.audience.add_channels(self.key, &new);
        let start = since.unwrap_or(now).min(now);
        let catch_up = self.catch_up.get_or_insert_default();
        catch_up.until = now;
        catch_up.gap |= since.is_some_and(|since| since > now);
        if self.channels.is_empty() {
            self.cursor = start;
        }
        catch_up.starts.resize(self.channels.len(), self.cursor);
        if start < self.cursor {
            // The set reads once more from there, but not its other channels.
            for other in &mut catch_up.starts {
                *other = self.cursor.max(*other);
            }
            self.cursor = start;
        }
        self.channels.extend(new);
        catch_up.starts.resize(self.channels.len(), start);
    }

    /// Drops a channel. Returns false if it is not in the set.
    pub fn remove(&mut self, channel: &ChannelName) -> bool {
        let known = self.channels.iter().position(|name| name == channel);
        let Some(place) = known else {
            return false;
        };
        self.channels.remove(place);
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.starts.remove(place);
        }
        self.audience.drop_channel(self.key, channel);
        true
    }

    /// Reads the new messages and moves the cursor. Returns at most `bytes`; a larger message comes alone. If there are no
    /// messages, the subscriber is called at the next message.
    pub fn read(&mut self, bytes: usize) -> Backlog {
        let mut backlog = match self.read_all() {
            Some(backlog) => backlog,
            None => self.audience.read(self.key, self.cursor),
        };
        backlog.cut(bytes);
        self.advance(backlog.cursor);
        backlog
    }

    /// Like [`ChannelSet::read`], during a delivery. A backlog that is the same for many subscribers is read and rendered once.
    pub fn read_shared(&mut self, feed: &mut Feed<'_>) -> Rc<SharedBacklog> {
        let shared = match self.read_all() {
            Some(backlog) => Rc::new(SharedBacklog::new(backlog)),
            None => feed.read(self.cursor),
        };
        self.advance(shared.backlog().cursor);
        shared
    }

    /// The backlog of all channels, if the marks are not complete.
    fn read_all(&mut self) -> Option<Backlog> {
        let catch_up = self.catch_up.as_mut()?;
        let hub = self.audience.hub();
        let mut backlog = hub.since_each(&self.channels, &catch_up.starts, self.cursor);
        backlog.gap |= std::mem::take(&mut catch_up.gap);
        Some(backlog)
    }

    fn advance(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.catch_up.take_if(|known| known.until <= cursor);
    }
}

impl Drop for ChannelSet {
    fn drop(&mut self) {
        self.audience.leave(self.key);
    }
}

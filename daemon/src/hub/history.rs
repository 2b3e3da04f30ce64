//! The history of one channel: a bounded list of messages, and the id up to which older ones are gone.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use comet_proto::{ChannelName, Message};

use super::micros;

/// The limits of one channel's history. All three apply. The newest message is always kept, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The number of messages. Messages younger than a second do not count, so that subscribers can read all messages of a
    /// burst.
    pub messages: usize,
    /// Bytes, including each message's overhead.
    pub bytes: usize,
    /// The age of a message.
    pub age: Duration,
}

/// A message is kept for this time even if the limit on the number of messages is exceeded.
pub(super) const BURST: Duration = Duration::from_secs(1);

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: 100,
            bytes: 4 << 20,
            age: Duration::from_secs(600),
        }
    }
}

impl Limits {
    /// The time when a message expires. Messages that never expire are ordered, too.
    pub(super) fn expiry(&self, id: u64) -> u64 {
        id.saturating_add(micros(self.age).min(u64::MAX / 2))
    }
}

/// The messages and bytes of all channels together.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// The initial capacity of a channel's list. A list of this size fits into the allocator's smallest block.
const FIRST_CAPACITY: usize = 3;

/// Oldest first.
pub(super) struct History {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    /// A cursor below this may have missed messages that were dropped.
    trimmed: u64,
}

impl History {
    pub(super) fn new(trimmed: u64) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            trimmed,
        }
    }

    pub(super) fn push(&mut self, message: Arc<Message>, kept: &mut Kept) {
        let cost = cost(&message);
        self.bytes += cost;
        kept.bytes += cost;
        kept.messages += 1;
        if self.messages.capacity() == 0 {
            self.messages.reserve_exact(FIRST_CAPACITY);
        }
        self.messages.push_back(message);
    }

    /// Drops the messages over the limits at `now` (µs since the epoch).
    pub(super) fn trim(&mut self, limits: &Limits, now: u64, kept: &mut Kept) {
        let old = now.saturating_sub(micros(limits.age));
        let settled = now.saturating_sub(micros(BURST));
        while let Some(oldest) = self.messages.front() {
            let too_many = self.messages.len() > limits.messages && oldest.id <= settled;
            let too_large = self.bytes > limits.bytes && self.messages.len() > 1;
            if oldest.id > old && !too_many && !too_large {
                break;
            }
            self.drop_oldest(kept);
        }
    }

    pub(super) fn drop_oldest(&mut self, kept: &mut Kept) {
        if let Some(message) = self.messages.pop_front() {
            self.dropped(&message, kept);
        }
    }

    fn dropped(&mut self, message: &Message, kept: &mut Kept) {
        let cost = cost(message);
        self.bytes -= cost;
        kept.bytes -= cost;
        kept.messages -= 1;
        // After a loss of power, newer messages than this one may already be gone.
        self.miss(message.id);
        // Frees capacity after a burst, and after the last message.
        if self.messages.len() < self.messages.capacity() / 8 || self.messages.is_empty() {
            self.messages.shrink_to(2 * self.messages.len());
        }
    }

    /// Drops all messages before `id`. Returns their number.
    pub(super) fn remove_before(&mut self, id: u64, kept: &mut Kept) -> usize {
        let count = self.messages.partition_point(|message| message.id < id);
        (0..count).for_each(|_| self.drop_oldest(kept));
        count
    }

    /// Drops the message with this id. Returns whether there was one.
    pub(super) fn remove(&mut self, id: u64, kept: &mut Kept) -> bool {
        let place = self
            .messages
            .binary_search_by_key(&id, |message| message.id);
        let Some(message) = place.ok().and_then(|place| self.messages.remove(place)) else {
            return false;
        };
        self.dropped(&message, kept);
        true
    }

    /// The messages after `cursor` up to `until`, and the id of the message before the first of them.
    pub(super) fn between(
        &self,
        cursor: u64,
        until: u64,
    ) -> (impl Iterator<Item = &Arc<Message>>, u64) {
        let seen = self
            .messages
            .partition_point(|message| message.id <= cursor);
        let after = match seen.checked_sub(1) {
            // A message that was removed may be newer than messages that are kept.
            Some(last) => self.messages[last].id.max(self.trimmed),
            None => self.trimmed,
        };
        let messages = self.messages.range(seen..);
        let messages = messages.take_while(move |message| message.id <= until);
        (messages, after)
    }

    /// The newest message up to `id`.
    pub(super) fn newest_until(&self, id: u64) -> Option<u64> {
        let count = self.messages.partition_point(|message| message.id <= id);
        Some(self.messages[count.checked_sub(1)?].id)
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.messages.front().map(|message| message.id)
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.messages.back().map(|message| message.id)
    }

    pub(super) fn trimmed(&self) -> u64 {
        self.trimmed
    }

    /// Records that a cursor below `id` may have missed messages.
    pub(super) fn miss(&mut self, id: u64) {
        self.trimmed = self.trimmed.max(id);
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// The memory of a message in bytes: its text and data, the structure, its reference counts and its place in the list. A
/// message of several channels counts in each of them, because each may be the last one that keeps the message.
pub(super) fn cost(message: &Message) -> usize {
    const FIXED: usize = size_of::<Message>() + 3 * size_of::<usize>();
    let attributes = message.attributes.as_ref();
    let channels = match message.channels.len() {
        1 => 0,
        several => several * size_of::<ChannelName>(),
    };
    FIXED
        + channels
        + message.name.as_str().len()
        + message.data.len()
        + attributes.map_or(0, |attributes| attributes.cost())
}

#[cfg(test)]
mod tests {
    use comet_proto::EventName;

    use super::*;

    fn message(id: u64) -> Arc<Message> {
        Arc::new(Message {
            channels: ChannelName::parse("a").unwrap().into(),
            id,
            name: EventName::default(),
            data: Box::default(),
            attributes: None,
        })
    }

    #[test]
    fn the_mark_of_missed_messages_stays_when_older_messages_are_dropped() {
        let (mut history, mut kept) = (History::new(0), Kept::default());
        history.push(message(1), &mut kept);
        history.miss(10);
        history.drop_oldest(&mut kept);
        assert_eq!(history.trimmed(), 10);
        history.push(message(11), &mut kept);
        history.drop_oldest(&mut kept);
        assert_eq!(history.trimmed(), 11);
    }

    #[test]
    fn uses_memory_only_for_the_messages_that_it_has() {
        let (mut history, mut kept) = (History::new(0), Kept::default());
        assert_eq!(history.messages.capacity(), 0);
        history.push(message(1), &mut kept);
        assert_eq!(history.messages.capacity(), FIRST_CAPACITY);
        for id in 2..=10_000 {
            history.push(message(id), &mut kept);
        }
        let few = Limits {
            messages: 10,
            ..Limits::default()
        };
        history.trim(&few, 3_000_000, &mut kept);
        assert_eq!((history.messages.len(), kept.messages), (10, 10));
        assert!(history.messages.capacity() < 100, "a burst is over");
        history.trim(&few, 700_000_000, &mut kept);
        assert_eq!(history.messages.capacity(), 0);
        assert_eq!((history.bytes, kept.bytes, kept.messages), (0, 0, 0));
    }
}

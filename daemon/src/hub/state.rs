//! The data under the hub's lock.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, binary_heap::PeekMut},
    sync::Arc,
};

use comet_proto::{ChannelName, ChannelNames, Cursor, Message};

use super::{
    Backlog, DirtyChannels, HistoryConfig, HubStatus, NewMessage, READ_BYTES,
    channel::{Channel, ChannelMap},
    history::{History, Kept, Limits, cost},
    keep::{Queue, Unwritten},
    keys::{Keys, PublisherKey},
    workers::Workers,
};

/// Number of channels, and of keys, that expire while the hub is locked once. This takes some hundred microseconds.
const SLICE: usize = 512;

/// The capacity that collections keep when they shrink.
const MIN_CAPACITY: usize = 64;

/// The approximate bytes of a channel without its messages.
const CHANNEL: usize = 256;

/// Collections shrink only after a peak of this size: see [`HubState::shrink`].
const SHRINK_PEAK: usize = 1 << 20;

/// The ids between two runs of the daemon. Messages with these ids are not in the log. So a client with such an id as its cursor
/// may have missed further messages with these ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LostRange {
    pub(super) after: u64,
    pub(super) before: u64,
    /// The log of the earlier run is complete: it has every acknowledged message. So no message is missing after a *time* that
    /// lies between the two ids.
    pub(super) whole: bool,
}

impl LostRange {
    pub(super) fn contains(&self, id: u64) -> bool {
        self.after < id && id < self.before
    }
}

pub(super) struct HubState {
    pub(super) config: HistoryConfig,
    pub(super) last: u64,
    published: u64,
    /// A cursor below this id may have missed messages of forgotten channels, or of an earlier run.
    pub(super) floor: u64,
    /// Messages up to this id may be older than their ids say: when the daemon started, the system's clock was behind the ids, so
    /// it is unknown for how long no daemon had run.
    pub(super) age_unknown: u64,
    /// Ranges of ids whose messages were lost. The oldest range is the first, unless the ranges come from a rewritten log.
    pub(super) lost: Vec<LostRange>,
    pub(super) channels: ChannelMap,
    /// The total over all channels.
    pub(super) kept: Kept,
    /// One entry for each channel with messages: the time when its oldest message expires. This message may already have been
    /// dropped.
    pub(super) expiry: BinaryHeap<Reverse<(u64, ChannelName)>>,
    /// For each worker the channels with new messages. Never longer than the number of its channels.
    dirty: Vec<Vec<ChannelName>>,
    /// For each worker the channels whose subscribers must be told that the channel was deleted.
    pub(super) deleted: Vec<BTreeSet<ChannelName>>,
    /// The numbers of messages that were set for single channels.
    pub(super) lengths: HashMap<ChannelName, u16>,
    pub(super) keys: Keys,
    /// The messages that are not in the log yet, if there is a log.
    pub(super) unwritten: Option<Queue>,
    /// The largest size that [`HubState::shrink`] has seen since it last shrank.
    peak: usize,
}

impl HubState {
    pub(super) fn new(config: HistoryConfig, workers: usize, now: u64) -> Self {
        // A client with the cursor 0 gets all kept messages and no gap. So 0 must not be the last id of a client.
        let start = now.max(1);
        Self {
            config,
            last: start,
            published: 0,
            floor: start,
            age_unknown: 0,
            lost: Vec::new(),
            channels: ChannelMap::new(),
            kept: Kept::default(),
            expiry: BinaryHeap::new(),
            dirty: vec![Vec::new(); workers],
            deleted: vec![BTreeSet::new(); workers],
            lengths: HashMap::new(),
            keys: Keys::default(),
            unwritten: None,
            peak: 0,
        }
    }

    /// Changes the limits. A channel drops messages over the new limits when it is next published to, read, or expired.
    pub(super) fn limit(&mut self, config: HistoryConfig) {
        self.config = config;
        self.expiry.clear();
        for channel in self.channels.iter_mut() {
            channel.class.rule = self.config.rule(&channel.name);
            channel.expires = false;
            if let Some(due) = channel.schedule(&self.config.limits(channel.class)) {
                self.expiry.push(Reverse((due, channel.name.clone())));
            }
        }
        while self.is_full() && self.evict() {}
    }

    /// Returns the id and the workers to wake.
    pub(super) fn publish(&mut self, new: NewMessage<'_>, now: u64) -> (u64, Workers) {
        if let Some(key) = &new.key
            && let Some(id) = self.known_by_key(&new.channels, key)
        {
            return (id, Workers::default());
        }
        let id = now.max(self.last + 1);
        self.last = id;
        self.published += 1;
        if let Some(key) = &new.key {
            for channel in new.channels.iter() {
                self.keys.insert(channel, key, id);
            }
        }
        let several = (new.channels.len() > 1).then(|| self.own_names(&new.channels));
        let mut channel = match self.channels.get_mut(&new.channels[0]) {
            Some(known) => known,
            None => {
                let channel = self.make(&new.channels[0]);
                self.channels.insert(channel)
            }
        };
        let message = Arc::new(Message {
            channels: several.unwrap_or_else(|| channel.name.clone().into()),
            id,
            name: new.name,
            data: new.data,
            attributes: new.attributes,
        });
        if let Some(queue) = &mut self.unwritten {
            let key = new.key.map(|key| key.text());
            queue.push(Unwritten::Message(message.clone(), key));
        }
        let (mut woken, mut others) = (0, message.channels[1..].iter());
        loop {
            let limits = self.config.limits(channel.class);
            let wake = channel.keep(message.clone(), &limits, &mut self.kept);
            woken |= wake;
            for worker in Workers(wake).iter() {
                self.dirty[worker].push(channel.name.clone());
            }
            if let Some(due) = channel.schedule(&limits) {
                self.expiry.push(Reverse((due, channel.name.clone())));
            }
            let Some(name) = others.next() else { break };
            let other = self.channels.get_mut(name);
            channel = other.expect("own_names has made the channel");
        }
        while self.is_full() && self.evict() {}
        (id, Workers(woken))
    }

    /// Replaces the names by the equal names in the channels, so that each name is in memory once. Creates the channels that do
    /// not exist yet.
    fn own_names(&mut self, names: &ChannelNames) -> ChannelNames {
        let own = |name: ChannelName| self.channel(&name).name.clone();
        names.clone().map(own)
    }

    /// The id of the message that this publisher has published with this key to one of the channels, if there is one.
    fn known_by_key(&mut self, channels: &[ChannelName], key: &PublisherKey<'_>) -> Option<u64> {
        let mut channels = channels.iter();
        channels.find_map(|channel| self.keys.get(channel, key))
    }

    /// Marks the worker as interested, and counts a subscriber.
    pub(super) fn mark_interest(&mut self, worker: usize, names: &[ChannelName]) {
        for name in names {
            let channel = match self.channels.get_mut(name) {
                Some(known) => known,
                None => {
                    let channel = self.make(name);
                    self.channels.insert(channel)
                }
            };
            channel.interest |= 1 << worker;
            channel.subscribers += 1;
        }
    }

    /// The subscriber that [`HubState::mark_interest`] has counted does not wait, because there is something to read.
    pub(super) fn discount(&mut self, names: &[ChannelName]) {
        for name in names {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.subscribers = channel.subscribers.saturating_sub(1);
            }
        }
    }

    pub(super) fn unmark_interest(&mut self, worker: usize, name: &ChannelName) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.interest &= !(1 << worker);
            self.forget_if_unused(name);
        }
    }

    pub(super) fn take_dirty(&mut self, worker: usize) -> DirtyChannels {
        let published = std::mem::take(&mut self.dirty[worker]);
        for name in &published {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.dirty &= !(1 << worker);
            }
        }
        DirtyChannels {
            published,
            deleted: std::mem::take(&mut self.deleted[worker]),
            up_to: self.last(),
        }
    }

    pub(super) fn last(&self) -> Cursor {
        Cursor(self.last)
    }

    pub(super) fn read(&mut self, names: &[ChannelName], cursor: Cursor, now: u64) -> Backlog {
        self.read_until(names, cursor, self.last(), now)
    }

    /// The messages after `cursor`, up to the id `until`.
    pub(super) fn read_until(
        &mut self,
        names: &[ChannelName],
        cursor: Cursor,
        until: Cursor,
        now: u64,
    ) -> Backlog {
        let parts = names.iter().map(|name| (name, cursor.0));
        self.read_parts(parts, cursor, until, now).for_reader(names)
    }

    /// The messages after `cursor`. Of each channel only messages after the channel's own start are read.
    pub(super) fn read_each(
        &mut self,
        names: &[ChannelName],
        starts: &[Cursor],
        cursor: Cursor,
        now: u64,
    ) -> Backlog {
        let starts = starts.iter().map(|start| cursor.0.max(start.0));
        let parts = names.iter().zip(starts);
        let backlog = self.read_parts(parts, cursor, self.last(), now);
        backlog.for_reader(names)
    }

    /// `parts`: channels, and the id after which each one is read.
    fn read_parts<'a>(
        &mut self,
        parts: impl ExactSizeIterator<Item = (&'a ChannelName, u64)>,
        cursor: Cursor,
        until: Cursor,
        now: u64,
    ) -> Backlog {
        let now = now.max(self.last);
        let mut backlog = Backlog {
            cursor: until,
            gap: cursor.0 > self.last || self.is_lost(cursor.0),
            ..Backlog::default()
        };
        if let Some(lost) = self.lost.last() {
            backlog.after = cursor.0.min(lost.before); // only a reader with the same lost range gets the same answer
        }
        let is_one = parts.len() == 1;
        let mut with_news = Vec::new();
        for (name, start) in parts {
            let (trimmed, after) = match self.channels.get_mut(name) {
                None => (self.floor, self.floor),
                Some(Channel { history, class, .. }) => {
                    history.trim(&self.config.limits(*class), now, &mut self.kept);
                    let (mut messages, after) = history.between(start, until.0);
                    if is_one {
                        fill(&mut backlog, messages);
                    } else if messages.next().is_some() {
                        with_news.push((name, start));
                    }
                    (history.trimmed(), after)
                }
            };
            backlog.after = backlog.after.max(after);
            // A client with the cursor 0 asks for the kept messages, and none of these is missing.
            backlog.gap |= start != 0 && start < trimmed;
        }
        let lists = with_news.iter().filter_map(|(name, start)| {
            let channel = self.channels.get(name)?;
            Some(channel.history.between(*start, until.0).0)
        });
        let mut lists = lists;
        if with_news.len() > 1 {
            fill(&mut backlog, in_order(lists));
        } else if let Some(messages) = lists.next() {
            fill(&mut backlog, messages);
        }
        backlog
    }

    /// For each channel the id up to which its messages are gone.
    pub(super) fn trimmed(&self, names: &[ChannelName]) -> Vec<u64> {
        let channels = names.iter().map(|name| self.channels.get(name));
        let trimmed = |known: Option<&Channel>| known.map_or(self.floor, |c| c.history.trimmed());
        channels.map(trimmed).collect()
    }

    /// The cursor of a client that has read all messages up to a moment. If the moment is after the last id, also in the
    /// future, the cursor is the last id. If the moment is between two runs of the daemon, the cursor is the last id of the
    /// earlier run, provided that the log is complete.
    pub(super) fn at(&self, time: u64) -> Cursor {
        let time = time.min(self.last);
        let mut around = self.lost.iter().filter(|lost| lost.contains(time));
        match around.next() {
            Some(lost) if lost.whole && around.all(|other| other == lost) => Cursor(lost.after),
            _ => Cursor(time),
        }
    }

    /// The newest message after `cursor` that is older than `age` at `now`, or whose age is unknown.
    pub(super) fn newest_older(
        &mut self,
        names: &[ChannelName],
        cursor: Cursor,
        age: u64,
        now: u64,
    ) -> Option<Cursor> {
        let (now, age_unknown) = (now.max(self.last), self.age_unknown);
        let newest = names.iter().filter_map(|name| {
            let Channel { history, class, .. } = self.channels.get_mut(name)?;
            history.trim(&self.config.limits(*class), now, &mut self.kept);
            history.newest_until(now.saturating_sub(age).max(age_unknown))
        });
        newest.max().map(Cursor).filter(|newest| *newest > cursor)
    }

    /// Drops some of the messages that have expired at `now`. Returns whether there are more.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let now = now.max(self.last);
        let mut more = self.keys.expire(now, SLICE);
        for _ in 0..SLICE {
            if !self.is_due(now) {
                break;
            }
            self.shorten_next(|history, limits, _, kept| history.trim(limits, now, kept));
        }
        more |= self.is_due(now);
        if !more {
            self.shrink();
        }
        more
    }

    fn is_due(&self, now: u64) -> bool {
        let next = self.expiry.peek();
        next.is_some_and(|Reverse((due, _))| *due <= now)
    }

    /// Frees memory after a peak of channels.
    fn shrink(&mut self) {
        let size = self.kept.bytes + (self.channels.len() + self.keys.len()) * CHANNEL;
        if self.peak < SHRINK_PEAK || size >= self.peak / 8 {
            self.peak = self.peak.max(size);
            return;
        }
        self.peak = size;
        self.channels.shrink();
        self.expiry.shrink_to(MIN_CAPACITY);
        self.keys.shrink();
    }

    pub(super) fn status(&self) -> HubStatus {
        HubStatus {
            last_id: self.last,
            published: self.published,
            channels: self.channels.len(),
            messages: self.kept.messages,
            bytes: self.kept.bytes,
        }
    }

    /// The channel may already be gone.
    pub(super) fn make(&self, name: &ChannelName) -> Channel {
        Channel::new(name.clone(), self.floor, self.class(name))
    }

    /// Whether the total limit is exceeded. Channels count, too, because many small channels take more memory than their messages.
    pub(super) fn is_full(&self) -> bool {
        self.kept.bytes + self.expiry.len() * CHANNEL > self.config.total_bytes
    }

    /// Of all channels, drops the message that would expire first. Returns false if there are no messages.
    pub(super) fn evict(&mut self) -> bool {
        self.shorten_next(|history, limits, due, kept| {
            // Entries are updated lazily: if the oldest message is already gone, only the entry is renewed.
            let oldest = history.oldest();
            if oldest.is_some_and(|oldest| limits.expiry(oldest) <= due) {
                history.drop_oldest(kept);
            }
        })
    }

    /// Takes the entry that is due first, and calls `shorten`, which may drop messages of the entry's channel. Returns false if
    /// there is no entry.
    fn shorten_next(
        &mut self,
        shorten: impl FnOnce(&mut History, &Limits, u64, &mut Kept),
    ) -> bool {
        let Some(Reverse((due, name))) = self.expiry.pop() else {
            return false;
        };
        let channel = self.channels.get_mut(&name);
        let channel = channel.expect("who has an entry is not forgotten");
        let limits = self.config.limits(channel.class);
        channel.expires = false;
        shorten(&mut channel.history, &limits, due, &mut self.kept);
        match channel.schedule(&limits) {
            Some(due) => self.expiry.push(Reverse((due, name))),
            None => self.forget_if_unused(&name),
        }
        true
    }

    /// Removes a channel without messages and subscribers. The floor then covers the messages that it had dropped.
    pub(super) fn forget_if_unused(&mut self, name: &ChannelName) {
        if !self.channels.get(name).is_some_and(Channel::is_unused) {
            return;
        }
        if let Some(channel) = self.channels.remove(name) {
            self.floor = self.floor.max(channel.history.trimmed());
            for worker in Workers(channel.dirty).iter() {
                self.dirty[worker].retain(|dirty| dirty != name);
            }
        }
    }
}

/// Merges sorted lists into one.
fn in_order<'a, I: Iterator<Item = &'a Arc<Message>>>(
    lists: impl Iterator<Item = I>,
) -> impl Iterator<Item = &'a Arc<Message>> {
    let mut lists: Vec<_> = lists.map(Iterator::peekable).collect();
    let heads = lists.iter_mut().enumerate();
    let heads = heads.filter_map(|(list, rest)| Some(Reverse((rest.peek()?.id, list))));
    let mut heads: BinaryHeap<_> = heads.collect();
    std::iter::from_fn(move || {
        let mut head = heads.peek_mut()?;
        let Reverse((_, list)) = *head;
        let message = lists[list].next();
        match lists[list].peek() {
            Some(next) => head.0.0 = next.id,
            None => _ = PeekMut::pop(head),
        }
        message
    })
}

/// Takes up to [`READ_BYTES`]. If messages are left, sets `more` and the cursor with which the next read continues. The input has a
/// message of several channels once for each channel, one directly after the other. Such a message is taken once.
fn fill<'a>(backlog: &mut Backlog, messages: impl Iterator<Item = &'a Arc<Message>>) {
    let (mut bytes, mut last) = (0, 0);
    for message in messages {
        if message.id == last {
            continue;
        }
        last = message.id;
        bytes += cost(message);
        if bytes > READ_BYTES
            && let Some(last) = backlog.messages.last()
        {
            backlog.cursor = Cursor(last.id);
            backlog.more = true;
            return;
        }
        backlog.messages.push(message.clone());
    }
}

#[cfg(test)]
impl HubState {
    /// The capacity of the collection.
    pub(super) fn room(&self) -> usize {
        self.channels.room() + self.expiry.capacity() + self.keys.room()
    }
}

//! What the hub's lock guards.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use comet_proto::{ChannelName, Cursor, Message};

use super::{
    Backlog, HistoryConfig, HubStatus, NewMessage, READ_BYTES,
    channel::{Channel, Channels},
    history::{History, Kept, Limits, cost},
    keep::{Queue, Unwritten},
    keys::Keys,
    workers::Workers,
};

/// Channels, and keys, that expire under one lock: some hundred microseconds.
const SLICE: usize = 512;

/// Room for so much stays.
const FEW: usize = 64;

/// About what a channel costs beside its messages.
const CHANNEL: usize = 256;

/// Less than this is no storm: see [`State::shrink`].
const CALM: usize = 1 << 20;

/// The ids between two daemons. An earlier daemon gave them to messages that are not in the log: a client that has one
/// as its cursor may have missed others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) after: u64,
    pub(super) before: u64,
    /// The log of that daemon is whole: whatever was acknowledged is in it, so nothing is missing after a *time* that lies
    /// between the two ids.
    pub(super) whole: bool,
}

impl Lost {
    pub(super) fn contains(&self, id: u64) -> bool {
        self.after < id && id < self.before
    }
}

pub(super) struct State {
    pub(super) config: HistoryConfig,
    pub(super) last: u64,
    published: u64,
    /// A cursor below this may have missed messages of channels that are forgotten, or of an earlier daemon.
    pub(super) floor: u64,
    /// Oldest first, apart from copies of a log that was written anew.
    pub(super) lost: Vec<Lost>,
    pub(super) channels: Channels,
    /// Over all channels.
    pub(super) kept: Kept,
    /// One entry for each channel with messages: when its oldest one expires. That may have gone since.
    pub(super) expiry: BinaryHeap<Reverse<(u64, ChannelName)>>,
    /// For each worker the channels that it has to look at; bounded by those that it listens to.
    dirty: Vec<Vec<ChannelName>>,
    pub(super) keys: Keys,
    /// Where there is a log: what it does not have yet.
    pub(super) unwritten: Option<Queue>,
    /// The largest size that [`State::shrink`] has seen since it last shrank.
    peak: usize,
}

impl State {
    pub(super) fn new(config: HistoryConfig, workers: usize, now: u64) -> Self {
        // As a cursor, 0 asks for all that is kept and is never told of a gap: it must not be what a client saw.
        let start = now.max(1);
        Self {
            config,
            last: start,
            published: 0,
            floor: start,
            lost: Vec::new(),
            channels: Channels::new(),
            kept: Kept::default(),
            expiry: BinaryHeap::new(),
            dirty: vec![Vec::new(); workers],
            keys: Keys::default(),
            unwritten: None,
            peak: 0,
        }
    }

    /// Changes the limits. What is over them goes when its channel is next published to, read, or expires.
    pub(super) fn limit(&mut self, config: HistoryConfig) {
        self.config = config;
        self.expiry.clear();
        for channel in self.channels.iter_mut() {
            channel.class = self.config.class(&channel.name);
            channel.expires = false;
            if let Some(due) = channel.schedule(self.config.limits(channel.class)) {
                self.expiry.push(Reverse((due, channel.name.clone())));
            }
        }
        while self.is_full() && self.evict() {}
    }

    /// Returns the id and the workers to wake.
    pub(super) fn publish(&mut self, new: NewMessage<'_>, now: u64) -> (u64, Workers) {
        if let Some(key) = &new.key
            && let Some(id) = self.keys.get(new.channel, key)
        {
            return (id, Workers::default());
        }
        let id = now.max(self.last + 1);
        self.last = id;
        self.published += 1;
        if let Some(key) = &new.key {
            self.keys.insert(new.channel, key, id);
        }
        let channel = match self.channels.get_mut(new.channel) {
            Some(known) => known,
            None => {
                let channel = self.make(new.channel);
                self.channels.insert(channel)
            }
        };
        let message = Arc::new(Message {
            channel: channel.name.clone(),
            id,
            name: new.name,
            data: new.data,
        });
        if let Some(queue) = &mut self.unwritten {
            queue.push(Unwritten {
                message: message.clone(),
                key: new.key.map(|key| key.text()),
            });
        }
        channel.history.push(message, &mut self.kept);
        let limits = self.config.limits(channel.class);
        channel.history.trim(limits, id, &mut self.kept);
        let wake = channel.interest & !channel.dirty;
        channel.dirty |= wake;
        for worker in Workers(wake).iter() {
            self.dirty[worker].push(channel.name.clone());
        }
        if let Some(due) = channel.schedule(limits) {
            self.expiry.push(Reverse((due, channel.name.clone())));
        }
        while self.is_full() && self.evict() {}
        (id, Workers(wake))
    }

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
        }
    }

    pub(super) fn unmark_interest(&mut self, worker: usize, name: &ChannelName) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.interest &= !(1 << worker);
            self.forget_if_unused(name);
        }
    }

    pub(super) fn take_dirty(&mut self, worker: usize) -> Vec<ChannelName> {
        let names = std::mem::take(&mut self.dirty[worker]);
        for name in &names {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.dirty &= !(1 << worker);
            }
        }
        names
    }

    pub(super) fn last(&self) -> Cursor {
        Cursor(self.last)
    }

    pub(super) fn read(&mut self, names: &[ChannelName], cursor: Cursor, now: u64) -> Backlog {
        let now = now.max(self.last);
        let mut backlog = Backlog {
            cursor: self.last(),
            gap: cursor.0 > self.last || self.is_lost(cursor.0),
            ..Backlog::default()
        };
        if let Some(lost) = self.lost.last() {
            backlog.after = cursor.0.min(lost.before); // the same answer only for whoever has the same past
        }
        let mut with_news = Vec::new();
        for name in names {
            let (trimmed, after) = match self.channels.get_mut(name) {
                None => (self.floor, self.floor),
                Some(Channel { history, class, .. }) => {
                    history.trim(self.config.limits(*class), now, &mut self.kept);
                    let (mut messages, after) = history.since(cursor.0);
                    if names.len() == 1 {
                        fill(&mut backlog, messages);
                    } else if messages.next().is_some() {
                        with_news.push(name);
                    }
                    (history.trimmed(), after)
                }
            };
            backlog.after = backlog.after.max(after);
            // 0 asks for what is kept: nothing can be missing from that.
            backlog.gap |= cursor.0 != 0 && cursor.0 < trimmed;
        }
        let channels = with_news.iter().filter_map(|name| self.channels.get(name));
        let mut lists = channels.map(|channel| channel.history.since(cursor.0).0);
        if with_news.len() > 1 {
            fill(&mut backlog, in_order(lists));
        } else if let Some(messages) = lists.next() {
            fill(&mut backlog, messages);
        }
        backlog
    }

    /// For each channel, up to where its messages are gone.
    pub(super) fn trimmed(&self, names: &[ChannelName]) -> Vec<u64> {
        let channels = names.iter().map(|name| self.channels.get(name));
        let trimmed = |known: Option<&Channel>| known.map_or(self.floor, |c| c.history.trimmed());
        channels.map(trimmed).collect()
    }

    /// The cursor of a client that has seen everything up to a moment. A moment after the last id is that id, also one
    /// that is still to come: nothing was published after it. A moment between two daemons is the last id of the first
    /// one, where the log is whole.
    pub(super) fn at(&self, time: u64) -> Cursor {
        let time = time.min(self.last);
        let mut around = self.lost.iter().filter(|lost| lost.contains(time));
        match around.next() {
            Some(lost) if lost.whole && around.all(|other| other == lost) => Cursor(lost.after),
            _ => Cursor(time),
        }
    }

    /// The newest message after `cursor` that is older than `age` at `now`.
    pub(super) fn newest_older(
        &mut self,
        names: &[ChannelName],
        cursor: Cursor,
        age: u64,
        now: u64,
    ) -> Option<Cursor> {
        let now = now.max(self.last);
        let newest = names.iter().filter_map(|name| {
            let Channel { history, class, .. } = self.channels.get_mut(name)?;
            history.trim(self.config.limits(*class), now, &mut self.kept);
            history.newest_until(now.saturating_sub(age))
        });
        newest.max().map(Cursor).filter(|newest| *newest > cursor)
    }

    /// Drops a slice of what has expired at `now`. True: there is more.
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

    /// A storm that is over should not hold its memory.
    fn shrink(&mut self) {
        let size = self.kept.bytes + (self.channels.len() + self.keys.len()) * CHANNEL;
        if self.peak < CALM || size >= self.peak / 8 {
            self.peak = self.peak.max(size);
            return;
        }
        self.peak = size;
        self.channels.shrink();
        self.expiry.shrink_to(FEW);
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

    /// It may have been forgotten before.
    pub(super) fn make(&self, name: &ChannelName) -> Channel {
        Channel::new(name.clone(), self.floor, self.config.class(name))
    }

    /// A channel that has messages counts, too: many small ones take more than what is in them.
    pub(super) fn is_full(&self) -> bool {
        self.kept.bytes + self.expiry.len() * CHANNEL > self.config.total_bytes
    }

    /// Drops the message that would expire first, of all channels. False: there is none.
    pub(super) fn evict(&mut self) -> bool {
        self.shorten_next(|history, limits, due, kept| {
            // Entries are lazy: where the oldest has gone since, only the entry is renewed.
            let oldest = history.oldest();
            if oldest.is_some_and(|oldest| limits.expiry(oldest) <= due) {
                history.drop_oldest(kept);
            }
        })
    }

    /// Takes the entry that is due first; `shorten` may drop messages of its channel. False: there is none.
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
        shorten(&mut channel.history, limits, due, &mut self.kept);
        match channel.schedule(limits) {
            Some(due) => self.expiry.push(Reverse((due, name))),
            None => self.forget_if_unused(&name),
        }
        true
    }

    /// A channel without messages and listeners costs nothing; what it forgot is remembered by the floor.
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

impl HistoryConfig {
    /// The number of the limits that hold for a channel.
    fn class(&self, name: &str) -> u32 {
        let prefixes = self.prefixes.iter().zip(1..);
        let matching = prefixes.filter(|((prefix, _), _)| name.starts_with(prefix.as_str()));
        matching
            .max_by_key(|((prefix, _), _)| prefix.len())
            .map_or(0, |(_, class)| class)
    }

    pub(super) fn limits(&self, class: u32) -> &Limits {
        match class.checked_sub(1) {
            Some(prefix) => &self.prefixes[prefix as usize].1,
            None => &self.default,
        }
    }
}

/// Of lists that are in order, one that is.
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

/// Takes up to [`READ_BYTES`]. What is left is told, and the cursor set so that the next read goes on there.
fn fill<'a>(backlog: &mut Backlog, messages: impl Iterator<Item = &'a Arc<Message>>) {
    let mut bytes = 0;
    for message in messages {
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
impl State {
    /// Entries that there is room for.
    pub(super) fn room(&self) -> usize {
        self.channels.room() + self.expiry.capacity() + self.keys.room()
    }
}

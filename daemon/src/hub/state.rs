//! What the hub's lock guards.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use comet_proto::{ChannelName, Cursor, Message};
use slab::Slab;

use super::{
    Backlog, HistoryConfig, HubStatus, NewMessage, READ_BYTES,
    history::{History, Limits, cost},
    keys::Keys,
    micros,
};

pub(super) struct State {
    config: HistoryConfig,
    last: u64,
    published: u64,
    /// A cursor below this may have missed messages of channels that are forgotten, or of an earlier daemon.
    floor: u64,
    names: HashMap<ChannelName, usize>,
    channels: Slab<Channel>,
    /// Costs of all messages kept.
    bytes: usize,
    /// One entry for each channel with messages: when its oldest message expires, that message's id, and the
    /// slot. Since then the message may have gone.
    expiry: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// For each worker the channels that it has to look at; bounded by those that it listens to.
    dirty: Vec<Vec<ChannelName>>,
    keys: Keys,
}

struct Channel {
    name: ChannelName,
    limits: Limits,
    history: History,
    /// Bit w: worker w has subscribers here.
    interest: u64,
    /// Bit w: this channel is in worker w's dirty list.
    dirty: u64,
    /// It has an entry in `expiry`.
    expires: bool,
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
            names: HashMap::new(),
            channels: Slab::new(),
            bytes: 0,
            expiry: BinaryHeap::new(),
            dirty: vec![Vec::new(); workers],
            keys: Keys::default(),
        }
    }

    /// Returns the id and the workers to wake, a bit each.
    pub(super) fn publish(&mut self, new: NewMessage<'_>, now: u64) -> (u64, u64) {
        if let Some(id) = new.key.and_then(|key| self.keys.get(new.channel, key)) {
            return (id, 0);
        }
        let id = now.max(self.last + 1);
        self.last = id;
        self.published += 1;
        if let Some(key) = new.key {
            self.keys.insert(new.channel, key, id);
        }
        let slot = self.slot(new.channel);
        let channel = &mut self.channels[slot];
        let before = channel.history.bytes();
        channel.history.push(Arc::new(Message {
            channel: channel.name.clone(),
            id,
            name: new.name,
            data: new.data,
        }));
        channel.history.trim(&channel.limits, id);
        self.bytes = self.bytes - before + channel.history.bytes();
        let wake = channel.interest & !channel.dirty;
        channel.dirty |= wake;
        for worker in bits(wake) {
            self.dirty[worker].push(channel.name.clone());
        }
        self.schedule(slot);
        while self.bytes > self.config.total_bytes && self.evict() {}
        (id, wake)
    }

    pub(super) fn mark_interest(&mut self, worker: usize, channels: &[ChannelName]) {
        for name in channels {
            let slot = self.slot(name);
            self.channels[slot].interest |= 1 << worker;
        }
    }

    pub(super) fn unmark_interest(&mut self, worker: usize, name: &ChannelName) {
        if let Some(&slot) = self.names.get(name) {
            self.channels[slot].interest &= !(1 << worker);
            self.forget_if_unused(slot);
        }
    }

    pub(super) fn take_dirty(&mut self, worker: usize) -> Vec<ChannelName> {
        let names = std::mem::take(&mut self.dirty[worker]);
        for name in &names {
            if let Some(&slot) = self.names.get(name) {
                self.channels[slot].dirty &= !(1 << worker);
            }
        }
        names
    }

    pub(super) fn last(&self) -> Cursor {
        Cursor(self.last)
    }

    pub(super) fn read(&mut self, names: &[ChannelName], cursor: Cursor, now: u64) -> Backlog {
        let mut backlog = Backlog {
            cursor: self.last(),
            gap: cursor.0 > self.last,
            ..Backlog::default()
        };
        for name in names {
            let trimmed = match self.names.get(name) {
                None => {
                    backlog.after = backlog.after.max(self.floor);
                    self.floor
                }
                Some(&slot) => {
                    self.trim(slot, now);
                    let history = &self.channels[slot].history;
                    let (messages, after) = history.since(cursor.0);
                    extend(&mut backlog.messages, messages);
                    backlog.after = backlog.after.max(after);
                    history.trimmed()
                }
            };
            // 0 asks for what is kept: nothing can be missing from that.
            backlog.gap |= cursor.0 != 0 && cursor.0 < trimmed;
        }
        if names.len() > 1 {
            backlog.messages.sort_unstable_by_key(|message| message.id);
        }
        shorten(&mut backlog);
        backlog
    }

    /// Drops what has expired at `now`.
    pub(super) fn expire(&mut self, now: u64) {
        let now = now.max(self.last);
        self.keys.expire(now);
        while self
            .expiry
            .peek()
            .is_some_and(|Reverse((due, ..))| *due <= now)
        {
            let Some(Reverse((_, _, slot))) = self.expiry.pop() else {
                break;
            };
            self.channels[slot].expires = false;
            self.trim(slot, now);
            self.schedule(slot);
            self.forget_if_unused(slot);
        }
        // A storm of channels that is over should not hold its memory.
        if self.names.len() < self.names.capacity() / 8 {
            self.names.shrink_to_fit();
            self.channels.shrink_to_fit();
            self.expiry.shrink_to_fit();
        }
    }

    pub(super) fn status(&self) -> HubStatus {
        HubStatus {
            last_id: self.last,
            published: self.published,
            channels: self.names.len(),
            messages: self
                .channels
                .iter()
                .map(|(_, channel)| channel.history.len())
                .sum(),
            bytes: self.bytes,
        }
    }

    fn slot(&mut self, name: &ChannelName) -> usize {
        if let Some(&slot) = self.names.get(name) {
            return slot;
        }
        let limits = self.config.limits(name);
        let slot = self.channels.insert(Channel {
            name: name.clone(),
            limits,
            // It may have been forgotten before.
            history: History::new(self.floor),
            interest: 0,
            dirty: 0,
            expires: false,
        });
        self.names.insert(name.clone(), slot);
        slot
    }

    fn trim(&mut self, slot: usize, now: u64) {
        let channel = &mut self.channels[slot];
        let before = channel.history.bytes();
        channel.history.trim(&channel.limits, now.max(self.last));
        self.bytes = self.bytes - before + channel.history.bytes();
    }

    fn schedule(&mut self, slot: usize) {
        let channel = &mut self.channels[slot];
        if let (false, Some(oldest)) = (channel.expires, channel.history.oldest()) {
            channel.expires = true;
            let due = oldest.saturating_add(micros(channel.limits.age));
            self.expiry.push(Reverse((due, oldest, slot)));
        }
    }

    /// Drops the message that would expire first, of all channels. False: there is none.
    fn evict(&mut self) -> bool {
        let Some(Reverse((_, expected, slot))) = self.expiry.pop() else {
            return false;
        };
        let channel = &mut self.channels[slot];
        channel.expires = false;
        // Entries are lazy: where the oldest has gone since, only the entry is renewed.
        if channel
            .history
            .oldest()
            .is_some_and(|oldest| oldest <= expected)
        {
            let before = channel.history.bytes();
            channel.history.drop_oldest();
            self.bytes = self.bytes - before + channel.history.bytes();
        }
        self.schedule(slot);
        self.forget_if_unused(slot);
        true
    }

    /// A channel without messages and listeners costs nothing; what it forgot is remembered by the floor.
    fn forget_if_unused(&mut self, slot: usize) {
        let channel = &self.channels[slot];
        if channel.interest == 0 && channel.history.len() == 0 && !channel.expires {
            let channel = self.channels.remove(slot);
            self.floor = self.floor.max(channel.history.trimmed());
            self.names.remove(&channel.name);
            for worker in bits(channel.dirty) {
                self.dirty[worker].retain(|name| *name != channel.name);
            }
        }
    }
}

impl HistoryConfig {
    fn limits(&self, name: &str) -> Limits {
        let matching = self
            .prefixes
            .iter()
            .filter(|(prefix, _)| name.starts_with(prefix.as_str()));
        matching
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(self.default, |(_, limits)| *limits)
    }
}

/// Appends messages of one channel, up to the one that passes [`READ_BYTES`]: what comes after it would be cut.
fn extend<'a>(to: &mut Vec<Arc<Message>>, messages: impl Iterator<Item = &'a Arc<Message>>) {
    let mut bytes = 0;
    let fits = messages.take_while(|message| {
        let fits = bytes <= READ_BYTES;
        bytes += cost(message);
        fits
    });
    to.extend(fits.cloned());
}

/// Cuts what is over [`READ_BYTES`], says so, and sets the cursor so that the next read goes on there.
fn shorten(backlog: &mut Backlog) {
    let mut bytes = 0;
    let fitting = backlog.messages.iter().position(|message| {
        bytes += cost(message);
        bytes > READ_BYTES
    });
    if let Some(fitting) = fitting {
        backlog.messages.truncate(fitting.max(1));
        backlog.more = true;
        if let Some(last) = backlog.messages.last() {
            backlog.cursor = Cursor(last.id);
        }
    }
}

fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}

//! Restores the state of the hub from a log at the start, and lists the content of a new base.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use comet_proto::{ChannelName, ChannelNames, Message};

use super::{
    HistoryConfig, LogSettings,
    channel::Channel,
    keep::Queue,
    keys::{KeyPosition, PublisherKey},
    state::{HubState, LostRange},
};
use crate::store::{Durability, LogSummary, MessageRecord, Record};

/// Maximum number of stored lost ranges. Further ranges are merged with older ranges, which can only cause unnecessary gaps.
const MAX_LOST: usize = 64;

/// What the log says about earlier runs of the daemon.
#[derive(Debug, Default)]
pub(super) struct EarlierRuns {
    durability: Option<Durability>,
    /// A cursor below this has missed messages of any channel.
    missed: u64,
    /// The messages of several channels in the base, by id.
    shared: HashMap<u64, Arc<Message>>,
}

impl EarlierRuns {
    /// Ends the last run. The next run begins with this id.
    fn end(&mut self, id: u64) {
        if self.durability == Some(Durability::Memory) {
            self.missed = self.missed.max(id); // its messages are not in the log
        }
    }

    /// The id below which a cursor may have missed messages, for a run that begins with `start`.
    fn missed_at(&self, start: u64, found: &LogSummary, settings: &LogSettings) -> u64 {
        let is_new = found.boot.is_none();
        // The machine has crashed, so the system may not have written all data that it had accepted.
        let has_crashed = !found.stopped && found.boot.is_some_and(|last| last != settings.boot);
        let may_lack = if has_crashed {
            self.durability != Some(Durability::Disk)
        } else {
            // An unfinished write cannot be told from a log whose end, with acknowledged messages, was cut off.
            found.torn.is_some()
        };
        if is_new || may_lack {
            start
        } else if found.damaged.is_empty() {
            self.missed
        } else {
            self.missed.max(found.last)
        }
    }
}

impl HubState {
    /// An empty state, to be filled with the records of a log, oldest first. Then call [`HubState::begin`].
    pub(super) fn empty(config: HistoryConfig, workers: usize) -> (Self, EarlierRuns) {
        let mut state = Self::new(config, workers, 0);
        state.last = 0;
        state.floor = 0;
        (state, EarlierRuns::default())
    }

    pub(super) fn restore(&mut self, record: Record<'_>, before: &mut EarlierRuns, now: u64) {
        match record {
            Record::Head { .. } | Record::Stop { .. } => {}
            Record::Message(record) => {
                for channel in record.channels.iter() {
                    self.restore_key(channel, record.key, record.id);
                }
                let channels = record
                    .channels
                    .clone()
                    .map(|name| self.channel(&name).name.clone());
                let message = message(record, channels);
                for channel in message.channels.iter() {
                    self.restore_message(channel, &message, now);
                }
            }
            Record::Shared(record) => {
                // Does not create a channel: if the channel is not in the base, the hub had forgotten it. The floor, which
                // covers forgotten channels, is the last record of the base.
                let channels = record.channels.clone();
                before.shared.insert(record.id, message(record, channels));
            }
            Record::Link { id, channel } => {
                if let Some(message) = before.shared.get(&id) {
                    self.channel(&channel);
                    self.restore_message(&channel, message, now);
                }
            }
            Record::Channel { name, trimmed } => self.channel(&name).history.miss(trimmed),
            Record::Removed {
                id,
                channel,
                message,
            } => {
                let message = Some(message).filter(|message| *message > 0);
                self.remove_before(&channel, message, id);
            }
            Record::Length {
                channel, messages, ..
            } => self.set_length(&channel, messages),
            Record::Key { channel, key, id } => self.restore_key(&channel, key, id),
            Record::Start {
                id,
                after,
                durability,
                ..
            } => {
                let whole = after > 0; // unless a Lost record with the same ids follows
                self.lose(LostRange {
                    after,
                    before: id,
                    whole,
                });
                before.end(id);
                before.durability = Some(durability);
            }
            Record::Floor { id } => self.floor = self.floor.max(id),
            Record::Lost { after, before } => self.lose(LostRange {
                after,
                before,
                whole: false,
            }),
            Record::Missed { before: missed } => before.missed = before.missed.max(missed),
        }
    }

    fn restore_key(&mut self, channel: &ChannelName, key: &str, id: u64) {
        let is_newer = |known| known < id;
        let is_empty = key.is_empty();
        let key = &PublisherKey::parse(key);
        if !is_empty && self.keys.get(channel, key).is_none_or(is_newer) {
            self.keys.insert(channel, key, id);
        }
    }

    /// Adds a message to a channel, unless the channel already has it: the message may be in the base and in the segment after
    /// the base.
    fn restore_message(&mut self, name: &ChannelName, message: &Arc<Message>, now: u64) {
        let Some(channel) = self.channels.get_mut(name) else {
            return;
        };
        if channel
            .history
            .newest()
            .is_some_and(|newest| message.id <= newest)
        {
            return;
        }
        channel.history.push(message.clone(), &mut self.kept);
        let limits = self.config.limits(channel.class);
        channel.history.trim(&limits, now, &mut self.kept);
        if let Some(due) = channel.schedule(&limits) {
            self.expiry.push(Reverse((due, channel.name.clone())));
        }
        while self.is_full() && self.evict() {}
    }

    fn forget_unused(&mut self) {
        let unused = self
            .channels
            .iter_mut()
            .filter(|channel| channel.is_unused());
        let unused: Vec<ChannelName> = unused.map(|channel| channel.name.clone()).collect();
        for name in unused {
            self.forget_if_unused(&name);
        }
    }

    /// Ends the restoring and begins this run with a new id. Returns the records to write to the log. The last one is the Start
    /// record.
    pub(super) fn begin(
        &mut self,
        found: &LogSummary,
        mut before: EarlierRuns,
        settings: &LogSettings,
        now: u64,
    ) -> Vec<Record<'static>> {
        let start = now.max(found.last + 1);
        before.end(start);
        let missed = before.missed_at(start, found, settings);
        self.miss(missed);
        let lost = LostRange {
            after: found.last,
            before: start,
            whole: missed <= found.last && found.damaged.is_empty() && found.torn.is_none(),
        };
        self.lose(lost);
        if now <= found.last {
            self.age_unknown = found.last;
        }
        self.last = start;
        self.forget_unused();
        self.unwritten = Some(Queue::default());
        let began = Record::Start {
            id: start,
            after: found.last,
            boot: settings.boot,
            durability: settings.durability,
        };
        let mut records = vec![Record::Missed { before: missed }];
        if !lost.whole {
            let LostRange { after, before, .. } = lost;
            records.push(Record::Lost { after, before });
        }
        records.push(began);
        records
    }

    /// The channel with this name. Creates the channel if it does not exist yet.
    pub(super) fn channel(&mut self, name: &ChannelName) -> &mut Channel {
        if self.channels.get(name).is_none() {
            let channel = self.make(name);
            self.channels.insert(channel);
        }
        let channel = self.channels.get_mut(name);
        channel.expect("the channel was inserted above")
    }

    fn lose(&mut self, lost: LostRange) {
        match self.lost.last_mut() {
            Some(known) if (known.after, known.before) == (lost.after, lost.before) => {
                known.whole &= lost.whole;
            }
            _ if lost.after + 1 < lost.before => self.lost.push(lost),
            _ => {}
        }
        if self.lost.len() > MAX_LOST {
            let LostRange { after, .. } = self.lost.remove(0);
            self.lost[0].after = after;
            self.lost[0].whole = false; // the merged range contains messages
        }
    }

    pub(super) fn is_lost(&self, cursor: u64) -> bool {
        self.lost.iter().any(|lost| lost.contains(cursor))
    }

    fn miss(&mut self, before: u64) {
        self.floor = self.floor.max(before);
        for channel in self.channels.iter_mut() {
            channel.history.miss(before);
        }
    }

    pub(super) fn take_unwritten(&mut self) -> (u64, Queue) {
        (
            self.last,
            self.unwritten
                .as_mut()
                .map(std::mem::take)
                .unwrap_or_default(),
        )
    }

    pub(super) fn lost(&self) -> &[LostRange] {
        &self.lost
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The channels of one map: name, the id up to which messages are gone, and the messages that are kept.
    pub(super) fn channels_in(&self, map: usize) -> Vec<(ChannelName, u64, Vec<Arc<Message>>)> {
        let channels = self.channels.in_map(map);
        let channel = |channel: &Channel| {
            let messages = channel.history.all().cloned().collect();
            (channel.name.clone(), channel.history.trimmed(), messages)
        };
        channels.map(channel).collect()
    }

    pub(super) fn keys_after(
        &self,
        place: Option<KeyPosition>,
        at_most: usize,
    ) -> Vec<(Arc<str>, KeyPosition)> {
        self.keys.after(place, at_most)
    }
}

fn message(record: MessageRecord<'_>, channels: ChannelNames) -> Arc<Message> {
    Arc::new(Message {
        channels,
        id: record.id,
        name: record.name,
        data: record.data.into(),
        attributes: record.attributes,
    })
}

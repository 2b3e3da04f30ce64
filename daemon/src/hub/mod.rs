//! The hub: gives messages their ids, keeps a bounded history, and marks the workers that must deliver. It knows no
//! source, transport, HTTP or file.
//!
//! A message is numbered, kept and announced in one critical section. Joining (mark the worker as interested, read the
//! backlog) is one critical section, too. So a message is either in the backlog or announced afterwards, never in
//! neither. Its id tells whether a subscriber has already seen it.

mod channel;
mod channel_set;
mod clock;
mod history;
mod keep;
mod keys;
mod reader;
mod reading;
mod restore;
mod state;
pub mod subscriber;
mod workers;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use comet_proto::{Attributes, ChannelName, ChannelNames, Cursor, EventName, Message, Since};
use serde::Serialize;
use tokio::sync::Notify;

pub use channel_set::ChannelSet;
pub use clock::Clock;
use clock::{HubClock, system_clock};
pub use history::Limits;
use keep::Keeper;
pub use keep::{LogThreads, StoreStatus};
pub use keys::{Publisher, PublisherKey};
pub use reader::{Reader, RightEnds};
pub use reading::Reading;
use state::HubState;
pub use workers::Workers;

use crate::store::{Durability, Log, LogSummary, OnError, StoreError, disk::Disk};

/// Most workers that a hub can serve: one bit each in a channel's set of interested workers.
pub const MAX_WORKERS: usize = 64;

/// The most bytes that one read of the history returns, including each message's overhead. The next read goes on at the
/// returned cursor.
pub const READ_BYTES: usize = 256 * 1024;

/// How much history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// For channels that no prefix matches.
    pub default: Limits,
    /// For channels whose name begins with the prefix; the longest prefix wins.
    pub prefixes: Vec<(String, Limits)>,
    /// Bytes over all channels.
    pub total_bytes: usize,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            default: Limits::default(),
            prefixes: Vec::new(),
            total_bytes: 256 << 20,
        }
    }
}

/// A message that a source publishes, before it has an id.
#[derive(Debug)]
pub struct NewMessage<'a> {
    /// One message for all of them, under one id.
    pub channels: ChannelNames,
    pub name: EventName,
    pub data: Box<[u8]>,
    pub attributes: Option<Box<Attributes>>,
    /// Idempotency key. A repetition with the same key and publisher, and with one of the channels, within ten minutes gets
    /// the id of the first message.
    pub key: Option<PublisherKey<'a>>,
}

/// The messages that some channels still keep after a cursor.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// Oldest first; at most [`READ_BYTES`], unless the first message alone is larger.
    pub messages: Vec<Arc<Message>>,
    /// Messages between the cursor and the oldest one here may be gone: the client must reload its state.
    pub gap: bool,
    /// The cursor for the next read. Every message up to here is in `messages`, was seen before, or is covered by `gap`.
    pub cursor: Cursor,
    /// Whether more messages follow after the cursor.
    pub more: bool,
    /// The reader's channels, if a message has several: the reader is told only of those that it reads. Empty otherwise.
    pub(crate) readable: Box<[ChannelName]>,
    /// A reader whose cursor lies between this id and the first message gets the same backlog, unless there is a gap.
    pub(crate) after: u64,
}

impl Backlog {
    /// Whether there is a message or a gap to deliver.
    pub(crate) fn is_news(&self) -> bool {
        self.gap || !self.messages.is_empty()
    }

    /// Notes the reader's channels, if a message has several.
    fn for_reader(mut self, channels: &[ChannelName]) -> Self {
        if self
            .messages
            .iter()
            .any(|message| message.channels.len() > 1)
        {
            self.readable = channels.into();
        }
        self
    }

    /// Keeps the messages that fit into `bytes`, and at least the first one. The next read returns the others.
    pub(crate) fn cut(&mut self, bytes: usize) {
        let mut room = bytes;
        let kept = self.messages.iter().take_while(|message| {
            let fits = history::cost(message) <= room;
            room = room.saturating_sub(history::cost(message));
            fits
        });
        let kept = kept.count().max(1);
        if kept < self.messages.len() {
            self.messages.truncate(kept);
            self.more = true;
            self.cursor = self
                .messages
                .last()
                .map_or(self.cursor, |last| Cursor(last.id));
        }
    }
}

/// Figures of a hub at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct HubStatus {
    /// Last id given.
    pub last_id: u64,
    /// Messages published since the start.
    pub published: u64,
    /// Channels with history or subscribers.
    pub channels: usize,
    /// Messages kept.
    pub messages: usize,
    /// Bytes kept, including each message's overhead.
    pub bytes: usize,
}

/// The settings of the log, and the present boot of the machine.
#[derive(Debug, Clone)]
pub struct Promise {
    pub durability: Durability,
    pub on_error: OnError,
    /// The log is rewritten when it is larger than this, and twice as large as the messages that are kept.
    pub rewrite_bytes: u64,
    /// The machine's boot id, which changes with every boot.
    pub boot: u128,
}

/// See the module. Shared by all threads.
pub struct Hub {
    state: Mutex<HubState>,
    // One per worker, outside the lock, because waking a thread is a system call.
    wakers: Box<[Notify]>,
    time: HubClock,
    /// `None`: there is no log, and messages are lost when the daemon ends.
    keeper: Option<Keeper>,
}

impl Hub {
    /// A hub for `workers` (1 to [`MAX_WORKERS`]) threads that hold subscribers.
    #[must_use]
    pub fn new(config: HistoryConfig, workers: usize) -> Arc<Self> {
        let time = HubClock::system(0);
        let state = HubState::new(config, workers, time.now());
        Arc::new(Self::of(state, workers, time, None))
    }

    /// Like [`Hub::new`], with the caller's clock.
    #[must_use]
    pub fn with_clock(config: HistoryConfig, workers: usize, clock: Clock) -> Arc<Self> {
        let state = HubState::new(config, workers, clock());
        Arc::new(Self::of(state, workers, HubClock::of(clock), None))
    }

    /// A hub with the state that a log describes. It writes new messages to this log.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub fn open(
        config: HistoryConfig,
        workers: usize,
        disk: Arc<dyn Disk>,
        promise: &Promise,
    ) -> Result<(Arc<Self>, LogSummary), StoreError> {
        Self::open_at(
            config,
            workers,
            disk,
            promise,
            system_clock(),
            HubClock::system,
        )
    }

    /// Like [`Hub::open`], with the caller's clock.
    ///
    /// # Errors
    /// Those of [`Hub::open`].
    pub fn open_with_clock(
        config: HistoryConfig,
        workers: usize,
        disk: Arc<dyn Disk>,
        promise: &Promise,
        clock: Clock,
    ) -> Result<(Arc<Self>, LogSummary), StoreError> {
        let time = |_| HubClock::of(clock);
        Self::open_at(config, workers, disk, promise, clock(), time)
    }

    /// `time` makes the clock; its argument is the largest id in the log.
    fn open_at(
        config: HistoryConfig,
        workers: usize,
        disk: Arc<dyn Disk>,
        promise: &Promise,
        now: u64,
        time: impl FnOnce(u64) -> HubClock,
    ) -> Result<(Arc<Self>, LogSummary), StoreError> {
        let (mut state, mut before) = HubState::empty(config, workers);
        let (mut log, found) = Log::open(disk, &mut |record| {
            state.restore(record, &mut before, now);
        })?;
        let records = state.begin(&found, before, promise, now);
        log.append(records.iter().cloned())?;
        // A repeated idempotency key is acknowledged from the log that was read, which the last daemon may not have synced.
        let is_synced = promise.durability != Durability::Disk || log.sync_all().is_ok();
        let start = records
            .last()
            .cloned()
            .expect("the daemon's start is the last record");
        let keeper = Keeper::new(log, promise.clone(), start);
        let time = time(found.last);
        let hub = Arc::new(Self::of(state, workers, time, Some(keeper)));
        // Without a rewrite every start would find the same damage. After a failed sync the segments cannot be trusted.
        if !found.damaged.is_empty() || found.outdated || !is_synced {
            hub.rewrite_log()?;
        }
        Ok((hub, found))
    }

    fn of(state: HubState, workers: usize, time: HubClock, keeper: Option<Keeper>) -> Self {
        assert!(
            (1..=MAX_WORKERS).contains(&workers),
            "1 to {MAX_WORKERS} workers"
        );
        Self {
            state: Mutex::new(state),
            wakers: (0..workers).map(|_| Notify::new()).collect(),
            time,
            keeper,
        }
    }

    /// Gives a message its id, keeps it, and wakes the interested workers. Returns the id.
    pub fn publish(&self, new: NewMessage<'_>) -> u64 {
        self.publish_and_wake(new).0
    }

    /// Like [`Hub::publish`]. Also returns the workers that were woken.
    pub fn publish_and_wake(&self, new: NewMessage<'_>) -> (u64, Workers) {
        let now = self.time.now();
        let (id, woken) = self.lock().publish(new, now);
        woken
            .iter()
            .for_each(|worker| self.wakers[worker].notify_one());
        (id, woken)
    }

    /// Joins: from now on messages in `channels` mark them for `worker`. Returns the backlog after `since` (`None`: from
    /// now on).
    pub fn subscribe(
        &self,
        worker: usize,
        channels: &[ChannelName],
        since: Option<Cursor>,
    ) -> Backlog {
        let now = self.time.now();
        let mut state = self.lock();
        state.mark_interest(worker, channels);
        let cursor = since.unwrap_or_else(|| state.last());
        let backlog = state.read(channels, cursor, now);
        drop(state);
        self.keep_before_delivery(backlog)
    }

    /// The backlog of `channels` after `cursor`, without joining.
    pub fn since(&self, channels: &[ChannelName], cursor: Cursor) -> Backlog {
        let now = self.time.now();
        let backlog = self.lock().read(channels, cursor, now);
        self.keep_before_delivery(backlog)
    }

    /// The backlog of `channels` after `cursor`, without the messages after `until`.
    fn since_until(&self, channels: &[ChannelName], cursor: Cursor, until: Cursor) -> Backlog {
        let now = self.time.now();
        let backlog = self.lock().read_until(channels, cursor, until, now);
        self.keep_before_delivery(backlog)
    }

    /// The backlog after `cursor`, where each channel counts only from its own start on.
    fn since_each(&self, channels: &[ChannelName], starts: &[Cursor], cursor: Cursor) -> Backlog {
        let now = self.time.now();
        let backlog = self.lock().read_each(channels, starts, cursor, now);
        self.keep_before_delivery(backlog)
    }

    /// From now on messages in `channels` mark them for `worker`. Returns the last id.
    fn listen(&self, worker: usize, channels: &[ChannelName]) -> Cursor {
        let mut state = self.lock();
        state.mark_interest(worker, channels);
        state.last()
    }

    /// The backlog of `channels` after `cursor`; for each channel the id up to which messages are gone; and the last id given.
    fn read_with_gone(
        &self,
        channels: &[ChannelName],
        cursor: Cursor,
    ) -> (Backlog, Vec<u64>, Cursor) {
        let now = self.time.now();
        let mut state = self.lock();
        let backlog = state.read(channels, cursor, now);
        (backlog, state.trimmed(channels), state.last())
    }

    /// The cursor that a client means. A time stands for the last id up to it; no message needs to have exactly that time.
    pub fn resolve(&self, since: Since) -> Cursor {
        match since {
            Since::Id(cursor) => cursor,
            Since::Time(time) => self.lock().at(time),
        }
    }

    /// The newest message of `channels` after `cursor` that is older than `age`. The age is measured by the hub's time, like
    /// the ids, because the system's clock may have stepped back.
    pub fn newest_older(
        &self,
        channels: &[ChannelName],
        cursor: Cursor,
        age: Duration,
    ) -> Option<Cursor> {
        let now = self.time.now();
        self.lock().newest_older(channels, cursor, micros(age), now)
    }

    /// Ends the interest of this worker in the channel.
    pub fn unsubscribe(&self, worker: usize, channel: &ChannelName) {
        self.lock().unmark_interest(worker, channel);
    }

    /// The channels of interest to `worker` that got messages since the last call, and the last id. Every message up to this id
    /// in a channel of interest was announced by this call or an earlier one.
    pub fn take_dirty(&self, worker: usize) -> (Vec<ChannelName>, Cursor) {
        self.lock().take_dirty(worker)
    }

    /// Waits until `take_dirty` of this worker has something new.
    pub async fn published(&self, worker: usize) {
        self.wakers[worker].notified().await;
    }

    /// Changes the limits of the history.
    pub fn limit(&self, config: HistoryConfig) {
        self.lock().limit(config);
    }

    /// How far the hub's time is ahead of the system's clock, after that clock has stepped back.
    pub fn ahead(&self) -> Duration {
        self.time.ahead()
    }

    /// The cursor of a client that has seen everything.
    pub fn last(&self) -> Cursor {
        self.lock().last()
    }

    /// Drops expired messages. To be called about every second.
    pub fn expire(&self) {
        while self.expire_some() {}
    }

    /// Does a part of [`Hub::expire`]. Returns true when there is more to do: call again after publishers had a chance
    /// to take the lock.
    pub fn expire_some(&self) -> bool {
        let now = self.time.now();
        self.lock().expire(now)
    }

    /// Figures for `comet status` and metrics.
    pub fn status(&self) -> HubStatus {
        self.lock().status()
    }

    fn lock(&self) -> MutexGuard<'_, HubState> {
        self.state
            .lock()
            .expect("no code panics while it holds the hub")
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

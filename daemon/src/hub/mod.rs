//! The hub: assigns the ids of messages, keeps a bounded history, and marks the workers that must deliver. The hub does not
//! depend on any source, transport, HTTP or file.
//!
//! One critical section assigns a message's id, adds the message to the history, and marks the workers. Joining (mark the
//! worker as interested, read the backlog) is one critical section, too. So each message is in the backlog, or it marks the
//! worker afterwards. The message's id shows whether a subscriber has already read the message.

mod channel;
mod channel_set;
mod clock;
mod facts;
mod history;
mod keep;
mod keys;
mod lengths;
mod newest;
mod reader;
mod reading;
mod removal;
mod restore;
mod state;
pub mod subscriber;
mod workers;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use comet_proto::{Attributes, ChannelName, ChannelNames, Cursor, EventName, Message, Since};
use serde::Serialize;
use tokio::sync::Notify;

pub use channel_set::ChannelSet;
pub use clock::Clock;
use clock::{HubClock, system_clock};
pub use facts::ChannelFacts;
use facts::LeftChannels;
pub use history::Limits;
use keep::Keeper;
pub use keep::{LogThreads, StoreStatus};
pub use keys::{Publisher, PublisherKey};
pub use lengths::{LengthError, MAX_LENGTH};
pub use reader::{Reader, RightEnds};
pub use reading::Reading;
pub use removal::Removal;
use state::HubState;
pub use workers::Workers;

use crate::store::{Durability, Log, LogSummary, OnError, StoreError, disk::Disk};

/// Maximum number of workers: each worker has one bit in a channel's set of interested workers.
pub const MAX_WORKERS: usize = 64;

/// Maximum number of bytes that one read of the history returns, including each message's overhead. The next read continues
/// at the returned cursor.
pub const READ_BYTES: usize = 256 * 1024;

/// How much history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// For channels that no prefix matches.
    pub default: Limits,
    /// For channels whose name begins with a prefix. The longest matching prefix counts.
    pub prefixes: Vec<(String, Limits)>,
    /// Bytes of all channels together.
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
    /// The channels of the message, which has the same id in all of them.
    pub channels: ChannelNames,
    pub name: EventName,
    pub data: Box<[u8]>,
    pub attributes: Option<Box<Attributes>>,
    /// Idempotency key. If a message with the same key, the same publisher and a common channel was published within the last
    /// ten minutes, this message is not published, and the result is the id of the earlier message.
    pub key: Option<PublisherKey<'a>>,
}

/// The messages that some channels still keep after a cursor.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// Oldest first. At most [`READ_BYTES`], unless the first message is larger.
    pub messages: Vec<Arc<Message>>,
    /// Messages between the cursor and the oldest one here may be gone: the client must reload its state.
    pub gap: bool,
    /// The cursor for the next read. Every message up to here is in `messages`, was seen before, or is covered by `gap`.
    pub cursor: Cursor,
    /// Whether more messages follow after the cursor.
    pub more: bool,
    /// The reader's channels, if one of the messages has several channels. Only names in this list are sent to the reader.
    /// Otherwise empty.
    pub(crate) readable: Box<[ChannelName]>,
    /// A reader whose cursor lies between this id and the first message gets the same backlog, unless there is a gap.
    pub(crate) after: u64,
}

impl Backlog {
    /// Whether there is a message or a gap to deliver.
    pub(crate) fn is_news(&self) -> bool {
        self.gap || !self.messages.is_empty()
    }

    /// Sets `readable`, if one of the messages has several channels.
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

/// The channels that have changed for a worker.
#[derive(Debug, Default)]
pub struct DirtyChannels {
    /// Channels that got messages.
    pub published: Vec<ChannelName>,
    /// Channels whose subscribers must be told that the channel was deleted.
    pub deleted: BTreeSet<ChannelName>,
    /// This call or an earlier one has returned the channel of every message up to this id.
    pub up_to: Cursor,
}

/// Figures of a hub at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct HubStatus {
    /// The last assigned id.
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
pub struct LogSettings {
    pub durability: Durability,
    pub on_error: OnError,
    /// The log is rewritten when it is larger than this, and twice as large as the messages that are kept.
    pub rewrite_bytes: u64,
    /// The machine's boot id, which changes with every boot.
    pub boot: u128,
}

/// Publishes messages and reads their history. Shared by all threads.
pub struct Hub {
    state: Mutex<HubState>,
    // One for each worker. Not under the lock, because waking a thread is a system call.
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
        settings: &LogSettings,
    ) -> Result<(Arc<Self>, LogSummary), StoreError> {
        Self::open_at(
            config,
            workers,
            disk,
            settings,
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
        settings: &LogSettings,
        clock: Clock,
    ) -> Result<(Arc<Self>, LogSummary), StoreError> {
        let time = |_| HubClock::of(clock);
        Self::open_at(config, workers, disk, settings, clock(), time)
    }

    /// `time` creates the clock. Its argument is the largest id in the log.
    fn open_at(
        config: HistoryConfig,
        workers: usize,
        disk: Arc<dyn Disk>,
        settings: &LogSettings,
        now: u64,
        time: impl FnOnce(u64) -> HubClock,
    ) -> Result<(Arc<Self>, LogSummary), StoreError> {
        let (mut state, mut before) = HubState::empty(config, workers);
        let (mut log, found) = Log::open(disk, &mut |record| {
            state.restore(record, &mut before, now);
        })?;
        let records = state.begin(&found, before, settings, now);
        log.append(records.iter().cloned())?;
        // The log is synced now, because a repeated idempotency key is acknowledged if its message is in the log. The last
        // daemon may have ended before it synced this message.
        let is_synced = settings.durability != Durability::Disk || log.sync_all().is_ok();
        let start = records
            .last()
            .cloned()
            .expect("the daemon's start is the last record");
        let keeper = Keeper::new(log, settings.clone(), start);
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

    /// Publishes a message: assigns its id, adds it to the history, and wakes the interested workers. Returns the id.
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

    /// Marks `worker` as interested in `channels`, and returns their backlog after `since` (`None`: from now on). From now on
    /// every new message in `channels` marks its channel for `worker`. If there is nothing to read, the caller counts as a
    /// subscriber of each channel until [`Hub::subscribers_left`].
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
        if backlog.is_news() {
            state.discount(channels);
        }
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

    /// The backlog after `cursor`. Of each channel only messages after the channel's own start are read.
    pub(crate) fn since_each(
        &self,
        channels: &[ChannelName],
        starts: &[Cursor],
        cursor: Cursor,
    ) -> Backlog {
        let now = self.time.now();
        let backlog = self.lock().read_each(channels, starts, cursor, now);
        self.keep_before_delivery(backlog)
    }

    /// Like [`Hub::subscribe`], without reading. Returns the last id.
    fn listen(&self, worker: usize, channels: &[ChannelName]) -> Cursor {
        let mut state = self.lock();
        state.mark_interest(worker, channels);
        state.last()
    }

    /// Returns three values: the backlog of `channels` after `cursor`; for each channel the id up to which messages are gone;
    /// and the last assigned id.
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

    /// The cursor for the `since` of a client. A time stands for the last id up to this time. No message needs to have exactly
    /// this time.
    pub fn resolve(&self, since: Since) -> Cursor {
        match since {
            Since::Id(cursor) => cursor,
            Since::Time(time) => self.lock().at(time),
        }
    }

    /// The newest message of `channels` after `cursor` that is older than `age`. The age is measured by the hub's clock, like
    /// the ids, because the system's clock may have been set back.
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

    /// Returns the channels of interest to `worker` that got messages or were deleted since the last call. `left`: the
    /// subscribers that have left.
    pub fn take_dirty(&self, worker: usize, left: &LeftChannels) -> DirtyChannels {
        let mut state = self.lock();
        state.subscribers_left(left);
        state.take_dirty(worker)
    }

    /// Waits until `take_dirty` of this worker has something new.
    pub async fn published(&self, worker: usize) {
        self.wakers[worker].notified().await;
    }

    /// Changes the limits of the history.
    pub fn limit(&self, config: HistoryConfig) {
        self.lock().limit(config);
    }

    /// How far the hub's clock is ahead of the system's clock, after the system's clock was set back.
    pub fn ahead(&self) -> Duration {
        self.time.ahead()
    }

    /// The cursor of a client that has read all messages.
    pub fn last(&self) -> Cursor {
        self.lock().last()
    }

    /// Drops expired messages. Must be called about once a second.
    pub fn expire(&self) {
        while self.expire_some() {}
    }

    /// Does a part of [`Hub::expire`], so that publishers can take the lock between two calls. Returns whether there is more
    /// to do.
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
            .expect("no code panics while it holds the hub's lock")
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

//! The hub: numbers what is published, keeps a bounded history of it and marks who has to be told. It knows no
//! source, transport, HTTP or file.
//!
//! A message is numbered, kept and announced in one critical section, and joining (mark the worker as
//! interested, read the backlog) is one too. So a message is in the backlog or announced afterwards, never in
//! neither, and its id decides whether it was seen.

mod channel;
mod clock;
mod feed;
mod history;
mod keep;
mod keys;
mod reading;
mod restore;
mod state;
pub mod subscriber;
mod workers;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use comet_proto::{ChannelName, Cursor, EventName, Message, Since};
use serde::Serialize;
use tokio::sync::Notify;

pub use clock::Clock;
use clock::{Time, system_clock};
pub use history::Limits;
use keep::Keeper;
pub use keep::{Keeping, StoreStatus};
pub use keys::{Publisher, PublisherKey};
pub use reading::Reading;
use state::State;
pub use workers::Workers;

use crate::store::{Durability, Found, Log, OnError, StoreError, disk::Disk};

/// Most workers that a hub can serve: one bit each in a channel's set of interested workers.
pub const MAX_WORKERS: usize = 64;

/// What one read of the history returns at most, in bytes, with what a message costs beside its data; the cursor
/// says where to go on.
pub const READ_BYTES: usize = 256 * 1024;

/// How much history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// For channels that no prefix matches.
    pub default: Limits,
    /// For channels whose name starts so; the longest prefix wins.
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

/// What a source gives to the hub.
#[derive(Debug)]
pub struct NewMessage<'a> {
    pub channel: &'a ChannelName,
    pub name: EventName,
    pub data: Box<[u8]>,
    /// Idempotency key: the same key of the same publisher on the same channel within ten minutes gives the first id
    /// back.
    pub key: Option<PublisherKey<'a>>,
}

/// What channels still have after a cursor.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Oldest first; at most [`READ_BYTES`], unless the first message alone is larger.
    pub messages: Vec<Arc<Message>>,
    /// Messages between the cursor and the oldest one here may be gone: the client must reload its state.
    pub gap: bool,
    /// Where to go on: everything up to here is in `messages`, was seen before, or is told by `gap`.
    pub cursor: Cursor,
    /// It was cut: read on from the cursor. Otherwise there was nothing after it.
    pub more: bool,
    /// Unless there is a gap, every cursor from here up to the first message gives the same answer.
    pub(crate) after: u64,
}

impl Backlog {
    /// There is something to be told.
    pub(crate) fn is_news(&self) -> bool {
        self.gap || !self.messages.is_empty()
    }

    /// Leaves what is beyond `bytes` to the next read, but for the first message.
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
    /// Channels with history or listeners.
    pub channels: usize,
    /// Messages kept.
    pub messages: usize,
    /// Bytes kept, with what a message costs beside its data.
    pub bytes: usize,
}

/// What is promised about a log.
#[derive(Debug, Clone)]
pub struct Promise {
    pub durability: Durability,
    pub on_error: OnError,
    /// The log is written anew when it is larger, and twice as large as what is kept.
    pub rewrite_bytes: u64,
    /// Of the machine: another one after every boot.
    pub boot: u128,
}

/// See the module. Shared by all threads.
pub struct Hub {
    state: Mutex<State>,
    // One a worker, beside the lock: waking a thread is a system call.
    wakers: Box<[Notify]>,
    time: Time,
    /// `None`: nothing is kept beyond the end of the daemon.
    keeper: Option<Keeper>,
}

impl Hub {
    /// A hub for `workers` (1 to [`MAX_WORKERS`]) threads that hold subscribers.
    #[must_use]
    pub fn new(config: HistoryConfig, workers: usize) -> Arc<Self> {
        let time = Time::system(0);
        let state = State::new(config, workers, time.now());
        Arc::new(Self::of(state, workers, time, None))
    }

    /// Like [`Hub::new`], with a clock of the caller's.
    #[must_use]
    pub fn with_clock(config: HistoryConfig, workers: usize, clock: Clock) -> Arc<Self> {
        let state = State::new(config, workers, clock());
        Arc::new(Self::of(state, workers, Time::of(clock), None))
    }

    /// A hub that goes on from what a log says, and keeps in it what is published.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub fn open(
        config: HistoryConfig,
        workers: usize,
        disk: Arc<dyn Disk>,
        promise: &Promise,
    ) -> Result<(Arc<Self>, Found), StoreError> {
        Self::open_at(config, workers, disk, promise, system_clock(), Time::system)
    }

    /// Like [`Hub::open`], with a clock of the caller's.
    ///
    /// # Errors
    /// As there.
    pub fn open_with_clock(
        config: HistoryConfig,
        workers: usize,
        disk: Arc<dyn Disk>,
        promise: &Promise,
        clock: Clock,
    ) -> Result<(Arc<Self>, Found), StoreError> {
        let time = |_| Time::of(clock);
        Self::open_at(config, workers, disk, promise, clock(), time)
    }

    /// `time` is told which time the last daemon has come to.
    fn open_at(
        config: HistoryConfig,
        workers: usize,
        disk: Arc<dyn Disk>,
        promise: &Promise,
        now: u64,
        time: impl FnOnce(u64) -> Time,
    ) -> Result<(Arc<Self>, Found), StoreError> {
        let (mut state, mut before) = State::empty(config, workers);
        let (mut log, found) = Log::open(disk, &mut |record| {
            state.restore(record, &mut before, now);
        })?;
        let records = state.begin(&found, before, promise, now);
        log.append(records.iter().cloned())?;
        // A repeated idempotency key is acknowledged from what was read. The last daemon may not have synced that.
        let is_synced = promise.durability != Durability::Disk || log.sync_all().is_ok();
        let start = records
            .last()
            .cloned()
            .expect("a daemon's start is told last");
        let keeper = Keeper::new(log, promise.clone(), start);
        let time = time(found.last);
        let hub = Arc::new(Self::of(state, workers, time, Some(keeper)));
        // Otherwise every start would find the same damage. After a failed sync the segments cannot be trusted.
        if !found.damaged.is_empty() || found.outdated || !is_synced {
            hub.rewrite_log()?;
        }
        Ok((hub, found))
    }

    fn of(state: State, workers: usize, time: Time, keeper: Option<Keeper>) -> Self {
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

    /// Numbers and keeps a message and wakes the workers that listen. Returns its id.
    pub fn publish(&self, new: NewMessage<'_>) -> u64 {
        self.publish_and_wake(new).0
    }

    /// As [`Hub::publish`]. Returns also whom it woke.
    pub fn publish_and_wake(&self, new: NewMessage<'_>) -> (u64, Workers) {
        let now = self.time.now();
        let (id, woken) = self.lock().publish(new, now);
        woken
            .iter()
            .for_each(|worker| self.wakers[worker].notify_one());
        (id, woken)
    }

    /// Joins: from now on `worker` is told about `channels`; returns what they have after `since` (`None`: from
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
        self.keep_before_telling(backlog)
    }

    /// What `channels` have after `cursor`, without joining.
    pub fn since(&self, channels: &[ChannelName], cursor: Cursor) -> Backlog {
        let now = self.time.now();
        let backlog = self.lock().read(channels, cursor, now);
        self.keep_before_telling(backlog)
    }

    /// What `channels` have after `cursor`; up to where the messages of each are gone; and the last id given.
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

    /// The cursor that a client means. A time needs no message of its own: it stands for the last id up to it.
    pub fn resolve(&self, since: Since) -> Cursor {
        match since {
            Since::Id(cursor) => cursor,
            Since::Time(time) => self.lock().at(time),
        }
    }

    /// The newest message that `channels` have after `cursor` and that is older than `age`. By the hub's time, as ids
    /// are: the system's clock may have stepped back since.
    pub fn newest_older(
        &self,
        channels: &[ChannelName],
        cursor: Cursor,
        age: Duration,
    ) -> Option<Cursor> {
        let now = self.time.now();
        self.lock().newest_older(channels, cursor, micros(age), now)
    }

    /// Ends what `subscribe` began for this worker and channel.
    pub fn unsubscribe(&self, worker: usize, channel: &ChannelName) {
        self.lock().unmark_interest(worker, channel);
    }

    /// The channels of interest to `worker` that were published to since the last call.
    pub fn take_dirty(&self, worker: usize) -> Vec<ChannelName> {
        self.lock().take_dirty(worker)
    }

    /// Waits until `take_dirty` of this worker has something new.
    pub async fn published(&self, worker: usize) {
        self.wakers[worker].notified().await;
    }

    /// Changes how much is kept, from now on.
    pub fn limit(&self, config: HistoryConfig) {
        self.lock().limit(config);
    }

    /// How far the hub's time is ahead of the system's clock, because that has stepped back.
    pub fn ahead(&self) -> Duration {
        self.time.ahead()
    }

    /// The cursor of a client that has seen everything.
    pub fn last(&self) -> Cursor {
        self.lock().last()
    }

    /// Drops what is older than its channel keeps. To be called every second or so.
    pub fn expire(&self) {
        while self.expire_some() {}
    }

    /// Does a part of what [`Hub::expire`] does. True: there is more, for which to call again when publishers had
    /// their turn.
    pub fn expire_some(&self) -> bool {
        let now = self.time.now();
        self.lock().expire(now)
    }

    /// Figures for people and metrics.
    pub fn status(&self) -> HubStatus {
        self.lock().status()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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

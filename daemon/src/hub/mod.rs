//! The hub: numbers what is published, keeps a bounded history of it and marks who has to be told. It knows no
//! source, transport, HTTP or file.
//!
//! A message is numbered, kept and announced in one critical section, and joining (mark the worker as
//! interested, read the backlog) is one too. So a message is in the backlog or announced afterwards, never in
//! neither, and its id decides whether it was seen.

mod channel;
mod feed;
mod history;
mod keys;
mod state;
pub mod subscriber;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use comet_proto::{ChannelName, Cursor, EventName, Message};
use serde::Serialize;
use tokio::sync::Notify;

pub use history::Limits;
use state::State;

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
    /// Idempotency key: the same key on the same channel within ten minutes gives the first id back.
    pub key: Option<&'a str>,
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

/// Microseconds since the Unix epoch.
pub type Clock = fn() -> u64;

/// See the module. Shared by all threads.
pub struct Hub {
    state: Mutex<State>,
    // One a worker, beside the lock: waking a thread is a system call.
    wakers: Box<[Notify]>,
    clock: Clock,
}

impl Hub {
    /// A hub for `workers` (1 to [`MAX_WORKERS`]) threads that hold subscribers.
    #[must_use]
    pub fn new(config: HistoryConfig, workers: usize) -> Arc<Self> {
        Self::with_clock(config, workers, system_clock)
    }

    /// Like [`Hub::new`], with a clock of the caller's.
    #[must_use]
    pub fn with_clock(config: HistoryConfig, workers: usize, clock: Clock) -> Arc<Self> {
        assert!(
            (1..=MAX_WORKERS).contains(&workers),
            "1 to {MAX_WORKERS} workers"
        );
        Arc::new(Self {
            state: Mutex::new(State::new(config, workers, clock())),
            wakers: (0..workers).map(|_| Notify::new()).collect(),
            clock,
        })
    }

    /// Numbers and keeps a message and wakes the workers that listen. Returns its id.
    pub fn publish(&self, new: NewMessage<'_>) -> u64 {
        let now = (self.clock)();
        let (id, mut wake) = self.lock().publish(new, now);
        while wake != 0 {
            self.wakers[wake.trailing_zeros() as usize].notify_one();
            wake &= wake - 1;
        }
        id
    }

    /// Joins: from now on `worker` is told about `channels`; returns what they have after `since` (`None`: from
    /// now on).
    pub fn subscribe(
        &self,
        worker: usize,
        channels: &[ChannelName],
        since: Option<Cursor>,
    ) -> Backlog {
        let now = (self.clock)();
        let mut state = self.lock();
        state.mark_interest(worker, channels);
        let cursor = since.unwrap_or_else(|| state.last());
        state.read(channels, cursor, now)
    }

    /// What `channels` have after `cursor`, without joining.
    pub fn since(&self, channels: &[ChannelName], cursor: Cursor) -> Backlog {
        let now = (self.clock)();
        self.lock().read(channels, cursor, now)
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
        let now = (self.clock)();
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

fn system_clock() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    micros(since_epoch)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

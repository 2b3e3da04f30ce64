//! Keeping what is published: who writes it into the log, and who waits for that.
//!
//! With `process`, the thread that published writes all that is unwritten, of others too, before it acknowledges: a
//! write into the system's cache takes about as long as waking a thread. With `disk` a thread of its own writes and
//! syncs; while it does, the next batch gathers. Nobody waits for a timer.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use comet_proto::Message;
use serde::Serialize;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{Backlog, Hub, Promise};
use crate::store::{Base, Durability, Log, OnError, Record, StoreError};

/// After an error the log is tried again so often.
const RETRY: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_millis(250)
};

/// How often somebody looks whether there is something to do that nobody waits for.
const ROUND: Duration = Duration::from_secs(1);

/// Bytes of messages that may wait for a log that fails. What is beyond is written from the history when it works
/// again.
pub(super) const MAX_UNWRITTEN: usize = 32 << 20;

/// Keys under one lock of the hub.
const SLICE: usize = 4096;

/// A message that the log does not have.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) message: Arc<Message>,
    pub(super) key: Option<Box<str>>,
}

/// Messages on their way to the log, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    list: VecDeque<Unwritten>,
    bytes: usize,
    /// Some were dropped: only the history has them.
    dropped: bool,
}

impl Queue {
    pub(super) fn push(&mut self, unwritten: Unwritten) {
        self.bytes += super::history::cost(&unwritten.message);
        self.list.push_back(unwritten);
        if self.bytes > MAX_UNWRITTEN {
            self.drop_all();
        }
    }

    fn append(&mut self, mut later: Self) {
        self.bytes += later.bytes;
        self.dropped |= later.dropped;
        self.list.append(&mut later.list);
        if self.bytes > MAX_UNWRITTEN {
            self.drop_all();
        }
    }

    fn drop_all(&mut self) {
        *self = Self {
            dropped: true,
            ..Self::default()
        };
    }
}

/// What `comet status` says of the log.
#[derive(Debug, Clone, Serialize)]
pub struct StoreStatus {
    pub durability: Durability,
    /// Of all its files.
    pub bytes: u64,
    /// Times that it was written anew from the history.
    pub rewrites: u64,
    /// Why it is not written now.
    pub error: Option<String>,
}

/// The log and those who wait for it.
pub(super) struct Keeper {
    promise: Promise,
    /// What every new base has to repeat.
    start: Record<'static>,
    writer: Mutex<Writer>,
    /// Everything up to here is kept as promised.
    kept: AtomicU64,
    failing: AtomicBool,
    /// Those who wait on a task.
    progress: watch::Sender<Progress>,
    work: Mutex<Work>,
    wake_sync: Condvar,
    wake_round: Condvar,
}

struct Writer {
    log: Log,
    /// Taken from the hub, and not written because of an error.
    queue: Queue,
    /// The segment cannot be trusted or lacks something: only a new base makes up for it.
    rewrite: bool,
    /// How often that came about.
    broken: u64,
    failed: Option<(StoreError, Instant)>,
    /// Size of the log after the last rewrite.
    least: u64,
    rewrites: u64,
}

/// How far the last attempt came.
#[derive(Debug, Clone, Default)]
struct Progress {
    tried: u64,
    error: Option<StoreError>,
}

/// What the threads have to do.
#[derive(Default)]
struct Work {
    sync: bool,
    stop: bool,
}

impl Keeper {
    pub(super) fn new(log: Log, promise: Promise, start: Record<'static>) -> Self {
        Self {
            promise,
            start,
            writer: Mutex::new(Writer {
                log,
                queue: Queue::default(),
                rewrite: false,
                broken: 0,
                failed: None,
                least: 0,
                rewrites: 0,
            }),
            kept: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            progress: watch::Sender::default(),
            work: Mutex::default(),
            wake_sync: Condvar::new(),
            wake_round: Condvar::new(),
        }
    }

    fn has(&self, id: u64) -> bool {
        self.kept.load(Ordering::Acquire) >= id
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer
            .lock()
            .expect("no code panics while it holds the log")
    }

    /// Writes, and with `disk` syncs, everything that was published. After an error it is only tried again after a
    /// while.
    pub(super) fn commit(&self, hub: &Hub, wanted: u64) -> Result<(), StoreError> {
        let mut writer = self.lock();
        if self.has(wanted) {
            return Ok(()); // whoever was first has done it
        }
        if let Some((error, at)) = &writer.failed
            && at.elapsed() < RETRY
        {
            self.progress.send_replace(Progress {
                tried: hub.last().0,
                error: Some(error.clone()),
            });
            return Err(error.clone());
        }
        let (last, new) = hub.lock().take_unwritten();
        writer.queue.append(new);
        let done = writer.write(self.promise.durability);
        self.note(&mut writer, last, done.clone());
        done
    }

    fn note(&self, writer: &mut Writer, last: u64, done: Result<(), StoreError>) {
        match &done {
            Ok(()) => {
                self.kept.store(last, Ordering::Release);
                if writer.failed.take().is_some() {
                    info!("the log is written again, and lacks nothing");
                }
            }
            Err(error) => {
                if writer.failed.is_none() {
                    let action = match self.promise.on_error {
                        OnError::Deliver => "delivered all the same, and publishers are told",
                        OnError::Refuse => "refused",
                    };
                    warn!("{error}; messages are {action} until that works again");
                }
                writer.failed = Some((error.clone(), Instant::now()));
            }
        }
        self.failing.store(done.is_err(), Ordering::Relaxed);
        self.progress.send_replace(Progress {
            tried: last,
            error: done.err(),
        });
    }

    /// Writes the log anew from what the hub keeps.
    fn rewrite(&self, hub: &Hub) -> Result<(), StoreError> {
        let begun = Instant::now();
        let (mut base, last, broken) = self.seal(hub)?;
        if let Err(error) = self.fill(hub, &mut base) {
            base.give_up();
            return Err(error);
        }
        let finished = base.finish()?;
        let mut writer = self.lock();
        let replaced = writer.log.replace(finished);
        writer.least = writer.log.bytes();
        writer.rewrites += 1;
        debug!(bytes = writer.least, took = ?begun.elapsed(), "the log was written anew");
        if writer.broken == broken && std::mem::take(&mut writer.rewrite) {
            self.note(&mut writer, last, Ok(()));
        }
        replaced
    }

    /// From here on messages go into a new segment, and those before are to be found in the base.
    fn seal(&self, hub: &Hub) -> Result<(Base, u64, u64), StoreError> {
        let mut writer = self.lock();
        let (last, new) = hub.lock().take_unwritten();
        writer.queue.append(new);
        if !writer.rewrite
            && let Err(error) = writer.write(self.promise.durability)
            && !writer.rewrite
        {
            self.note(&mut writer, last, Err(error.clone()));
            return Err(error);
        }
        let base = writer.log.seal(last)?;
        writer.queue = Queue::default();
        Ok((base, last, writer.broken))
    }

    /// In slices, so that publishers need not wait.
    fn fill(&self, hub: &Hub, base: &mut Base) -> Result<(), StoreError> {
        base.put(&self.start)?;
        let lost = hub.lock().lost().to_vec();
        for (after, before) in lost {
            base.put(&Record::Lost { after, before })?;
        }
        for map in 0..super::channel::MAPS {
            let channels = hub.lock().channels_in(map);
            for (name, trimmed, messages) in channels {
                base.put(&Record::Channel { name, trimmed })?;
                for message in messages {
                    base.put(&record(&message, ""))?;
                }
            }
        }
        let mut after = 0;
        loop {
            let keys = hub.lock().keys_after(after, SLICE);
            let Some((_, id)) = keys.last() else { break };
            after = *id;
            for (key, id) in &keys {
                if let Some((channel, key)) = super::keys::split(key) {
                    let id = *id;
                    base.put(&Record::Key { channel, key, id })?;
                }
            }
        }
        // Last: a channel may have been forgotten before it was looked at.
        let id = hub.lock().floor();
        base.put(&Record::Floor { id })
    }

    /// What nobody waits for: messages without an acknowledgement, another attempt, the size of the log.
    pub(super) fn look_after(&self, hub: &Hub) {
        let (needed, bytes, least) = {
            let writer = self.lock();
            (writer.rewrite, writer.log.bytes(), writer.least)
        };
        let live = hub.status().bytes as u64;
        let large = bytes > self.promise.rewrite_bytes.max(2 * live).max(2 * least);
        if (needed || large)
            && let Err(error) = self.rewrite(hub)
        {
            let mut writer = self.lock();
            if needed {
                self.note(&mut writer, hub.last().0, Err(error));
            } else {
                warn!("{error}; the log stays as large as it is for now");
                writer.least = bytes;
            }
            return;
        }
        if self.promise.durability == Durability::Process || self.lock().failed.is_some() {
            let _ = self.commit(hub, hub.last().0); // it was logged
        }
    }

    /// Syncs whenever somebody waits for it.
    fn sync(&self, hub: &Hub) {
        loop {
            let work = self.work.lock().expect("nothing panics holding it");
            let idle = |work: &mut Work| !work.stop && !work.sync;
            let woken = self.wake_sync.wait_while(work, idle);
            let mut work = woken.expect("nothing panics holding it");
            work.sync = false;
            if work.stop {
                return;
            }
            drop(work);
            let _ = self.commit(hub, u64::MAX); // whoever waits is told
        }
    }

    fn go_round(&self, hub: &Hub) {
        loop {
            let work = self.work.lock().expect("nothing panics holding it");
            let woken = self
                .wake_round
                .wait_timeout_while(work, ROUND, |work| !work.stop);
            if woken.expect("nothing panics holding it").0.stop {
                return;
            }
            self.look_after(hub);
        }
    }
}

impl Writer {
    /// On an error the queue stays.
    fn write(&mut self, durability: Durability) -> Result<(), StoreError> {
        if self.queue.dropped || self.rewrite {
            if std::mem::take(&mut self.queue.dropped) {
                self.must_rewrite();
            }
            let error = std::io::Error::other("it lacks messages, and is to be written anew");
            return Err(match &self.failed {
                Some((error, _)) => error.clone(),
                None => StoreError::new("use", self.log.path(), error),
            });
        }
        if self.queue.list.is_empty() {
            return Ok(());
        }
        let records = self.queue.list.iter();
        self.log.append(records.map(|unwritten| {
            record(
                &unwritten.message,
                unwritten.key.as_deref().unwrap_or_default(),
            )
        }))?;
        if durability == Durability::Disk
            && let Err(error) = self.log.sync()
        {
            // The system may have dropped the pages, and would say next time that all is well.
            self.must_rewrite();
            return Err(error);
        }
        self.queue = Queue::default();
        Ok(())
    }

    fn must_rewrite(&mut self) {
        self.rewrite = true;
        self.broken += 1;
    }
}

fn record<'a>(message: &'a Message, key: &'a str) -> Record<'a> {
    Record::Message {
        id: message.id,
        channel: message.channel.clone(),
        name: message.name.clone(),
        key,
        data: &message.data,
    }
}

/// The threads that keep.
pub struct Keeping {
    hub: Arc<Hub>,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Whether everything up to `id` is kept as promised, having written it where that needs no waiting. `None`:
    /// [`Hub::kept`] has to be waited for.
    ///
    /// # Errors
    /// It is not kept; it may have been delivered.
    pub fn try_kept(&self, id: u64) -> Option<Result<(), StoreError>> {
        match &self.keeper {
            None => Some(Ok(())),
            Some(keeper) if keeper.has(id) => Some(Ok(())),
            Some(keeper) if keeper.promise.durability == Durability::Process => {
                Some(keeper.commit(self, id))
            }
            Some(_) => None,
        }
    }

    /// Waits until everything up to `id` is kept as promised.
    ///
    /// # Errors
    /// It is not kept; it may have been delivered.
    pub async fn kept(&self, id: u64) -> Result<(), StoreError> {
        let keeper = match (self.try_kept(id), &self.keeper) {
            (Some(done), _) => return done,
            (None, None) => return Ok(()),
            (None, Some(keeper)) => keeper,
        };
        let mut progress = keeper.progress.subscribe();
        progress.mark_unchanged();
        while !keeper.has(id) {
            self.ask_to_sync();
            if progress.changed().await.is_err() {
                break; // never: we hold the keeper
            }
            let Progress { tried, error } = progress.borrow_and_update().clone();
            if let Some(error) = error.filter(|_| tried >= id && !keeper.has(id)) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// With `process` nobody is told of a message that the log does not have, unless it cannot be written: one that
    /// was seen and then forgotten in a crash would come again, as another, when its publisher repeats it. Whoever is
    /// first writes; nothing is written twice.
    pub(super) fn keep_before_telling(&self, backlog: Backlog) -> Backlog {
        if let (Some(keeper), Some(last)) = (&self.keeper, backlog.messages.last())
            && keeper.promise.durability == Durability::Process
            && !keeper.has(last.id)
        {
            let _ = keeper.commit(self, last.id); // it is logged, and the publisher is told
        }
        backlog
    }

    /// What is published is kept, in a log.
    pub fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// Everything up to `id` is kept as promised.
    pub fn has_kept(&self, id: u64) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| keeper.has(id))
    }

    /// What is published now can be acknowledged at once, as far as is known.
    pub fn keeps_at_once(&self) -> bool {
        match &self.keeper {
            None => true,
            Some(keeper) => {
                keeper.promise.durability == Durability::Process
                    && !keeper.failing.load(Ordering::Relaxed)
            }
        }
    }

    /// An acknowledgement has to wait for a disk.
    pub fn waits_for_disk(&self) -> bool {
        self.keeper
            .as_ref()
            .is_some_and(|keeper| keeper.promise.durability == Durability::Disk)
    }

    /// Begins to keep what was published, where nobody waits for it. True: all of it is kept.
    pub fn keep_soon(&self) -> bool {
        match self.try_kept(self.last().0) {
            Some(kept) => kept.is_ok(),
            None => {
                self.ask_to_sync();
                false
            }
        }
    }

    /// Whether a publish may go on.
    ///
    /// # Errors
    /// Messages cannot be kept now, and whoever set up the daemon wants none of these.
    pub fn admits(&self) -> Result<(), StoreError> {
        match &self.keeper {
            Some(keeper)
                if keeper.promise.on_error == OnError::Refuse
                    && keeper.failing.load(Ordering::Relaxed) =>
            {
                keeper.commit(self, u64::MAX)
            }
            _ => Ok(()),
        }
    }

    /// The threads that keep; nothing to do where nothing is kept.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start_keeping(self: &Arc<Self>) -> std::io::Result<Keeping> {
        let mut threads = Vec::new();
        for (name, syncs) in [("store", false), ("store-sync", true)] {
            if self.keeper.is_none() || syncs && !self.waits_for_disk() {
                continue;
            }
            let hub = self.clone();
            let run = move || match &hub.keeper {
                Some(keeper) if syncs => keeper.sync(&hub),
                Some(keeper) => keeper.go_round(&hub),
                None => {}
            };
            threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        }
        Ok(Keeping {
            hub: self.clone(),
            threads,
        })
    }

    /// Figures of the log.
    pub fn store_status(&self) -> Option<StoreStatus> {
        let keeper = self.keeper.as_ref()?;
        let writer = keeper.lock();
        Some(StoreStatus {
            durability: keeper.promise.durability,
            bytes: writer.log.bytes(),
            rewrites: writer.rewrites,
            error: writer.failed.as_ref().map(|(error, _)| error.to_string()),
        })
    }

    /// Writes the log anew at once.
    ///
    /// # Errors
    /// It stays as it was.
    pub fn rewrite_log(&self) -> Result<(), StoreError> {
        match &self.keeper {
            Some(keeper) => keeper.rewrite(self),
            None => Ok(()),
        }
    }

    fn ask_to_sync(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.work.lock().expect("nothing panics holding it").sync = true;
            keeper.wake_sync.notify_one();
        }
    }
}

impl Keeping {
    /// Writes what is left, and that this is the end of it. Sources must have ended.
    ///
    /// # Errors
    /// Something is not kept.
    pub fn stop(self) -> Result<(), StoreError> {
        let Some(keeper) = &self.hub.keeper else {
            return Ok(());
        };
        keeper.work.lock().expect("nothing panics holding it").stop = true;
        keeper.wake_sync.notify_one();
        keeper.wake_round.notify_one();
        for thread in self.threads {
            let _ = thread.join(); // it has said why
        }
        let id = self.hub.last().0;
        keeper.lock().failed = None;
        if keeper.commit(&self.hub, id).is_err() {
            keeper.rewrite(&self.hub)?;
        }
        let mut writer = keeper.lock();
        writer.log.append([Record::Stop { id }])?;
        writer.log.sync()
    }
}

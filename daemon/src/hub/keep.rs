//! Writes published messages to the log, and lets publishers wait until their messages are written.
//!
//! With the durability `process`, the publishing thread writes the log before it acknowledges its message. It writes all
//! unwritten messages, also messages of other threads. Waking another thread instead would take about as long as the write
//! into the system's cache. With `disk`, a background thread writes and syncs. Messages that are published during a sync form
//! the next batch. No message waits for a timer.

mod queue;
mod rewrite;
mod threads;
mod waiting;
mod writer;

use std::{
    io,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;
use tracing::{info, warn};

#[cfg(test)]
pub(super) use queue::MAX_UNWRITTEN;
pub(super) use queue::{Queue, Unwritten};
pub use threads::LogThreads;
use threads::ThreadRequests;
use writer::LogWriter;

use super::{Hub, LogSettings};
use crate::store::{Durability, Log, OnError, Record, StoreError};

/// The shortest time between two attempts to write after an error.
const RETRY: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_millis(250)
};

/// The figures of the log for `comet status`.
#[derive(Debug, Clone, Serialize)]
pub struct StoreStatus {
    pub durability: Durability,
    /// The bytes of all files of the log.
    pub bytes: u64,
    /// How often the log was rewritten from the history.
    pub rewrites: u64,
    /// The error, if the last attempt to write failed.
    pub error: Option<String>,
}

/// The log, and the state that publishers check or wait for.
pub(super) struct Keeper {
    settings: LogSettings,
    /// The record of this daemon's start. Every new base contains a copy.
    start: Record<'static>,
    writer: Mutex<LogWriter>,
    /// Every message up to this id is kept as promised.
    kept: AtomicU64,
    failing: AtomicBool,
    /// Wakes tasks that wait for a message to be kept.
    progress: watch::Sender<Progress>,
    requests: Mutex<ThreadRequests>,
    wake_sync: Condvar,
    wake_check: Condvar,
}

/// The result of the last attempt to write.
#[derive(Debug, Clone, Default)]
struct Progress {
    tried: u64,
    error: Option<StoreError>,
}

impl Keeper {
    pub(super) fn new(log: Log, settings: LogSettings, start: Record<'static>) -> Self {
        Self {
            settings,
            start,
            writer: Mutex::new(LogWriter::new(log)),
            kept: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            progress: watch::Sender::default(),
            requests: Mutex::default(),
            wake_sync: Condvar::new(),
            wake_check: Condvar::new(),
        }
    }

    fn has(&self, id: u64) -> bool {
        self.kept.load(Ordering::Acquire) >= id
    }

    fn lock(&self) -> MutexGuard<'_, LogWriter> {
        self.writer
            .lock()
            .expect("no code panics while it holds the lock of the log")
    }

    /// Like [`Keeper::commit_all`], unless another thread has already written the message with this id.
    pub(super) fn commit(&self, hub: &Hub, id: u64) -> Result<(), StoreError> {
        let writer = self.lock();
        match self.has(id) {
            true => Ok(()),
            false => self.commit_locked(hub, writer),
        }
    }

    /// Writes all published messages, and with `disk` syncs the log. Within [`RETRY`] after an error, returns this error
    /// without writing.
    fn commit_all(&self, hub: &Hub) -> Result<(), StoreError> {
        self.commit_locked(hub, self.lock())
    }

    fn commit_locked(
        &self,
        hub: &Hub,
        mut writer: MutexGuard<'_, LogWriter>,
    ) -> Result<(), StoreError> {
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
        let done = writer.write(self.settings.durability);
        self.note(&mut writer, last, done.clone());
        done
    }

    fn note(&self, writer: &mut LogWriter, last: u64, done: Result<(), StoreError>) {
        match &done {
            Ok(()) => {
                self.kept.store(last, Ordering::Release);
                if writer.failed.take().is_some() {
                    info!("writing the log works again, and no message is missing in it");
                }
            }
            Err(error) => {
                if writer.failed.is_none() {
                    let action = match self.settings.on_error {
                        OnError::Deliver => "delivered, and publishers get an error",
                        OnError::Refuse => "refused",
                    };
                    warn!("{error}; until this works again, messages are {action}");
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

    /// Checks that the files of the log still exist and are complete. If a file was removed, moved or cut, the whole history
    /// must be written again. Until then no message counts as kept.
    pub(super) fn check_files(&self, hub: &Hub) {
        let mut writer = self.lock();
        if !writer.rewrite && !writer.log.is_whole() {
            writer.must_rewrite();
            let path = writer.log.path();
            let lost = io::Error::other("another program has removed, moved or cut it");
            let error = StoreError::new("keep messages in", path, lost);
            self.note(&mut writer, hub.last().0, Err(error));
        }
    }

    /// The background check: writes messages that no publisher waits for, tries again after an error, and rewrites a log that is
    /// too large.
    pub(super) fn check_log(&self, hub: &Hub) {
        self.check_files(hub);
        let (needed, bytes, least) = {
            let writer = self.lock();
            (writer.rewrite, writer.log.bytes(), writer.least)
        };
        let live = hub.status().bytes as u64;
        let large = bytes > self.settings.rewrite_bytes.max(2 * live).max(2 * least);
        if (needed || large)
            && let Err(error) = self.rewrite(hub)
        {
            let mut writer = self.lock();
            if needed {
                self.note(&mut writer, hub.last().0, Err(error));
            } else {
                warn!("{error}; for now the log keeps its size");
                writer.least = bytes;
            }
            return;
        }
        if self.settings.durability == Durability::Process || self.lock().failed.is_some() {
            let _ = self.commit(hub, hub.last().0); // the error is already logged
        }
    }
}

impl Hub {
    /// Figures of the log.
    pub fn store_status(&self) -> Option<StoreStatus> {
        let keeper = self.keeper.as_ref()?;
        let writer = keeper.lock();
        Some(StoreStatus {
            durability: keeper.settings.durability,
            bytes: writer.log.bytes(),
            rewrites: writer.rewrites,
            error: writer.failed.as_ref().map(|(error, _)| error.to_string()),
        })
    }

    /// Rewrites the log at once.
    ///
    /// # Errors
    /// The new log cannot be written. The old log is unchanged.
    pub fn rewrite_log(&self) -> Result<(), StoreError> {
        match &self.keeper {
            Some(keeper) => keeper.rewrite(self),
            None => Ok(()),
        }
    }
}

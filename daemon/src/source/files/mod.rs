//! Files: a touch is a publish. Watches the `*.comet` files of one directory and publishes each as it changes:
//! exactly one message for an action of a user, and the content at that time as its data.
//!
//! A file is a signal. Touches that come faster than they are read may become one message, but the last touch always
//! gives a message. Where events may be missing (the kernel's queue overflowed, the directory was replaced, no
//! daemon ran), a scan compares each file with its last published state.

mod checkpoint;
mod directory;
pub(super) mod entry;
mod events;
mod inbox;
mod inotify;
mod lru;
mod names;
mod pending;
mod poll;
mod refusal;
mod rules;
mod scan;
mod signals;
mod stamp;
mod watched;
mod watching;

use std::{
    collections::HashSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use comet_proto::ChannelName;
use nix::errno::Errno;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    directory::{FileRules, FilesDirectory},
    events::Events,
    inbox::{CollectedEvents, Inbox},
    inotify::Watch,
    signals::{FileSignals, SLICE},
    stamp::StampError,
    watched::{Checkpoint, Polling, Watched},
};
use crate::{broker::Broker, config::Config, hub::Hub, log_limit::LogLimit, metrics::Metrics};

pub use self::inotify::{EventsRead, Watcher};

/// Interval in which the daemon checks that the path still leads to the open directory, and writes the stamp.
const PERIOD: Duration = Duration::from_secs(1);

/// The most events per interval that the watching thread handles itself. More events are collected for the control thread, so that
/// the watching thread does not fall behind the kernel's queue.
const AT_ONCE: u32 = 32;
const AT_ONCE_TIME: Duration = Duration::from_millis(1);

/// Interval in which the control thread reads events during a flood.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

/// Why the directory could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The directory does not exist.
    #[error("cannot watch {}: no such directory; create it, or name another one (--dir)", .0.display())]
    Missing(PathBuf),
    /// The path is a symbolic link, or something else.
    #[error("cannot watch {}: it is not a directory (symbolic links are not followed); name a directory (--dir)", .0.display())]
    NotADirectory(PathBuf),
    /// The system refused to open it.
    #[error("cannot watch {}: {}", dir.display(), source.desc())]
    Open {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        source: Errno,
    },
}

/// A watched directory that publishes into a hub. It is opened first, to report errors, and run afterwards.
pub struct Files {
    path: PathBuf,
    watch: Box<dyn Watch>,
    /// `None` while there is no directory to watch at the path.
    watched: Option<Watched>,
    inbox: Arc<Inbox>,
    signals: FileSignals,
    metrics: Arc<Metrics>,
    /// Every change before this time was published. Nanoseconds since the epoch, by the clock of the file system.
    published_until: i64,
    checkpoint: Checkpoint,
    /// A scan failed, so changes may be unpublished, and the stamp is not written until a scan succeeds.
    scan_again: bool,
    /// The reason why there is no stamp, if it was logged.
    stamp_error: Option<StampError>,
    /// Limits log lines that other users can cause.
    losses: LogLimit,
    failures: LogLimit,
    polling: Polling,
    /// The number of events that the watching threads have handled since that time.
    at_once: (Instant, u32),
    settings: Option<watch::Receiver<Arc<Config>>>,
}

/// Waits for changed settings.
async fn changed(settings: Option<&mut watch::Receiver<Arc<Config>>>) -> Arc<Config> {
    if let Some(settings) = settings
        && settings.changed().await.is_ok()
    {
        return settings.borrow_and_update().clone();
    }
    std::future::pending().await
}

impl Files {
    /// Opens the directory, starts to watch it, and publishes files that changed since a daemon last watched it. If
    /// no daemon ever did, only changes from now on are published.
    ///
    /// # Errors
    /// There is no such directory, or the system's limits do not allow watching it.
    pub fn open(
        config: &Config,
        watcher: Arc<Watcher>,
        hub: &Hub,
        broker: Arc<dyn Broker>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, FilesError> {
        let terms = FileRules::new(config);
        Self::open_with(Box::new(watcher), &config.dir, terms, hub, broker, metrics)
    }

    fn open_with(
        watch: Box<dyn Watch>,
        dir: &Path,
        terms: FileRules,
        hub: &Hub,
        broker: Arc<dyn Broker>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, FilesError> {
        let mut files = Self {
            path: dir.to_owned(),
            watch,
            watched: None,
            inbox: Arc::default(),
            signals: FileSignals::new(terms, hub, broker, metrics.clone()),
            metrics,
            published_until: 0,
            checkpoint: Checkpoint::default(),
            scan_again: false,
            stamp_error: None,
            losses: LogLimit::default(),
            failures: LogLimit::default(),
            polling: Polling::default(),
            at_once: (Instant::now(), 0),
            settings: None,
        };
        let (seen, now) = files.start_watching()?;
        let unfinished = files.resume(seen, now, now);
        let mut scan = files.begin_scan(unfinished, HashSet::new());
        while files.scan_slice(&mut scan) {}
        Ok(files)
    }

    /// Follows changes of the settings.
    pub fn follow(&mut self, settings: watch::Receiver<Arc<Config>>) {
        self.settings = Some(settings);
    }

    /// Publishes changes until `stop`, then the last ones, and writes the stamp for the next daemon.
    pub async fn run(self, stop: CancellationToken) {
        let mut files = Box::new(self);
        let mut settings = files.settings.take();
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let inbox = files.inbox.clone();
            let due = files.due();
            let window = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // While this task waits, the watching thread publishes by itself everything that needs no waiting.
            inbox.lend(files);
            let mut renewed = None;
            let compare = tokio::select! {
                () = stop.cancelled() => None,
                () = inbox.changed() => Some(false),
                () = window => Some(false),
                _ = period.tick() => Some(true),
                config = changed(settings.as_mut()) => {
                    renewed = Some(config);
                    Some(false)
                }
            };
            files = inbox.take_back().await;
            if let Some(config) = renewed {
                files.signals.terms = FileRules::new(&config);
            }
            match compare {
                None => return files.finish().await,
                Some(true) => files.compare_directory().await,
                Some(false) => {}
            }
            files.work().await;
        }
    }

    /// Handles new events at once on the watching thread, because waking another thread would take longer than
    /// everything else. Returns false if the control thread must continue, or if there are so many events that they are
    /// better collected.
    fn publish_now(&mut self, names: &[(Arc<OsStr>, Events)]) -> bool {
        self.checkpoint.due = 2;
        let now = Instant::now();
        if let Some(watched) = &self.watched {
            for (file, events) in names {
                self.signals
                    .handle_events(&watched.directory, file, *events, now);
            }
        }
        self.signals.keep();
        self.signals.pending.next().is_none()
    }

    /// Whether the watching thread may handle more events now. It also serves browsers.
    fn may_publish_now(&mut self, events: u32) -> bool {
        let directory = self.watched.as_ref().map(|watched| &watched.directory);
        if directory.is_some_and(FilesDirectory::may_block) {
            return false;
        }
        let now = Instant::now();
        if now - self.at_once.0 > AT_ONCE_TIME {
            self.at_once = (now, 0);
        }
        self.at_once.1 += events;
        self.at_once.1 <= AT_ONCE
    }

    /// The latest time for the next work.
    fn due(&self) -> Option<Instant> {
        let flood = self
            .watch
            .is_flooded()
            .then(|| Instant::now() + FLOOD_PAUSE);
        flood.into_iter().chain(self.signals.pending.next()).min()
    }

    /// Handles new events, and names whose waiting time is over.
    async fn work(&mut self) {
        if self.watch.is_flooded() {
            self.watch.catch_up();
        }
        let batch = self.inbox.take();
        if !batch.names.is_empty() || batch.rescan {
            self.checkpoint.due = 2;
        }
        self.handle_all(&batch).await;
        if let Some(watched) = &self.watched {
            self.signals.expire(&watched.directory, Instant::now());
        }
        self.signals.keep();
        if batch.rescan {
            if self.losses.is_due(Instant::now().into_std()) {
                let dir = self.path.display();
                warn!(
                    "more events in {dir} at once than fs.inotify.max_queued_events ({}) allows; comparing all \
                     files instead",
                    inotify::max_queued_events()
                );
            }
            self.metrics.files_rescans.add(1);
            self.scan(HashSet::new(), HashSet::new()).await;
        }
        if (batch.fence || batch.rescan) && self.checkpoint.fence.is_some() {
            self.checkpoint.passed = Some(Instant::now());
        }
        self.write_checkpoint();
        if batch.moved {
            self.compare_directory().await;
        }
    }

    async fn handle_all(&mut self, batch: &CollectedEvents) {
        let Some(watched) = &self.watched else {
            return;
        };
        let now = Instant::now();
        for slice in batch.names.chunks(SLICE) {
            for (file, events) in slice {
                self.signals
                    .handle_events(&watched.directory, file, *events, now);
            }
            if slice.len() == SLICE {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Publishes the remaining changes of this directory, and writes the stamp.
    async fn finish(&mut self) {
        self.watch.catch_up();
        let batch = self.inbox.take();
        self.handle_all(&batch).await;
        let now = self.stamp().and_then(|stamp| stamp.clock().ok());
        let pending = &self.signals.pending;
        let mut unfinished: HashSet<ChannelName> = match batch.rescan {
            true => HashSet::new(), // it is not known which of them were closed
            false => pending.being_written().cloned().collect(),
        };
        self.scan(HashSet::new(), unfinished.clone()).await;
        self.notice_unopened();
        unfinished.extend(self.signals.pending.names().cloned());
        if let (Some(now), false) = (now, self.scan_again)
            && self.signals.kept().await
        {
            self.published_until = now;
            self.write_stamp(unfinished.into_iter().collect());
        }
    }
}

#[cfg(test)]
mod tests;

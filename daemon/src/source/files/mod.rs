//! Files: a touch is a publish. Watches the `*.comet` files of one directory and publishes each as it changes:
//! exactly one message for an action of a user, and the content at that time as its data.
//!
//! A file is a signal. Touches that come faster than they are read may become one message, but after the last one
//! there is a message. Where events may be missing (the kernel's queue overflowed, the directory was replaced, no
//! daemon ran) a scan compares each file with what was told of it.

mod checkpoint;
mod directory;
pub(super) mod entry;
mod inbox;
mod inotify;
mod memory;
mod pending;
mod poll;
mod refusal;
mod rules;
mod scan;
mod signals;
mod stamp;
mod watched;

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
    checkpoint::Checkpoint,
    directory::{Directory, Terms},
    inbox::{Batch, Events, Inbox},
    inotify::Watch,
    poll::Poll,
    signals::Signals,
    stamp::StampError,
    watched::Watched,
};
use crate::{config::Config, hub::Hub, log_limit::LogLimit, metrics::Metrics};

pub use self::inotify::{Ears, Heard};

/// What follows the channel's name in the name of its file.
const SUFFIX: &str = ".comet";

/// How often the directory is compared with what its path leads to, and the stamp is written.
const PERIOD: Duration = Duration::from_secs(1);

/// Files that are looked at before others on the thread get their turn.
const SLICE: usize = 256;

/// Events that the thread which hears them deals with itself in so much time. When there are more, they are gathered: it
/// must not fall behind the kernel's queue.
const AT_ONCE: u32 = 32;
const AT_ONCE_TIME: Duration = Duration::from_millis(1);

/// In a flood the control thread looks so often for more.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

/// Why the directory could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Nothing there.
    #[error("cannot watch {}: no such directory; create it, or name another one (--dir)", .0.display())]
    Missing(PathBuf),
    /// A symbolic link, or something else.
    #[error("cannot watch {}: not a directory itself (symbolic links are not followed); name the directory (--dir)", .0.display())]
    NotADirectory(PathBuf),
    /// The system refused to open it.
    #[error("cannot watch {}: {}", dir.display(), source.desc())]
    Open {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: Errno,
    },
}

/// A watched directory that publishes into a hub. Opened first, so that errors are known; then to be run.
pub struct Files {
    path: PathBuf,
    watch: Box<dyn Watch>,
    /// `None` while nothing can be watched at the path.
    watched: Option<Watched>,
    inbox: Arc<Inbox>,
    signals: Signals,
    metrics: Arc<Metrics>,
    /// Everything that changed before was told. Nanoseconds since the epoch, by the clock of the file system.
    told_until: i64,
    checkpoint: Checkpoint,
    /// A scan failed: not all was told, so the stamp stays as it is until one succeeds.
    scan_again: bool,
    /// Why there is no stamp, when that was logged.
    stamp_error: Option<StampError>,
    /// What others can bring about at will is not logged each time.
    losses: LogLimit,
    failures: LogLimit,
    poll: Poll,
    /// How many events the threads that hear them have dealt with since then.
    at_once: (Instant, u32),
    settings: Option<watch::Receiver<Arc<Config>>>,
}

/// The settings when they have changed.
async fn changed(settings: Option<&mut watch::Receiver<Arc<Config>>>) -> Arc<Config> {
    if let Some(settings) = settings
        && settings.changed().await.is_ok()
    {
        return settings.borrow_and_update().clone();
    }
    std::future::pending().await
}

impl Files {
    /// Opens the directory, starts to watch it, and publishes what changed since a daemon watched it last. When
    /// none ever did, files count from now on.
    ///
    /// # Errors
    /// When there is no such directory, or the system's limits do not let it be watched.
    pub fn open(
        config: &Config,
        ears: Arc<Ears>,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, FilesError> {
        let terms = Terms::new(config);
        Self::open_with(Box::new(ears), &config.dir, terms, hub, metrics)
    }

    fn open_with(
        watch: Box<dyn Watch>,
        dir: &Path,
        terms: Terms,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, FilesError> {
        let mut files = Self {
            path: dir.to_owned(),
            watch,
            watched: None,
            inbox: Arc::default(),
            signals: Signals::new(terms, hub, metrics.clone()),
            metrics,
            told_until: 0,
            checkpoint: Checkpoint::default(),
            scan_again: false,
            stamp_error: None,
            losses: LogLimit::default(),
            failures: LogLimit::default(),
            poll: Poll::default(),
            at_once: (Instant::now(), 0),
            settings: None,
        };
        let (seen, now) = files.start_watching()?;
        let unfinished = files.resume(seen, now, now);
        let mut scan = files.begin_scan(unfinished, HashSet::new());
        while files.scan_slice(&mut scan) {}
        Ok(files)
    }

    /// Takes changes of the settings from here.
    pub fn follow(&mut self, settings: watch::Receiver<Arc<Config>>) {
        self.settings = Some(settings);
    }

    /// Publishes what changes until `stop`; then what changed last, and remembers that for the next daemon.
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
            // While nothing is done here, the thread that hears of it publishes by itself what needs no waiting.
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
            files = inbox.take_back();
            if let Some(config) = renewed {
                files.signals.terms = Terms::new(&config);
            }
            match compare {
                None => return files.finish().await,
                Some(true) => files.compare_directory().await,
                Some(false) => {}
            }
            files.work().await;
        }
    }

    /// What was just heard, there and then: to wake another thread first would take longer
    /// than all the rest. False: somebody has to come back to it, or there is so much that it is better gathered.
    fn hear_now(&mut self, names: &[(Arc<OsStr>, Events)]) -> bool {
        self.checkpoint.due = 2;
        let now = Instant::now();
        if let Some(watched) = &self.watched {
            for (file, events) in names {
                self.signals.heard(&watched.directory, file, *events, now);
            }
        }
        self.signals.keep();
        self.signals.pending.next().is_none()
    }

    /// Has the thread that hears time for more? It has browsers to serve.
    fn hears_now(&mut self) -> bool {
        let directory = self.watched.as_ref().map(|watched| &watched.directory);
        if directory.is_some_and(Directory::may_block) {
            return false;
        }
        let now = Instant::now();
        if now - self.at_once.0 > AT_ONCE_TIME {
            self.at_once = (now, 0);
        }
        self.at_once.1 += 1;
        self.at_once.1 <= AT_ONCE
    }

    /// When to work at the latest.
    fn due(&self) -> Option<Instant> {
        let flood = self
            .watch
            .is_flooded()
            .then(|| Instant::now() + FLOOD_PAUSE);
        flood.into_iter().chain(self.signals.pending.next()).min()
    }

    /// Handles what was heard, and what has waited for long enough.
    async fn work(&mut self) {
        if self.watch.is_flooded() {
            self.watch.catch_up();
        }
        let batch = self.inbox.take();
        if !batch.names.is_empty() || batch.rescan {
            self.checkpoint.due = 2;
        }
        self.hear(&batch).await;
        if let Some(watched) = &self.watched {
            self.signals.expire(&watched.directory, Instant::now());
        }
        self.signals.keep();
        if batch.rescan {
            if self.losses.is_due(Instant::now().into_std()) {
                let dir = self.path.display();
                warn!(
                    "more happens in {dir} at once than fs.inotify.max_queued_events ({}) lets through; comparing all \
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

    async fn hear(&mut self, batch: &Batch) {
        let Some(watched) = &self.watched else {
            return;
        };
        let now = Instant::now();
        for slice in batch.names.chunks(SLICE) {
            for (file, events) in slice {
                self.signals.heard(&watched.directory, file, *events, now);
            }
            if slice.len() == SLICE {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Publishes what is left of this directory, and writes down that everything was.
    async fn finish(&mut self) {
        self.watch.catch_up();
        let batch = self.inbox.take();
        self.hear(&batch).await;
        let now = self.stamp().and_then(|stamp| stamp.clock().ok());
        let pending = &self.signals.pending;
        let mut unfinished: HashSet<ChannelName> = match batch.rescan {
            true => HashSet::new(), // which of them were closed is not known
            false => pending.being_written().cloned().collect(),
        };
        self.scan(HashSet::new(), unfinished.clone()).await;
        self.notice_unopened();
        unfinished.extend(self.signals.pending.names().cloned());
        if let (Some(now), false) = (now, self.scan_again)
            && self.signals.kept().await
        {
            self.told_until = now;
            self.write_stamp(unfinished.into_iter().collect());
        }
    }
}

#[cfg(test)]
mod tests;

//! Files: a touch is a publish. Watches the `*.comet` files of one directory and publishes each as it changes:
//! exactly one message for an action of a user, and the content at that time as its data.
//!
//! A file is a signal. Touches that come faster than they are read may become one message, but after the last one
//! there is a message. Where events may be missing (the kernel's queue overflowed, the directory was replaced, no
//! daemon ran) a scan compares each file with what was told of it.

mod directory;
pub(super) mod entry;
mod inbox;
mod inotify;
mod memory;
mod pending;
mod poll;
mod refusal;
mod rules;
mod signals;
mod stamp;

use std::{
    any::Any,
    collections::HashSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use comet_proto::ChannelName;
use nix::{dir::OwningIter, errno::Errno};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    directory::{Directory, Terms},
    inbox::{Batch, Events, Inbox},
    inotify::{Inotify, Watch},
    poll::Poll,
    signals::{Search, Signals},
    stamp::{Seen, Stamp, StampError},
};
use crate::{config::Config, hub::Hub, metrics::Metrics};

/// What follows the channel's name in the name of its file.
const SUFFIX: &str = ".comet";

/// How often the directory is compared with what its path leads to, and the stamp is written.
const PERIOD: Duration = Duration::from_secs(1);

/// Files that are looked at before others on the thread get their turn.
const SLICE: usize = 256;

/// Events that the watcher's thread deals with itself in so much time. When there are more, they are gathered: it must
/// not fall behind the kernel's queue.
const AT_ONCE: u32 = 32;
const AT_ONCE_TIME: Duration = Duration::from_millis(1);

/// A change may be announced that long after the time it was given, in nanoseconds.
const LAG: i64 = 100_000_000;

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
    losses: Seldom,
    failures: Seldom,
    poll: Poll,
    /// How many events the watcher's thread has dealt with since then.
    at_once: (Instant, u32),
    settings: Option<watch::Receiver<Arc<Config>>>,
}

/// The directory that is watched now.
struct Watched {
    directory: Directory,
    /// `None` where none can be kept: then a restart does not know what changed before it.
    stamp: Option<Stamp>,
    /// `None` where inotify refused: then the directory is scanned all the time.
    watch: Option<Box<dyn Any + Send>>,
}

/// The way to the next writing of the stamp.
#[derive(Default)]
struct Checkpoint {
    /// Periods in which the stamp has to be written again: two after the last change, since the first writing may
    /// have come too soon after it.
    due: u8,
    /// The stamp was touched at this time (of the file system).
    fence: Option<i64>,
    /// The watcher told so; everything before was heard by then.
    passed: Option<Instant>,
}

/// When something was logged last.
#[derive(Default)]
struct Seldom(Option<Instant>);

/// The settings when they have changed.
async fn changed(settings: Option<&mut watch::Receiver<Arc<Config>>>) -> Arc<Config> {
    if let Some(settings) = settings
        && settings.changed().await.is_ok()
    {
        return settings.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// A scan on its way through the directory.
struct Scan {
    /// `None`: all were seen, or no more can be.
    entries: Option<OwningIter>,
    search: Search,
}

impl Files {
    /// Opens the directory, starts to watch it, and publishes what changed since a daemon watched it last. When
    /// none ever did, files count from now on.
    ///
    /// # Errors
    /// When there is no such directory, or the system's limits do not let it be watched.
    pub fn open(config: &Config, hub: Arc<Hub>, metrics: Arc<Metrics>) -> Result<Self, FilesError> {
        let terms = Terms::new(config);
        Self::open_with(Box::new(Inotify), &config.dir, terms, hub, metrics)
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
            losses: Seldom::default(),
            failures: Seldom::default(),
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
            let due = files.signals.pending.next();
            let window = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // While nothing is done here, the watcher's thread publishes by itself what needs no waiting.
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

    /// What the watcher's thread has just heard, there and then: to wake another thread first would take longer
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

    /// Has the watcher's thread time for more?
    fn hears_now(&mut self) -> bool {
        let now = Instant::now();
        if now - self.at_once.0 > AT_ONCE_TIME {
            self.at_once = (now, 0);
        }
        self.at_once.1 += 1;
        self.at_once.1 <= AT_ONCE
    }

    /// Handles what was heard, and what has waited for long enough.
    async fn work(&mut self) {
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
            if self.losses.is_due(Instant::now()) {
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

    /// Watches another directory when the path leads to one: nothing tells when it is mounted over, unmounted,
    /// replaced or back.
    async fn compare_directory(&mut self) {
        self.notice_unopened();
        match &self.watched {
            Some(watched) if watched.directory.is_at(&self.path) => {
                if watched.watch.is_none() {
                    return self.poll().await;
                }
                if std::mem::take(&mut self.scan_again) {
                    self.scan(HashSet::new(), HashSet::new()).await;
                }
                return self.begin_checkpoint();
            }
            Some(_) => self.finish().await,
            None => {}
        }
        let was_watched = self.watched.take().is_some();
        self.signals.reset(false); // nothing waits for files that are gone
        match self.start_watching() {
            Ok((seen, now)) => {
                info!(dir = %self.path.display(), "watching the directory that is there now");
                // All in a directory that was never watched is new.
                let unfinished = self.resume(seen, now, i64::MIN);
                self.metrics.files_rescans.add(1);
                self.scan(unfinished, HashSet::new()).await;
            }
            Err(error) if was_watched => warn!("{error}; looking for it every second"),
            Err(_) => {}
        }
    }

    /// Opens what the path leads to. Returns what the last daemon has seen there, and the time before the watch
    /// began.
    fn start_watching(&mut self) -> Result<(Option<Seen>, i64), FilesError> {
        let dir = self.path.clone();
        let directory = match Directory::open(&dir) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Err(FilesError::Missing(dir)),
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(FilesError::NotADirectory(dir)),
            Err(source) => return Err(FilesError::Open { dir, source }),
        };
        if directory.is_open_to_all() {
            warn!(dir = %self.path.display(), "anybody may replace files here; set the sticky bit (chmod +t)");
        }
        let (stamp, seen) = match Stamp::open(&directory) {
            Ok((stamp, seen)) => {
                self.stamp_error = None;
                (Some(stamp), seen)
            }
            Err(error) => {
                self.warn_of_stamp(error);
                (None, None)
            }
        };
        // Before the watch: the stamp's own events are fences.
        self.signals
            .reset(stamp.as_ref().is_some_and(Stamp::clock_is_fine));
        let now = stamp
            .as_ref()
            .and_then(|stamp| stamp.clock().ok())
            .unwrap_or_else(wall_clock);
        let watch = self.start_watch(&directory);
        self.watched = Some(Watched {
            directory,
            stamp,
            watch,
        });
        Ok((seen, now))
    }

    /// Goes on where the last daemon ended, or from `start` when none did. Returns the files that it saw being
    /// written.
    fn resume(&mut self, seen: Option<Seen>, now: i64, start: i64) -> HashSet<ChannelName> {
        self.scan_again = false;
        self.checkpoint = Checkpoint {
            due: 2,
            ..Checkpoint::default()
        };
        match seen {
            Some(seen) if seen.until <= now => {
                self.told_until = seen.until;
                return seen.unfinished.into_iter().collect();
            }
            Some(_) => {
                warn!("the clock was set back while no daemon ran; telling all files");
                self.told_until = i64::MIN;
            }
            None => self.told_until = start,
        }
        self.write_stamp(Vec::new()); // or a crash within the first second would begin anew
        HashSet::new()
    }

    /// Begins a scan for what changed and was not told; leaves files alone that are being written.
    fn begin_scan(
        &mut self,
        mut unfinished: HashSet<ChannelName>,
        being_written: HashSet<ChannelName>,
    ) -> Scan {
        unfinished.extend(self.signals.begin_scan());
        let entries = self
            .watched
            .as_ref()
            .map(|watched| watched.directory.entries());
        let entries = match entries {
            Some(Ok(entries)) => Some(entries),
            Some(Err(errno)) => {
                self.scan_failed(errno);
                None
            }
            None => None,
        };
        let search = Search {
            since: self.told_until,
            unfinished,
            being_written,
        };
        Scan { entries, search }
    }

    /// Looks at some files. False: that was all.
    fn scan_slice(&mut self, scan: &mut Scan) -> bool {
        let (Some(entries), Some(watched)) = (&mut scan.entries, &self.watched) else {
            return false;
        };
        let now = Instant::now();
        for _ in 0..SLICE {
            match entries.next() {
                Some(Ok(entry)) => {
                    let file = OsStr::from_bytes(entry.file_name().to_bytes());
                    if inotify::is_signal(file) {
                        self.signals
                            .found(&watched.directory, file, &scan.search, now);
                    }
                }
                Some(Err(errno)) => {
                    self.scan_failed(errno);
                    return false;
                }
                None => {
                    self.signals.end_scan();
                    return false;
                }
            }
        }
        true
    }

    /// What could not be opened is looked at again.
    fn notice_unopened(&mut self) {
        let Some(errno) = self.signals.unopened.take() else {
            return;
        };
        self.scan_again = true;
        if self.failures.is_due(Instant::now()) {
            let dir = self.path.display();
            warn!(
                "cannot open a file in {dir}: {}; trying again every second",
                errno.desc()
            );
        }
    }

    fn scan_failed(&mut self, errno: Errno) {
        // A directory that was deleted has no entries; the next comparison finds that out.
        if errno != Errno::ENOENT {
            warn!(
                "cannot list {}: {}; trying again",
                self.path.display(),
                errno.desc()
            );
            self.scan_again = true;
        }
    }

    async fn scan(
        &mut self,
        unfinished: HashSet<ChannelName>,
        being_written: HashSet<ChannelName>,
    ) {
        let mut scan = self.begin_scan(unfinished, being_written);
        while self.scan_slice(&mut scan) {
            tokio::task::yield_now().await;
        }
    }

    /// Publishes what is left of this directory, and writes down that everything was.
    async fn finish(&mut self) {
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

    /// Touches the stamp: when the watcher tells of it, all that happened before was told of too.
    fn begin_checkpoint(&mut self) {
        self.replace_missing_stamp();
        if self.checkpoint.due > 0 && self.checkpoint.fence.is_none() {
            self.checkpoint.passed = None;
            self.checkpoint.fence = self.stamp().and_then(|stamp| stamp.clock().ok());
        }
    }

    /// Writes the stamp when all that happened before its touch was decided.
    fn write_checkpoint(&mut self) {
        let (Some(fence), Some(passed)) = (self.checkpoint.fence, self.checkpoint.passed) else {
            return;
        };
        self.notice_unopened();
        let waits = self.signals.pending.waits_since(passed);
        if waits || self.scan_again || !self.signals.keep() {
            return;
        }
        self.checkpoint.fence = None;
        self.checkpoint.due = self.checkpoint.due.saturating_sub(1);
        self.told_until = fence - LAG;
        self.write_stamp(self.signals.pending.being_written().cloned().collect());
    }

    fn write_stamp(&mut self, unfinished: Vec<ChannelName>) {
        let seen = Seen {
            until: self.told_until,
            unfinished,
        };
        let written = self.stamp().map(|stamp| stamp.write(&seen));
        if let (Some(Err(errno)), Some(watched)) = (written, &mut self.watched) {
            watched.stamp = None;
            self.warn_of_stamp(errno.into());
        }
    }

    fn replace_missing_stamp(&mut self) {
        let Some(watched) = self
            .watched
            .as_mut()
            .filter(|watched| watched.lacks_a_stamp())
        else {
            return;
        };
        self.checkpoint = Checkpoint {
            due: 2,
            ..Checkpoint::default()
        };
        match Stamp::open(&watched.directory) {
            Ok((stamp, _)) => {
                watched.stamp = Some(stamp);
                self.stamp_error = None;
                self.write_stamp(self.signals.pending.being_written().cloned().collect());
            }
            Err(error) => {
                watched.stamp = None;
                self.warn_of_stamp(error);
            }
        }
    }

    fn stamp(&self) -> Option<&Stamp> {
        self.watched.as_ref()?.stamp.as_ref()
    }

    fn warn_of_stamp(&mut self, error: StampError) {
        if self.stamp_error.as_ref() == Some(&error) {
            return; // tried again every second
        }
        let stamp = self.path.join(stamp::FILE_NAME);
        warn!(
            "cannot use {}: {error}; what changes while no daemon runs will not be told",
            stamp.display()
        );
        self.stamp_error = Some(error);
    }
}

impl Watched {
    /// It was deleted, or none could be kept so far.
    fn lacks_a_stamp(&self) -> bool {
        self.stamp.as_ref().is_none_or(Stamp::is_gone)
    }
}

impl Seldom {
    const WHILE: Duration = Duration::from_secs(60);

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now >= last + Self::WHILE);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// Nanoseconds since the epoch, as a file system may count them that is one step behind.
fn wall_clock() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX) - 10_000_000
}

#[cfg(test)]
mod tests;

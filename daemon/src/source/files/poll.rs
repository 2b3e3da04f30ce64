//! Polling, for when inotify refuses to watch the directory (`fs.inotify.max_user_watches`, `max_user_instances`): all files
//! are compared with their last published state every second, until the directory can be watched.

use std::{any::Any, collections::HashSet, os::fd::AsFd, sync::Arc};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Files,
    checkpoint::{LAG, wall_clock},
    directory::FilesDirectory,
    stamp::Stamp,
    watched::Checkpoint,
};

/// The pause is at least this many times as long as the last scan, so that scans of many files do not keep a processor busy.
const PAUSE: u32 = 10;

impl Files {
    /// Starts to watch the directory; `None` if that is not possible.
    pub(super) fn start_watch(
        &mut self,
        directory: &FilesDirectory,
    ) -> Option<Box<dyn Any + Send>> {
        self.inbox = Arc::default();
        let dir = self.path.display();
        let started = self.watch.start(directory.as_fd(), self.inbox.clone());
        match &started {
            Ok(_) if self.polling.is_on => info!("{dir} is watched again"),
            Err(error) if !self.polling.is_on => {
                warn!(
                    "cannot watch {dir}: {error}; comparing all its files every second until it can be watched"
                );
            }
            _ => {}
        }
        self.set_polling(started.is_err());
        started.ok()
    }

    /// Publishes files that changed since the last scan, and tries to watch the directory.
    pub(super) async fn poll(&mut self) {
        let start = Instant::now();
        if self.polling.not_before.is_some_and(|then| start < then) {
            return;
        }
        let before = self.stamp().map(Stamp::clock);
        let before = before.and_then(Result::ok).unwrap_or_else(wall_clock);
        self.watch_again(); // before the scan, so that later changes cause events
        self.metrics.files_rescans.add(1);
        self.scan_again = false;
        self.scan(HashSet::new(), HashSet::new()).await;
        self.notice_unopened();
        if !self.scan_again && self.signals.keep() {
            self.published_until = before.saturating_sub(LAG);
            let unfinished = self.signals.pending.names().cloned().collect();
            self.replace_missing_stamp();
            self.write_stamp(unfinished);
        }
        self.polling.not_before = Some(Instant::now() + start.elapsed() * PAUSE);
    }

    fn watch_again(&mut self) {
        let Some(mut watched) = self.watched.take() else {
            return;
        };
        watched.watch = self.start_watch(&watched.directory);
        self.watched = Some(watched);
        self.checkpoint = Checkpoint {
            due: 2,
            ..Checkpoint::default()
        };
    }

    fn set_polling(&mut self, is_on: bool) {
        match (self.polling.is_on, is_on) {
            (false, true) => self.metrics.files_polling.add(1),
            (true, false) => self.metrics.files_polling.sub(1),
            _ => {}
        }
        self.polling.is_on = is_on;
        if !is_on {
            self.polling.not_before = None;
        }
    }
}

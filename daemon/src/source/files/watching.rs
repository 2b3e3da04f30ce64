//! Opens and watches the directory that the path leads to, and another one when the path leads there.

use std::collections::HashSet;

use nix::errno::Errno;
use tracing::{info, warn};

use super::{
    Files, FilesError,
    checkpoint::wall_clock,
    directory::FilesDirectory,
    stamp::{Stamp, StampContent},
    watched::Watched,
};

impl Files {
    /// Watches another directory when the path leads to one. There is no event when the directory is mounted over, unmounted,
    /// replaced or back, so this is checked regularly.
    pub(super) async fn compare_directory(&mut self) {
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
        self.signals.reset(false); // pending names belong to files that are gone
        match self.start_watching() {
            Ok((seen, now)) => {
                info!(dir = %self.path.display(), "watching the directory that is there now");
                // Every file in a directory that was never watched is new.
                let unfinished = self.resume(seen, now, i64::MIN);
                self.metrics.files_rescans.add(1);
                self.scan(unfinished, HashSet::new()).await;
            }
            Err(error) if was_watched => warn!("{error}; looking for it every second"),
            Err(_) => {}
        }
    }

    /// Opens the directory at the path. Returns the content of its stamp, and a time before the watch
    /// began.
    pub(super) fn start_watching(&mut self) -> Result<(Option<StampContent>, i64), FilesError> {
        let dir = self.path.clone();
        let directory = match FilesDirectory::open(&dir) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Err(FilesError::Missing(dir)),
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(FilesError::NotADirectory(dir)),
            Err(source) => return Err(FilesError::Open { dir, source }),
        };
        if directory.is_open_to_all() {
            warn!(dir = %self.path.display(), "any user may replace files here; set the sticky bit (chmod +t)");
        }
        let (stamp, seen) = match Stamp::open(&directory) {
            Ok((stamp, seen)) => {
                self.stamp_error = None;
                self.metrics.files_notices.set_stamp_error(None);
                (Some(stamp), seen)
            }
            Err(error) => {
                self.warn_of_stamp(error);
                (None, None)
            }
        };
        // Opened before the watch begins, because events of the stamp are fences.
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
}

//! Scans: where events may be missing, each file of the directory is compared with its last published state, in slices.

use std::{collections::HashSet, ffi::OsStr, os::unix::ffi::OsStrExt};

use comet_proto::ChannelName;
use nix::{dir::OwningIter, errno::Errno};
use tokio::time::Instant;
use tracing::warn;

use super::{
    Files,
    names::is_channel_file,
    signals::{SLICE, Search},
};

/// A running scan of the directory.
pub(super) struct Scan {
    /// `None`: all files were seen, or no more can be read.
    entries: Option<OwningIter>,
    search: Search,
}

impl Files {
    /// Starts a scan for changes that were not published. Files that are being written are left alone.
    pub(super) fn begin_scan(
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
            since: self.published_until,
            unfinished,
            being_written,
        };
        Scan { entries, search }
    }

    /// Handles some files. Returns false when the scan is complete.
    pub(super) fn scan_slice(&mut self, scan: &mut Scan) -> bool {
        let (Some(entries), Some(watched)) = (&mut scan.entries, &self.watched) else {
            return false;
        };
        let now = Instant::now();
        for _ in 0..SLICE {
            match entries.next() {
                Some(Ok(entry)) => {
                    let file = OsStr::from_bytes(entry.file_name().to_bytes());
                    if is_channel_file(file) {
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

    /// Scans again for files that could not be opened.
    pub(super) fn notice_unopened(&mut self) {
        let Some(errno) = self.signals.unopened.take() else {
            return;
        };
        self.scan_again = true;
        if self.failures.is_due(Instant::now().into_std()) {
            let dir = self.path.display();
            warn!(
                "cannot open a file in {dir}: {}; trying again every second",
                errno.desc()
            );
        }
    }

    pub(super) fn scan_failed(&mut self, errno: Errno) {
        // A deleted directory has no entries; the next check of the path detects that.
        if errno != Errno::ENOENT {
            warn!(
                "cannot list {}: {}; trying again",
                self.path.display(),
                errno.desc()
            );
            self.scan_again = true;
        }
    }

    pub(super) async fn scan(
        &mut self,
        unfinished: HashSet<ChannelName>,
        being_written: HashSet<ChannelName>,
    ) {
        let mut scan = self.begin_scan(unfinished, being_written);
        while self.scan_slice(&mut scan) {
            tokio::task::yield_now().await;
        }
    }
}

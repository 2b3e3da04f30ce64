//! The directory that is being watched, and the progress of its stamp and of polling.

use std::any::Any;

use tokio::time::Instant;

use super::{directory::FilesDirectory, stamp::Stamp};

/// The directory that is being watched.
pub(super) struct Watched {
    pub(super) directory: FilesDirectory,
    /// `None` if there can be no stamp: then a restart does not find changes made before it.
    pub(super) stamp: Option<Stamp>,
    /// `None` if inotify refused: then the directory is scanned every second.
    pub(super) watch: Option<Box<dyn Any + Send>>,
}

impl Watched {
    /// The stamp was deleted, or could not be created so far.
    pub(super) fn lacks_a_stamp(&self) -> bool {
        self.stamp.as_ref().is_none_or(Stamp::is_gone)
    }
}

/// The state of the next write of the stamp.
#[derive(Default)]
pub(super) struct Checkpoint {
    /// The number of periods in which the stamp must still be written: two after the last change, because the first write may
    /// come too soon after it.
    pub(super) due: u8,
    /// The time at which the stamp was touched, by the clock of the file system.
    pub(super) fence: Option<i64>,
    /// The watcher has reported the touch, so every earlier event was received.
    pub(super) passed: Option<Instant>,
}

/// Whether polling is on, and the time of the next scan.
#[derive(Default)]
pub(super) struct Polling {
    pub(super) is_on: bool,
    pub(super) not_before: Option<Instant>,
}

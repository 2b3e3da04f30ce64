//! Records in the stamp file up to which time every change was published, so that the next daemon goes on from there.
//!
//! A touch of the stamp is a fence: when the watcher reports it, it has already reported every earlier event.

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use comet_proto::ChannelName;
use tracing::warn;

use super::{
    Files,
    stamp::{self, Stamp, StampContent, StampError},
    watched::Checkpoint,
};

/// The longest delay between a change's time stamp and its event, in nanoseconds.
pub(super) const LAG: i64 = 100_000_000;

impl Files {
    /// Continues where the last daemon ended, or from `start` if there was none. Returns the files that were being
    /// written at that time.
    pub(super) fn resume(
        &mut self,
        seen: Option<StampContent>,
        now: i64,
        start: i64,
    ) -> HashSet<ChannelName> {
        self.scan_again = false;
        self.checkpoint = Checkpoint {
            due: 2,
            ..Checkpoint::default()
        };
        match seen {
            Some(seen) if seen.until <= now => {
                self.published_until = seen.until;
                return seen.unfinished.into_iter().collect();
            }
            Some(_) => {
                warn!("the clock was set back while no daemon ran; publishing all files");
                self.published_until = i64::MIN;
            }
            None => self.published_until = start,
        }
        self.write_stamp(Vec::new()); // so that a crash within the first second does not begin from the start
        HashSet::new()
    }

    /// Touches the stamp. When the watcher reports this, it has reported every earlier event.
    pub(super) fn begin_checkpoint(&mut self) {
        self.replace_missing_stamp();
        if self.checkpoint.due > 0 && self.checkpoint.fence.is_none() {
            self.checkpoint.passed = None;
            self.checkpoint.fence = self.stamp().and_then(|stamp| stamp.clock().ok());
        }
    }

    /// Writes the stamp when every event before its touch was handled.
    pub(super) fn write_checkpoint(&mut self) {
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
        self.published_until = fence - LAG;
        self.write_stamp(self.signals.pending.being_written().cloned().collect());
    }

    pub(super) fn write_stamp(&mut self, unfinished: Vec<ChannelName>) {
        let seen = StampContent {
            until: self.published_until,
            unfinished,
        };
        let written = self.stamp().map(|stamp| stamp.write(&seen));
        if let (Some(Err(errno)), Some(watched)) = (written, &mut self.watched) {
            watched.stamp = None;
            self.warn_of_stamp(errno.into());
        }
    }

    pub(super) fn replace_missing_stamp(&mut self) {
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
                self.metrics.files_notices.set_stamp_error(None);
                self.write_stamp(self.signals.pending.being_written().cloned().collect());
            }
            Err(error) => {
                watched.stamp = None;
                self.warn_of_stamp(error);
            }
        }
    }

    pub(super) fn stamp(&self) -> Option<&Stamp> {
        self.watched.as_ref()?.stamp.as_ref()
    }

    pub(super) fn warn_of_stamp(&mut self, error: StampError) {
        if self.stamp_error.as_ref() == Some(&error) {
            return; // tried again every second
        }
        let stamp = self.path.join(stamp::FILE_NAME);
        let text = format!(
            "cannot use {}: {error}; changes made while no daemon runs will not be published",
            stamp.display()
        );
        warn!("{text}");
        self.metrics.files_notices.set_stamp_error(Some(text));
        self.stamp_error = Some(error);
    }
}

/// Nanoseconds since the epoch, one step of a file system's clock earlier.
pub(super) fn wall_clock() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX) - 10_000_000
}

//! Decides which events are a publish: exactly one for each action of a user, whatever events the action causes.
//!
//! A state is suppressed only when an earlier message was read from a state that already contained it.

use std::time::Duration;

use nix::sys::stat::FileStat;

use super::{
    entry::{FileVersion, nanoseconds},
    events::Events,
};

/// How long an event waits for the event that usually follows it.
pub(super) const WINDOW: Duration = Duration::from_millis(2);

/// The fields of `fstat` that the rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) version: FileVersion,
    modified: i64,
    pub(super) size: u64,
    /// The mode, including the file type.
    pub(super) mode: u32,
    pub(super) uid: u32,
    gid: u32,
    pub(super) links: u64,
}

/// What is remembered about a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) state: FileState,
    pub(super) fate: Fate,
    /// Whether every later change gives the file another version. That is not so within one step of the time stamps of
    /// kernels before 6.13 (4 ms) and of some file systems (1 s).
    pub(super) settled: bool,
}

/// How a state was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Published, perhaps by an earlier daemon.
    Published,
    /// Refused. A later change of mode or owner may make it acceptable.
    Refused,
    /// Only looked at.
    Observed,
}

/// What to do about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A write has begun, but there is nothing to publish yet.
    Remember,
    /// Everything was already published.
    Drop,
    /// The file was changed, but neither its modification time nor its content.
    Attributes,
    /// The event that usually follows these is about to come; wait for [`WINDOW`].
    Wait,
    Publish,
}

/// Decides about a regular file. `waited`: these events have already waited for [`WINDOW`].
pub(super) fn decide(
    known: Option<&Known>,
    events: Events,
    now: &FileState,
    waited: bool,
) -> Verdict {
    let complete = events.closed || events.attributes || events.moved_to;
    if known.is_some_and(|known| was_published(known, events, now)) {
        return Verdict::Drop;
    }
    if !complete {
        return Verdict::Remember;
    }
    // A writer has the file open: `cp -p` and `touch` set times before they close. The wait has a limit, because a file made
    // by link() is created and never closed.
    let being_written = events.open == Some(true);
    // PHP's touch() of a new file closes it before it sets the times.
    let perhaps_touched = events.created && !events.attributes && now.size == 0;
    if (being_written || perhaps_touched) && !waited {
        return Verdict::Wait;
    }
    let written = events.modified || events.moved_to || (events.created && events.closed);
    if !written && known.is_some_and(|known| known.only_attributes_differ(now)) {
        // After a close without another event, the event of the change is still to come.
        return if events.attributes {
            Verdict::Attributes
        } else {
            Verdict::Drop
        };
    }
    Verdict::Publish
}

/// Decides about a file that a scan found, whose events are unknown. Changes before `since` (nanoseconds
/// since the epoch) were published. `unfinished`: a write had begun that may be complete by now.
pub(super) fn decide_by_state(
    known: Option<&Known>,
    now: &FileState,
    since: i64,
    unfinished: bool,
) -> Verdict {
    match known {
        _ if unfinished => Verdict::Publish,
        None if now.version.changed >= since => Verdict::Publish,
        None => Verdict::Drop,
        Some(known) if known.state.version == now.version && known.settled => Verdict::Drop,
        Some(known) if known.only_attributes_differ(now) => Verdict::Attributes,
        Some(_) => Verdict::Publish,
    }
}

fn was_published(known: &Known, events: Events, now: &FileState) -> bool {
    // A close adds nothing to the events before it, and all of those were seen.
    let only_closed = events.closed
        && !(events.created || events.modified || events.attributes || events.moved_to);
    known.fate != Fate::Observed
        && known.state.version == now.version
        && (known.settled || only_closed)
}

impl Known {
    /// The file was changed, but neither its modification time nor its content: mode, owner, links, access time,
    /// extended attributes, labels, or a modification time that was set to what it was.
    fn only_attributes_differ(&self, now: &FileState) -> bool {
        let content = |s: &FileState| (s.modified, s.size);
        let attributes = |s: &FileState| (s.mode, s.uid, s.gid, s.links);
        self.fate != Fate::Refused
            && self.state.version.is_same_file(&now.version)
            && content(&self.state) == content(now)
            && (attributes(&self.state) != attributes(now) || self.is_before(now))
    }

    /// The change time has advanced so far that a touch in between would have another modification time.
    fn is_before(&self, now: &FileState) -> bool {
        let changed = now.version.changed;
        self.state.version.changed != changed && (self.settled || self.state.settled(changed))
    }
}

impl FileState {
    /// Whether its last change was one of the content, not of name, mode or owner.
    pub(super) fn was_written_last(&self) -> bool {
        self.modified == self.version.changed
    }

    /// Whether at `clock` (nanoseconds since the epoch) the time stamps have advanced since the last change.
    pub(super) fn settled(&self, clock: i64) -> bool {
        // Time stamps in steps of a second have no fraction.
        let step = if self.version.changed % 1_000_000_000 == 0 {
            2_000_000_000
        } else {
            20_000_000
        };
        self.version.changed.saturating_add(step) < clock
    }
}

impl From<&FileStat> for FileState {
    fn from(stat: &FileStat) -> Self {
        Self {
            version: stat.into(),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: stat.st_nlink,
        }
    }
}

#[cfg(test)]
mod tests;

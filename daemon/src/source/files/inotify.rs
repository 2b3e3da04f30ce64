//! Watching one directory with inotify, through the `notify` crate.

use std::{
    any::Any,
    ffi::OsStr,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    Config, ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};

use super::{
    SUFFIX,
    inbox::{Event, Inbox},
    stamp,
};

/// Why a directory could not be watched. The text fits after "cannot watch DIR: ".
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    /// `fs.inotify.max_user_instances`, or the descriptors of this process.
    #[error(
        "too many inotify instances or open files; raise fs.inotify.max_user_instances or the limit of descriptors"
    )]
    Instances,
    /// `fs.inotify.max_user_watches`.
    #[error("too many inotify watches; raise fs.inotify.max_user_watches")]
    Watches,
    /// Whatever else inotify says.
    #[error(transparent)]
    Other(notify::Error),
}

/// Tells an inbox what happens to the `*.comet` files of a directory.
pub(super) trait Watch: Send {
    /// Watches the directory behind this descriptor, whatever happens to its path, until the answer is dropped.
    fn start(
        &self,
        directory: BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError>;
}

/// Events that the kernel keeps until they are read, as it says.
pub(super) fn max_queued_events() -> String {
    let said = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
    said.map_or_else(|_| "unknown".into(), |said| said.trim().into())
}

/// The real one.
pub(super) struct Inotify;

impl Watch for Inotify {
    fn start(
        &self,
        directory: BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError> {
        // notify wants a path. This one leads to the directory that was opened, not to what has its name by now.
        let root = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let handler = {
            let root = root.clone();
            move |event| sort(&root, event, &inbox)
        };
        let mut watcher = RecommendedWatcher::new(handler, Config::default())?;
        watcher.watch(&root, RecursiveMode::NonRecursive)?;
        Ok(Box::new(watcher))
    }
}

impl From<notify::Error> for WatchError {
    fn from(error: notify::Error) -> Self {
        const EMFILE: i32 = nix::errno::Errno::EMFILE as i32;
        match &error.kind {
            ErrorKind::MaxFilesWatch => Self::Watches,
            ErrorKind::Io(io) if io.raw_os_error() == Some(EMFILE) => Self::Instances,
            _ => Self::Other(error),
        }
    }
}

/// Runs in notify's thread and must never wait: 55 ms at 100,000 touches a second overflow the kernel's queue.
fn sort(root: &Path, event: notify::Result<notify::Event>, inbox: &Inbox) {
    let Ok(event) = event else {
        return inbox.rescan(); // reading failed: nobody knows what was missed
    };
    if event.need_rescan() {
        return inbox.rescan();
    }
    let (Some(kind), Some(path)) = (kind(event.kind), event.paths.first()) else {
        return;
    };
    if path == root {
        if kind == Event::Gone {
            inbox.moved();
        }
        return;
    }
    match path.file_name() {
        Some(name) if name == stamp::FILE_NAME && kind == Event::Attributes => inbox.fence(),
        Some(name) if is_signal(name) => inbox.push(name, kind),
        _ => {}
    }
}

/// Opening and reading say nothing; `Both` repeats a `From` and a `To`.
fn kind(kind: EventKind) -> Option<Event> {
    match kind {
        EventKind::Create(_) => Some(Event::Created),
        EventKind::Modify(ModifyKind::Data(_)) => Some(Event::Modified),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Event::Closed),
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(Event::Attributes),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Event::MovedTo),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            Some(Event::Gone)
        }
        _ => None,
    }
}

/// Hidden files are temporary files of those who write.
pub(super) fn is_signal(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX.as_bytes()) && !name.as_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, MetadataKind, RemoveKind};

    use super::{super::inbox::Events, *};

    fn sorted(kind: EventKind, path: &str) -> super::super::inbox::Batch {
        let inbox = Inbox::default();
        let event = notify::Event::new(kind).add_path(path.into());
        sort(Path::new("/dir"), Ok(event), &inbox);
        inbox.take()
    }

    #[test]
    fn takes_visible_comet_files_alone() {
        let created = EventKind::Create(CreateKind::File);
        for (path, taken) in [
            ("/dir/news.comet", 1),
            ("/dir/bad name.comet", 1),
            ("/dir/.comet", 0),
            ("/dir/.news.comet", 0),
            ("/dir/news.comet~", 0),
            ("/dir/news", 0),
        ] {
            assert_eq!(sorted(created, path).names.len(), taken, "{path}");
        }
    }

    #[test]
    fn ignores_readers() {
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        for kind in [opened, read] {
            assert!(sorted(kind, "/dir/news.comet").names.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn knows_what_happens_to_the_directory_itself() {
        assert!(sorted(EventKind::Remove(RemoveKind::Folder), "/dir").moved);
        assert!(
            sorted(
                EventKind::Modify(ModifyKind::Name(RenameMode::From)),
                "/dir"
            )
            .moved
        );
        let batch = sorted(
            EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)),
            "/dir",
        );
        assert!(!batch.moved && batch.names.is_empty());
    }

    #[test]
    fn takes_a_touch_of_the_stamp_as_a_fence() {
        let touched = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        assert!(sorted(touched, "/dir/.comet-seen").fence);
        assert!(!sorted(EventKind::Create(CreateKind::File), "/dir/.comet-seen").fence);
    }

    #[test]
    fn asks_for_a_rescan_when_events_were_lost() {
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        for event in [Ok(overflow), Err(notify::Error::generic("read failed"))] {
            let inbox = Inbox::default();
            sort(Path::new("/dir"), event, &inbox);
            assert!(inbox.take().rescan);
        }
    }

    #[test]
    fn watches_the_opened_directory_after_it_was_renamed() {
        let root = tempfile::tempdir().unwrap();
        let (old, new) = (root.path().join("old"), root.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        let directory = std::fs::File::open(&old).unwrap();
        let inbox = Arc::new(Inbox::default());
        std::fs::rename(&old, &new).unwrap();
        std::fs::create_dir(&old).unwrap();
        let _watch = Inotify
            .start(std::os::fd::AsFd::as_fd(&directory), inbox.clone())
            .unwrap();

        std::fs::write(old.join("wrong.comet"), "").unwrap();
        std::fs::write(new.join("right.comet"), "").unwrap();

        let mut seen = Events::default();
        while !seen.closed {
            for (name, events) in inbox.take().names {
                assert_eq!(&*name, "right.comet");
                seen = seen.then(events);
            }
            std::thread::yield_now();
        }
    }
}

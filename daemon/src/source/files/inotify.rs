//! Watches one directory with inotify. It has no thread of its own, because waking another thread takes longer than handling a
//! touch. A worker that serves browsers reads the events.

use std::{
    any::Any,
    ffi::OsStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
        inotify::{AddWatchFlags, InitFlags, Inotify},
    },
};

use super::{
    events::Event,
    inbox::{CollectedEvents, Inbox},
    names::is_channel_file,
    stamp,
};
use crate::hub::Workers;

/// The number of events with the longest names that fit into one read of nix. If fewer were read, there are no more.
const FEW: usize = 4096 / (16 + 256);

/// More events in this time are a flood. The flood is over when fewer come in a millisecond.
const FLOOD: usize = 256;
const FLOOD_TIME: Duration = Duration::from_millis(4);
const CALM: usize = 32;

/// The most events that are read at once: twice as many as the kernel queues by default.
const MOST: usize = 32_768;

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
    /// Another error of inotify.
    #[error("{}", .0.desc())]
    Other(Errno),
}

/// Puts the events of a directory's `*.comet` files into an inbox.
pub(super) trait Watch: Send {
    /// Watches the directory behind this descriptor, whatever happens to its path, until the returned value is dropped.
    fn start(
        &self,
        directory: BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError>;

    /// Puts all present events into the inbox.
    fn catch_up(&self) {}

    /// Whether there is a flood of events, during which the watching thread reads none: call [`Watch::catch_up`] about every
    /// millisecond while this is true.
    fn is_flooded(&self) -> bool {
        false
    }
}

/// The size of the kernel's event queue.
pub(super) fn max_queued_events() -> String {
    let said = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
    said.map_or_else(|_| "unknown".into(), |said| said.trim().into())
}

/// The watcher as a descriptor for `epoll_wait`. It is edge-triggered: it reports each time there are new events, also when
/// another directory is watched by now.
pub struct Watcher {
    /// An epoll descriptor, which is ready when the inotify instance in it is.
    epoll: Epoll,
    state: Mutex<WatcherState>,
}

#[derive(Default)]
struct WatcherState {
    watch: Option<Arc<InotifyWatch>>,
    /// The number of events since that time.
    recent: Option<(Instant, usize)>,
    /// During a flood the watching thread reads no events, because it also serves browsers.
    flooded: bool,
}

/// A watched directory.
struct InotifyWatch {
    inotify: Inotify,
    inbox: Arc<Inbox>,
}

/// The result of [`Watcher::read_events`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct EventsRead {
    /// There may be more events, for which no new edge comes.
    pub more: bool,
    /// The workers that have messages to deliver because of the events.
    pub woken: Workers,
}

/// Ends the watch when it is dropped.
struct WatchGuard {
    watcher: Arc<Watcher>,
    watch: Arc<InotifyWatch>,
}

impl Watcher {
    /// # Errors
    /// There is no descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            state: Mutex::default(),
        }))
    }

    /// Handles the present events, or the first part of them.
    pub fn read_events(&self) -> EventsRead {
        let Some((inbox, count)) = self.collect_events() else {
            return EventsRead::default();
        };
        EventsRead {
            more: count >= FEW,
            woken: inbox.publish(),
        }
    }

    /// Reads the present events, or the first part of them, into the inbox. Returns the inbox and the number of events. `None`:
    /// the control thread reads the next ones. Under one lock, so that two threads do not mix up the order of the events.
    fn collect_events(&self) -> Option<(Arc<Inbox>, usize)> {
        let mut state = self.lock();
        let watch = state.watch.clone().filter(|_| !state.flooded)?;
        let count = watch.read_events();
        // Otherwise each event would wake the waiting thread.
        state.flooded =
            state.is_flood(count, Instant::now()) && self.epoll.delete(&watch.inotify).is_ok();
        if state.flooded {
            watch.inbox.wake();
            return None;
        }
        Some((watch.inbox.clone(), count))
    }

    fn watch_events(&self, watch: &InotifyWatch) -> nix::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.epoll.add(&watch.inotify, event)
    }

    fn lock(&self) -> MutexGuard<'_, WatcherState> {
        self.state.lock().expect("no thread has failed in here")
    }
}

/// The descriptor to wait for.
impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Watch for Arc<Watcher> {
    fn start(
        &self,
        directory: BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // inotify needs a path. This one leads to the opened directory, not to the directory that has its name by now.
        let root = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        inotify.add_watch(&root, mask())?;
        let watch = Arc::new(InotifyWatch { inotify, inbox });
        *self.lock() = WatcherState {
            watch: Some(watch.clone()),
            ..WatcherState::default()
        };
        // Added last, so that the watch exists when an event is reported.
        self.watch_events(&watch)?;
        let watcher = self.clone();
        Ok(Box::new(WatchGuard { watcher, watch }))
    }

    fn catch_up(&self) {
        let mut state = self.lock();
        let mut count = 0;
        // Somebody may be faster than this; there is a next time, or a scan.
        while let Some(watch) = &state.watch
            && count < MOST
        {
            let part = watch.read_events();
            count += part;
            if part < FEW {
                break;
            }
        }
        if state.flooded && count < CALM {
            // Events that came meanwhile cause a new edge.
            let watch = state.watch.as_ref();
            state.flooded = watch.is_some_and(|watch| self.watch_events(watch).is_err());
        }
    }

    fn is_flooded(&self) -> bool {
        self.lock().flooded
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let watch = &mut self.watcher.lock().watch;
        if watch
            .as_ref()
            .is_some_and(|watch| Arc::ptr_eq(watch, &self.watch))
        {
            *watch = None;
        }
    }
}

impl WatcherState {
    /// Counts new events.
    fn is_flood(&mut self, new: usize, now: Instant) -> bool {
        let (since, count) = match self.recent {
            Some((since, count)) if now < since + FLOOD_TIME => (since, count + new),
            _ => (now, new),
        };
        self.recent = Some((since, count));
        count > FLOOD
    }
}

impl InotifyWatch {
    /// Reads a part of the events, and returns their number. With at least [`FEW`] there may be more.
    fn read_events(&self) -> usize {
        match self.inotify.read_events() {
            Ok(events) => {
                self.inbox.collect(|batch| {
                    for event in &events {
                        sort(event.mask, event.name.as_deref(), batch);
                    }
                });
                events.len()
            }
            Err(Errno::EAGAIN) => 0,
            Err(Errno::EINTR) => FEW,
            Err(_) => {
                self.inbox.collect(|batch| batch.rescan = true); // events may be lost
                0
            }
        }
    }
}

impl From<Errno> for WatchError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ENOSPC => Self::Watches,
            Errno::EMFILE | Errno::ENFILE => Self::Instances,
            error => Self::Other(error),
        }
    }
}

/// The watched events. Reading a file is not among them.
fn mask() -> AddWatchFlags {
    let files = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE;
    let directory = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    files | directory | AddWatchFlags::IN_ONLYDIR
}

/// Never waits: at 100,000 touches a second the kernel's queue overflows after 55 ms.
fn sort(mask: AddWatchFlags, name: Option<&OsStr>, batch: &mut CollectedEvents) {
    match name {
        None if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) => batch.rescan = true,
        None if is_end(mask) => batch.moved = true,
        None => {}
        Some(name) => match kind(mask) {
            Some(Event::Attributes) if name == stamp::FILE_NAME => batch.fence = true,
            Some(kind) if is_channel_file(name) => batch.push(name, kind),
            _ => {}
        },
    }
}

/// Whether this event of the directory itself means that it is no longer at its path.
fn is_end(mask: AddWatchFlags) -> bool {
    mask.intersects(
        AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT
            | AddWatchFlags::IN_IGNORED,
    )
}

/// The kind of an event; each event has exactly one.
fn kind(mask: AddWatchFlags) -> Option<Event> {
    const GONE: AddWatchFlags = AddWatchFlags::IN_DELETE.union(AddWatchFlags::IN_MOVED_FROM);
    [
        (AddWatchFlags::IN_CREATE, Event::Created),
        (AddWatchFlags::IN_MODIFY, Event::Modified),
        (AddWatchFlags::IN_CLOSE_WRITE, Event::Closed),
        (AddWatchFlags::IN_ATTRIB, Event::Attributes),
        (AddWatchFlags::IN_MOVED_TO, Event::MovedTo),
        (GONE, Event::Gone),
    ]
    .into_iter()
    .find_map(|(bits, event)| mask.intersects(bits).then_some(event))
}

#[cfg(test)]
mod tests;

//! Watching one directory with inotify. It has no thread of its own: to be woken by another thread takes longer than all
//! that a touch needs. One that holds browsers hears of it.

use std::{
    any::Any,
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
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
    SUFFIX,
    inbox::{Event, Inbox},
    stamp,
};
use crate::hub::Workers;

/// Events that fit into what nix reads at once, when all names are as long as can be. When fewer were read, that was all.
const FEW: usize = 4096 / (16 + 256);

/// More events in so much time are a flood, which is over when so few have come in a millisecond.
const FLOOD: usize = 256;
const FLOOD_TIME: Duration = Duration::from_millis(4);
const CALM: usize = 32;

/// Events that are heard at once at most, twice as many as the kernel keeps by default.
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
    /// Whatever else inotify says.
    #[error("{}", .0.desc())]
    Other(Errno),
}

/// Tells an inbox what happens to the `*.comet` files of a directory.
pub(super) trait Watch: Send {
    /// Watches the directory behind this descriptor, whatever happens to its path, until the answer is dropped.
    fn start(
        &self,
        directory: BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError>;

    /// Tells the inbox of what has happened by now.
    fn catch_up(&self) {}

    /// Nobody else tells the inbox, since there is so much: [`Watch::catch_up`] is to be called every millisecond or so
    /// for as long as this is true.
    fn is_flooded(&self) -> bool {
        false
    }
}

/// Events that the kernel keeps until they are read, as it says.
pub(super) fn max_queued_events() -> String {
    let said = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
    said.map_or_else(|_| "unknown".into(), |said| said.trim().into())
}

/// What happens to the files, for a thread that waits in `epoll_wait`: an edge each time that there is something to
/// hear, also when another directory is watched by now.
pub struct Ears {
    /// Ready when the inotify instance in it is.
    epoll: Epoll,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ear: Option<Arc<Ear>>,
    /// How many events were heard since then.
    recent: Option<(Instant, usize)>,
    /// The thread that waits has browsers to serve, and hears nothing more for now.
    flooded: bool,
}

/// One directory that is watched.
struct Ear {
    inotify: Inotify,
    inbox: Arc<Inbox>,
}

/// How [`Ears::hear`] went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// There may be more, of which no new edge tells.
    pub more: bool,
    /// Who has something to deliver because of it.
    pub woken: Workers,
}

/// Ends the watch when it is dropped.
struct Listening {
    ears: Arc<Ears>,
    ear: Arc<Ear>,
}

impl Ears {
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            state: Mutex::default(),
        }))
    }

    /// Deals with what has happened, or with the first part of it.
    pub fn hear(&self) -> Heard {
        let mut state = self.lock();
        let Some(ear) = state.ear.clone() else {
            return Heard::default();
        };
        if state.flooded {
            return Heard::default();
        }
        let count = ear.hear();
        // Each event would wake the thread that waits.
        state.flooded =
            state.is_flood(count, Instant::now()) && self.epoll.delete(&ear.inotify).is_ok();
        if state.flooded {
            ear.inbox.call();
        }
        Heard {
            more: count >= FEW && !state.flooded,
            woken: ear.inbox.take_woken(),
        }
    }

    fn listen(&self, ear: &Ear) -> nix::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.epoll.add(&ear.inotify, event)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread has failed in here")
    }
}

/// What to wait for.
impl AsFd for Ears {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Watch for Arc<Ears> {
    fn start(
        &self,
        directory: BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // inotify wants a path. This one leads to the directory that was opened, not to what has its name by now.
        let root = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        inotify.add_watch(&root, mask())?;
        let ear = Arc::new(Ear { inotify, inbox });
        *self.lock() = State {
            ear: Some(ear.clone()),
            ..State::default()
        };
        // Only now: whoever is told of an event finds the ear there.
        self.listen(&ear)?;
        let ears = self.clone();
        Ok(Box::new(Listening { ears, ear }))
    }

    fn catch_up(&self) {
        let mut state = self.lock();
        let mut count = 0;
        // Somebody may be faster than this; there is a next time, or a scan.
        while let Some(ear) = &state.ear
            && count < MOST
        {
            let part = ear.hear();
            count += part;
            if part < FEW {
                break;
            }
        }
        if state.flooded && count < CALM {
            // What has come since is an edge.
            let ear = state.ear.as_ref();
            state.flooded = ear.is_some_and(|ear| self.listen(ear).is_err());
        }
    }

    fn is_flooded(&self) -> bool {
        self.lock().flooded
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let ear = &mut self.ears.lock().ear;
        if ear.as_ref().is_some_and(|ear| Arc::ptr_eq(ear, &self.ear)) {
            *ear = None;
        }
    }
}

impl State {
    /// So many events are new.
    fn is_flood(&mut self, new: usize, now: Instant) -> bool {
        let (since, count) = match self.recent {
            Some((since, count)) if now < since + FLOOD_TIME => (since, count + new),
            _ => (now, new),
        };
        self.recent = Some((since, count));
        count > FLOOD
    }
}

impl Ear {
    /// Hears a part, and says how many events those were. At least [`FEW`]: there may be more.
    fn hear(&self) -> usize {
        match self.inotify.read_events() {
            Ok(events) => {
                for event in &events {
                    sort(event.mask, event.name.as_deref(), &self.inbox);
                }
                events.len()
            }
            Err(Errno::EAGAIN) => 0,
            Err(Errno::EINTR) => FEW,
            Err(_) => {
                self.inbox.rescan(); // nobody knows what was missed
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

/// Reading says nothing.
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

/// Must never wait: 55 ms at 100,000 touches a second overflow the kernel's queue.
fn sort(mask: AddWatchFlags, name: Option<&OsStr>, inbox: &Inbox) {
    match name {
        None if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) => inbox.rescan(),
        None if is_end(mask) => inbox.moved(),
        None => {}
        Some(name) => match kind(mask) {
            Some(Event::Attributes) if name == stamp::FILE_NAME => inbox.fence(),
            Some(kind) if is_signal(name) => inbox.push(name, kind),
            _ => {}
        },
    }
}

/// Whether this, of the directory itself, means that it is not at its path any more.
fn is_end(mask: AddWatchFlags) -> bool {
    mask.intersects(
        AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT
            | AddWatchFlags::IN_IGNORED,
    )
}

/// One event has one of these.
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

/// Hidden files are temporary files of those who write.
pub(super) fn is_signal(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX.as_bytes()) && !name.as_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests;

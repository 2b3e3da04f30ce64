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

    /// Tells the inbox of all that has happened by now.
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
        while let Some(ear) = &state.ear {
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
mod tests {
    use std::fs::{self, File};

    use nix::sys::epoll::EpollTimeout;

    use super::{
        super::inbox::{Batch, Events},
        *,
    };

    fn sorted(mask: AddWatchFlags, name: Option<&str>) -> Batch {
        let inbox = Inbox::default();
        sort(mask, name.map(OsStr::new), &inbox);
        inbox.take()
    }

    #[test]
    fn takes_visible_comet_files_alone() {
        for (name, taken) in [
            ("news.comet", 1),
            ("bad name.comet", 1),
            (".comet", 0),
            (".news.comet", 0),
            ("news.comet~", 0),
            ("news", 0),
        ] {
            let batch = sorted(AddWatchFlags::IN_CREATE, Some(name));
            assert_eq!(batch.names.len(), taken, "{name}");
        }
    }

    #[test]
    fn knows_what_happens_to_the_directory_itself() {
        for end in [
            AddWatchFlags::IN_DELETE_SELF,
            AddWatchFlags::IN_MOVE_SELF,
            AddWatchFlags::IN_UNMOUNT | AddWatchFlags::IN_ISDIR,
            AddWatchFlags::IN_IGNORED,
        ] {
            assert!(sorted(end, None).moved, "{end:?}");
        }
        let batch = sorted(AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_ISDIR, None);
        assert!(!batch.moved && batch.names.is_empty());
    }

    #[test]
    fn takes_a_touch_of_the_stamp_as_a_fence() {
        assert!(sorted(AddWatchFlags::IN_ATTRIB, Some(".comet-seen")).fence);
        assert!(!sorted(AddWatchFlags::IN_CREATE, Some(".comet-seen")).fence);
    }

    #[test]
    fn asks_for_a_rescan_when_events_were_lost() {
        assert!(sorted(AddWatchFlags::IN_Q_OVERFLOW, None).rescan);
    }

    struct Fixture {
        root: tempfile::TempDir,
        ears: Arc<Ears>,
        inbox: Arc<Inbox>,
        _watch: Box<dyn Any + Send>,
    }

    impl Fixture {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let (ears, inbox) = (Ears::new().unwrap(), Arc::<Inbox>::default());
            let directory = File::open(root.path()).unwrap();
            let _watch = ears.start(directory.as_fd(), inbox.clone()).unwrap();
            Self {
                root,
                ears,
                inbox,
                _watch,
            }
        }

        fn write(&self, name: &str) {
            fs::write(self.root.path().join(name), "").unwrap();
        }

        fn heard(&self) -> Vec<(Arc<OsStr>, Events)> {
            self.inbox.take().names
        }
    }

    /// As the loop of a thread.
    fn waiting(ears: &Ears) -> Epoll {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(ears, EpollEvent::new(flags, 0)).unwrap();
        epoll
    }

    fn is_told(epoll: &Epoll) -> bool {
        let mut events = [EpollEvent::empty()];
        epoll.wait(&mut events, EpollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn hears_writers_and_no_readers() {
        let f = Fixture::new();
        f.write("news.comet");
        assert!(!f.ears.hear().more);
        let heard = f.heard();
        assert_eq!(heard.len(), 1);
        assert!(heard[0].1.closed);
        fs::read(f.root.path().join("news.comet")).unwrap();
        assert!(!is_told(&waiting(&f.ears)));
    }

    #[test]
    fn tells_the_thread_that_waits_of_everything_new() {
        let f = Fixture::new();
        let thread = waiting(&f.ears);
        for round in 0..3 {
            assert!(!is_told(&thread), "round {round}");
            f.write("news.comet");
            assert!(is_told(&thread), "round {round}");
            f.write("other.comet");
            assert!(is_told(&thread), "round {round}");
            assert!(!f.ears.hear().more);
            assert_eq!(f.heard().len(), 2);
        }
    }

    #[test]
    fn tells_another_thread_of_what_is_left() {
        let f = Fixture::new();
        f.write("news.comet");
        assert!(is_told(&waiting(&f.ears)));
        assert!(is_told(&waiting(&f.ears)));
    }

    impl Fixture {
        fn flood(&self) {
            (0..1000).for_each(|n| self.write(&format!("{n}.comet")));
        }
    }

    #[test]
    fn hears_a_flood_in_parts_and_leaves_the_most_of_it() {
        let f = Fixture::new();
        f.flood();
        assert!(f.ears.hear().more);
        while f.ears.hear().more {}
        assert!(f.ears.is_flooded());
        assert!(
            !is_told(&waiting(&f.ears)),
            "each event would wake the thread"
        );
        let heard = f.heard().len();
        assert!(heard < 1000, "{heard}");

        assert_eq!(f.ears.hear(), Heard::default());
        assert!(f.heard().is_empty());
        f.ears.catch_up();
        assert!(f.heard().len() >= 1000 - heard);
        assert!(f.ears.is_flooded(), "there were many once more");
    }

    #[test]
    fn after_a_flood_the_thread_that_waits_hears_again() {
        let f = Fixture::new();
        let thread = waiting(&f.ears);
        f.flood();
        while f.ears.hear().more {}
        while f.ears.is_flooded() {
            f.ears.catch_up();
        }
        f.heard();
        is_told(&thread);
        f.write("news.comet");
        assert!(is_told(&thread));
        f.ears.hear();
        assert_eq!(f.heard().len(), 1);
    }

    #[test]
    fn so_many_in_so_short_a_time_are_a_flood() {
        let (start, mut state) = (Instant::now(), State::default());
        assert!(!state.is_flood(FLOOD, start));
        assert!(state.is_flood(1, start));
        assert!(!state.is_flood(FLOOD, start + FLOOD_TIME), "a while later");
    }

    #[test]
    fn catches_up_with_all_that_has_happened() {
        let f = Fixture::new();
        for n in 0..100 {
            f.write(&format!("{n}.comet"));
        }
        f.ears.catch_up();
        assert_eq!(f.heard().len(), 100);
    }

    #[test]
    fn tells_of_another_directory_by_the_same_descriptor() {
        let mut f = Fixture::new();
        let thread = waiting(&f.ears);
        let other = tempfile::tempdir().unwrap();
        let directory = File::open(other.path()).unwrap();
        f._watch = f.ears.start(directory.as_fd(), f.inbox.clone()).unwrap();
        f.write("left.comet");
        assert!(!is_told(&thread));
        fs::write(other.path().join("right.comet"), "").unwrap();
        assert!(is_told(&thread));
        assert!(!f.ears.hear().more);
        assert_eq!(&*f.heard()[0].0, "right.comet");
    }

    #[test]
    fn watches_the_opened_directory_after_it_was_renamed() {
        let root = tempfile::tempdir().unwrap();
        let (old, new) = (root.path().join("old"), root.path().join("new"));
        fs::create_dir(&old).unwrap();
        let directory = File::open(&old).unwrap();
        let (ears, inbox) = (Ears::new().unwrap(), Arc::<Inbox>::default());
        fs::rename(&old, &new).unwrap();
        fs::create_dir(&old).unwrap();
        let _watch = ears.start(directory.as_fd(), inbox.clone()).unwrap();

        fs::write(old.join("wrong.comet"), "").unwrap();
        fs::write(new.join("right.comet"), "").unwrap();

        assert!(!ears.hear().more);
        let heard = inbox.take().names;
        assert_eq!(heard.len(), 1);
        assert_eq!(&*heard[0].0, "right.comet");
        assert!(heard[0].1.closed);
    }
}

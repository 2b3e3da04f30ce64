use std::fs::{self, File};

use nix::sys::epoll::EpollTimeout;

use super::{super::events::Events, *};

fn sorted(mask: AddWatchFlags, name: Option<&str>) -> CollectedEvents {
    let mut batch = CollectedEvents::default();
    sort(mask, name.map(OsStr::new), &mut batch);
    batch
}

#[test]
fn only_visible_comet_files_are_reported() {
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
fn a_moved_or_deleted_directory_is_reported() {
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
fn a_touch_of_the_stamp_is_a_fence() {
    assert!(sorted(AddWatchFlags::IN_ATTRIB, Some(".comet-seen")).fence);
    assert!(!sorted(AddWatchFlags::IN_CREATE, Some(".comet-seen")).fence);
}

#[test]
fn asks_for_a_rescan_when_events_were_lost() {
    assert!(sorted(AddWatchFlags::IN_Q_OVERFLOW, None).rescan);
}

struct Fixture {
    root: tempfile::TempDir,
    watcher: Arc<Watcher>,
    inbox: Arc<Inbox>,
    _watch: Box<dyn Any + Send>,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (watcher, inbox) = (Watcher::new().unwrap(), Arc::<Inbox>::default());
        let directory = File::open(root.path()).unwrap();
        let _watch = watcher.start(directory.as_fd(), inbox.clone()).unwrap();
        Self {
            root,
            watcher,
            inbox,
            _watch,
        }
    }

    fn write(&self, name: &str) {
        fs::write(self.root.path().join(name), "").unwrap();
    }

    fn events(&self) -> Vec<(Arc<OsStr>, Events)> {
        self.inbox.take().names
    }
}

/// Waits for the watcher like the loop of a worker.
fn epoll_of(watcher: &Watcher) -> Epoll {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    epoll.add(watcher, EpollEvent::new(flags, 0)).unwrap();
    epoll
}

fn is_ready(epoll: &Epoll) -> bool {
    let mut events = [EpollEvent::empty()];
    epoll.wait(&mut events, EpollTimeout::ZERO).unwrap() > 0
}

#[test]
fn writers_cause_events_and_readers_do_not() {
    let f = Fixture::new();
    f.write("news.comet");
    assert!(!f.watcher.read_events().more);
    let events = f.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].1.closed);
    fs::read(f.root.path().join("news.comet")).unwrap();
    assert!(!is_ready(&epoll_of(&f.watcher)));
}

#[test]
fn each_new_event_wakes_the_waiting_thread() {
    let f = Fixture::new();
    let thread = epoll_of(&f.watcher);
    for round in 0..3 {
        assert!(!is_ready(&thread), "round {round}");
        f.write("news.comet");
        assert!(is_ready(&thread), "round {round}");
        f.write("other.comet");
        assert!(is_ready(&thread), "round {round}");
        assert!(!f.watcher.read_events().more);
        assert_eq!(f.events().len(), 2);
    }
}

#[test]
fn another_thread_gets_the_events_that_are_left() {
    let f = Fixture::new();
    f.write("news.comet");
    assert!(is_ready(&epoll_of(&f.watcher)));
    assert!(is_ready(&epoll_of(&f.watcher)));
}

impl Fixture {
    fn flood(&self) {
        (0..1000).for_each(|n| self.write(&format!("{n}.comet")));
    }
}

#[test]
fn only_the_first_part_of_a_flood_is_read_at_once() {
    let f = Fixture::new();
    f.flood();
    assert!(f.watcher.read_events().more);
    while f.watcher.read_events().more {}
    assert!(f.watcher.is_flooded());
    assert!(
        !is_ready(&epoll_of(&f.watcher)),
        "each event would wake the thread"
    );
    let events = f.events().len();
    assert!(events < 1000, "{events}");

    assert_eq!(f.watcher.read_events(), EventsRead::default());
    assert!(f.events().is_empty());
    f.watcher.catch_up();
    assert!(f.events().len() >= 1000 - events);
    assert!(f.watcher.is_flooded(), "there were many once more");
}

#[test]
fn after_a_flood_new_events_wake_the_waiting_thread_again() {
    let f = Fixture::new();
    let thread = epoll_of(&f.watcher);
    f.flood();
    while f.watcher.read_events().more {}
    while f.watcher.is_flooded() {
        f.watcher.catch_up();
    }
    f.events();
    is_ready(&thread);
    f.write("news.comet");
    assert!(is_ready(&thread));
    f.watcher.read_events();
    assert_eq!(f.events().len(), 1);
}

#[test]
fn more_than_the_limit_of_events_in_a_short_time_is_a_flood() {
    let (start, mut state) = (Instant::now(), WatcherState::default());
    assert!(!state.is_flood(FLOOD, start));
    assert!(state.is_flood(1, start));
    assert!(!state.is_flood(FLOOD, start + FLOOD_TIME), "a while later");
}

#[test]
fn catching_up_reads_all_events() {
    let f = Fixture::new();
    for n in 0..100 {
        f.write(&format!("{n}.comet"));
    }
    f.watcher.catch_up();
    assert_eq!(f.events().len(), 100);
}

#[test]
fn the_same_descriptor_reports_events_of_the_next_directory() {
    let mut f = Fixture::new();
    let thread = epoll_of(&f.watcher);
    let other = tempfile::tempdir().unwrap();
    let directory = File::open(other.path()).unwrap();
    f._watch = f.watcher.start(directory.as_fd(), f.inbox.clone()).unwrap();
    f.write("left.comet");
    assert!(!is_ready(&thread));
    fs::write(other.path().join("right.comet"), "").unwrap();
    assert!(is_ready(&thread));
    assert!(!f.watcher.read_events().more);
    assert_eq!(&*f.events()[0].0, "right.comet");
}

#[test]
fn watches_the_opened_directory_after_it_was_renamed() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    fs::create_dir(&old).unwrap();
    let directory = File::open(&old).unwrap();
    let (watcher, inbox) = (Watcher::new().unwrap(), Arc::<Inbox>::default());
    fs::rename(&old, &new).unwrap();
    fs::create_dir(&old).unwrap();
    let _watch = watcher.start(directory.as_fd(), inbox.clone()).unwrap();

    fs::write(old.join("wrong.comet"), "").unwrap();
    fs::write(new.join("right.comet"), "").unwrap();

    assert!(!watcher.read_events().more);
    let events = inbox.take().names;
    assert_eq!(events.len(), 1);
    assert_eq!(&*events[0].0, "right.comet");
    assert!(events[0].1.closed);
}

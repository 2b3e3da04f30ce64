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

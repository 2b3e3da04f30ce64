//! With time given by hand, and events too where the real ones cannot be made to come in a certain order.

use std::{
    any::Any,
    fs::{self, File},
    os::unix::fs::symlink,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use comet_proto::Cursor;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{stat::futimens, time::TimeSpec},
};

use super::{
    inbox::{Event, Events},
    inotify::WatchError,
    *,
};
use crate::hub::HistoryConfig;

/// Hears only what a test says.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Arc<Inbox>>>);

impl Watch for Told {
    fn start(
        &self,
        _: std::os::fd::BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = inbox;
        Ok(Box::new(()))
    }
}

/// As inotify at its limits, until there is room.
#[derive(Clone, Default)]
struct Refusing {
    has_room: Arc<AtomicBool>,
    told: Told,
}

impl Watch for Refusing {
    fn start(
        &self,
        directory: std::os::fd::BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError> {
        match self.has_room.load(Ordering::Relaxed) {
            true => self.told.start(directory, inbox),
            false => Err(WatchError::Watches),
        }
    }
}

struct Fixture {
    root: tempfile::TempDir,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            hub: Hub::new(HistoryConfig::default(), 1),
            metrics: Arc::default(),
            start: Instant::now(),
        }
    }

    fn open(&self) -> Files {
        self.open_with(Box::new(Told::default()))
    }

    fn open_with(&self, watch: Box<dyn Watch>) -> Files {
        let terms = Terms::new(&Config::parse("[files]\nmax_bytes = 100").unwrap());
        let (hub, metrics) = (self.hub.clone(), self.metrics.clone());
        Files::open_with(watch, self.root.path(), terms, hub, metrics).unwrap()
    }

    fn path(&self, channel: &str) -> PathBuf {
        self.root.path().join(format!("{channel}.comet"))
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_millis(milliseconds)
    }

    fn told(&self, channel: &str) -> Vec<String> {
        let names = [ChannelName::parse(channel).unwrap()];
        let backlog = self.hub.since(&names, Cursor(0));
        let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
        backlog
            .messages
            .iter()
            .map(|message| text(&message.data))
            .collect()
    }

    /// What the stamp says.
    fn stamp(&self) -> String {
        fs::read_to_string(self.root.path().join(stamp::FILE_NAME)).unwrap()
    }
}

impl Files {
    fn hear_at(&mut self, channel: &str, list: &[Event], now: Instant) {
        let mut events = Events::default();
        list.iter().for_each(|event| events.add(*event));
        let file = format!("{channel}{SUFFIX}");
        let directory = &self.watched.as_ref().unwrap().directory;
        self.signals.heard(directory, file.as_ref(), events, now);
    }

    fn expire_at(&mut self, now: Instant) {
        self.signals
            .expire(&self.watched.as_ref().unwrap().directory, now);
    }
}

fn touch(path: &Path) {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    futimens(file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW).unwrap();
}

#[test]
fn a_file_that_takes_the_place_of_one_that_waits_is_told_when_it_is_closed() {
    let fixture = Fixture::new();
    let mut files = fixture.open();
    fs::write(fixture.path("news"), "").unwrap();
    files.hear_at("news", &[Event::Created, Event::Closed], fixture.at(0));
    fs::remove_file(fixture.path("news")).unwrap();
    fs::write(fixture.path("news"), "new").unwrap();
    let replaced = [Event::Gone, Event::Created, Event::Modified];
    files.hear_at("news", &replaced, fixture.at(1));
    files.expire_at(fixture.at(10));
    assert_eq!(files.signals.pending.next(), None); // nothing to come back for before the close
    assert!(fixture.told("news").is_empty());
    files.hear_at("news", &[Event::Closed], fixture.at(11));
    assert_eq!(fixture.told("news"), ["new"]);
}

#[test]
fn a_new_empty_file_is_told_when_its_window_is_over() {
    let f = Fixture::new();
    let mut files = f.open();
    File::create(f.path("news")).unwrap();
    files.hear_at("news", &[Event::Created, Event::Closed], f.at(0));
    files.expire_at(f.at(1));
    assert_eq!(f.told("news").len(), 0);
    files.expire_at(f.at(2));
    assert_eq!(f.told("news").len(), 1);
    files.expire_at(f.at(2000));
    assert_eq!(f.told("news").len(), 1);
}

#[test]
fn times_that_are_set_within_the_window_end_it() {
    let f = Fixture::new();
    let mut files = f.open();
    File::create(f.path("news")).unwrap();
    files.hear_at("news", &[Event::Created, Event::Closed], f.at(0));
    touch(&f.path("news"));
    files.hear_at("news", &[Event::Attributes], f.at(1));
    assert_eq!(f.told("news").len(), 1);
    files.expire_at(f.at(2000));
    assert_eq!(f.told("news").len(), 1);
}

#[test]
fn an_event_that_comes_late_adds_nothing_to_what_was_seen() {
    let f = Fixture::new();
    let mut files = f.open();
    touch(&f.path("news"));
    files.hear_at("news", &[Event::Created, Event::Attributes], f.at(0));
    files.expire_at(f.at(2));
    assert_eq!(f.told("news").len(), 1);
    files.hear_at("news", &[Event::Closed], f.at(500));
    files.expire_at(f.at(2000));
    assert_eq!(f.told("news").len(), 1);
}

#[test]
fn touches_within_a_millisecond_become_one() {
    let f = Fixture::new();
    let mut files = f.open();
    for n in 0..100 {
        fs::write(f.path("news"), n.to_string()).unwrap();
        let now = f.start + Duration::from_micros(n);
        files.hear_at("news", &[Event::Modified, Event::Closed], now);
    }
    assert_eq!(f.told("news"), ["0"]);
    files.expire_at(f.at(1));
    assert_eq!(f.told("news"), ["0", "99"]);
    files.expire_at(f.at(2000));
    assert_eq!(f.told("news").len(), 2);
}

#[test]
fn a_locked_file_is_left_alone_for_a_second() {
    let f = Fixture::new();
    let mut files = f.open();
    fs::write(f.path("news"), "x").unwrap();
    let file = File::open(f.path("news")).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    files.hear_at("news", &[Event::Modified, Event::Closed], f.at(0));
    for ms in 1..1000 {
        files.expire_at(f.at(ms));
    }
    assert_eq!(f.told("news").len(), 0);
    files.expire_at(f.at(1002));
    assert_eq!(f.told("news"), ["x"]);
    drop(lock);
}

#[test]
fn where_time_stamps_are_coarse_a_second_touch_is_told_all_the_same() {
    let f = Fixture::new();
    let mut files = f.open();
    files.signals.reset(false);
    touch(&f.path("news"));
    // The second touch within a step of the time stamps leaves the same state behind as the first.
    files.hear_at("news", &[Event::Attributes], f.at(0));
    files.hear_at("news", &[Event::Closed], f.at(1));
    assert_eq!(f.told("news").len(), 1);
    files.hear_at("news", &[Event::Attributes], f.at(2));
    files.hear_at("news", &[Event::Closed], f.at(3));
    assert_eq!(f.told("news").len(), 2);
}

#[tokio::test]
async fn the_stamp_waits_until_all_before_it_was_told() {
    let f = Fixture::new();
    let mut files = f.open();
    let first = f.stamp();
    File::create(f.path("news")).unwrap();
    files.inbox.push("news.comet".as_ref(), Event::Created);
    files.inbox.push("news.comet".as_ref(), Event::Closed);
    files.begin_checkpoint();
    files.work().await;
    assert_eq!(f.stamp(), first, "the watcher may have more to tell");
    files.inbox.fence();
    files.work().await;
    let decided = !f.told("news").is_empty(); // the two calls took 2 ms, on a slow day
    assert!(decided || f.stamp() == first, "a file waits for its window");

    files.expire_at(Instant::now() + Duration::from_secs(1));
    files.write_checkpoint();
    assert_eq!(f.told("news").len(), 1);
    assert_ne!(f.stamp(), first);
}

#[tokio::test]
async fn the_stamp_names_the_files_that_are_being_written() {
    let f = Fixture::new();
    let mut files = f.open();
    fs::write(f.path("news"), "x").unwrap();
    files.inbox.push("news.comet".as_ref(), Event::Modified);
    files.begin_checkpoint();
    files.inbox.fence();
    files.work().await;
    assert!(f.stamp().ends_with("\nnews\n.\n"), "{}", f.stamp());
    files.inbox.push("news.comet".as_ref(), Event::Closed);
    files.work().await;
    files.finish().await;
    assert!(!f.stamp().contains("news"), "{}", f.stamp());
    assert_eq!(f.told("news"), ["x"]);
}

#[tokio::test]
async fn what_was_not_heard_before_a_crash_is_told_after_it() {
    let f = Fixture::new();
    let mut files = f.open();
    fs::write(f.path("news"), "x").unwrap();
    files.checkpoint.due = 2;
    files.begin_checkpoint();
    files.work().await; // neither the file nor the fence was heard of
    drop(files);
    let _files = f.open();
    assert_eq!(f.told("news"), ["x"]);
}

#[tokio::test]
async fn a_flood_leaves_keys_to_others() {
    let f = Fixture::new();
    let mut files = f.open();
    let (mut keys, now) = (0, Instant::now());
    for n in 0..100_000 {
        let now = now + Duration::from_millis(6 * n); // ten minutes
        keys += u32::from(files.signals.keys.take(now));
    }
    assert!((30_000..=32_768).contains(&keys), "{keys}");
}

#[tokio::test]
async fn what_was_told_long_before_a_crash_is_not_told_after_it() {
    let f = Fixture::new();
    fs::write(f.path("news"), "x").unwrap();
    let mut files = f.open();
    files.finish().await;
    drop(files);
    let _files = f.open();
    assert_eq!(f.told("news").len(), 0);
}

#[tokio::test]
async fn a_clock_that_was_set_back_hides_nothing() {
    let f = Fixture::new();
    fs::write(f.path("news"), "x").unwrap();
    let in_a_year_or_so = f.open().told_until + 30_000_000_000_000_000;
    fs::write(
        f.root.path().join(stamp::FILE_NAME),
        format!("{in_a_year_or_so}\n.\n"),
    )
    .unwrap();
    let mut files = f.open();
    assert_eq!(f.told("news"), ["x"]);
    files.finish().await;
    drop(files);
    let _files = f.open();
    assert_eq!(f.told("news").len(), 1);
}

#[tokio::test]
async fn a_deleted_stamp_is_made_again() {
    let f = Fixture::new();
    let mut files = f.open();
    let first = f.stamp();
    fs::remove_file(f.root.path().join(stamp::FILE_NAME)).unwrap();
    files.begin_checkpoint();
    assert_eq!(f.stamp(), first);
    files.inbox.fence();
    files.work().await;
    assert_ne!(f.stamp(), first);
}

#[tokio::test]
async fn the_stamp_stays_when_a_scan_failed() {
    let f = Fixture::new();
    let mut files = f.open();
    let first = f.stamp();
    files.scan_failed(Errno::EIO);
    files.begin_checkpoint();
    files.inbox.fence();
    files.work().await;
    files.finish().await;
    assert_eq!(f.stamp(), first);
    files.compare_directory().await;
    files.finish().await;
    assert_ne!(f.stamp(), first);
}

#[tokio::test]
async fn works_where_no_stamp_can_be_kept() {
    let f = Fixture::new();
    symlink("/etc/hostname", f.root.path().join(stamp::FILE_NAME)).unwrap();
    fs::write(f.path("old"), "x").unwrap();
    let second = Duration::from_secs(1);
    File::open(f.path("old")).unwrap();
    while fs::metadata(f.path("old"))
        .unwrap()
        .modified()
        .unwrap()
        .elapsed()
        .unwrap()
        < second / 20
    {
        std::thread::yield_now(); // so old that no clock is in doubt about it
    }
    let mut files = f.open();
    assert_eq!(f.told("old").len(), 0);
    fs::write(f.path("news"), "x").unwrap();
    files.hear_at(
        "news",
        &[Event::Created, Event::Modified, Event::Closed],
        f.at(0),
    );
    assert_eq!(f.told("news"), ["x"]);
    files.begin_checkpoint();
    files.finish().await;
}

#[tokio::test]
async fn a_scan_lets_others_go_on() {
    let f = Fixture::new();
    let mut files = f.open();
    for n in 0..10 * SLICE {
        File::create(f.path(&n.to_string())).unwrap();
    }
    let mut turns = 0;
    let others = async {
        loop {
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = others => {}
        () = files.scan(HashSet::new(), HashSet::new()) => {}
    }
    assert!(turns >= 10, "{turns}");
    assert_eq!(f.metrics.published_files.get(), 10 * SLICE as u64);
}

#[tokio::test]
async fn a_rescan_tells_what_had_begun_and_nothing_twice() {
    let f = Fixture::new();
    let mut files = f.open();
    File::create(f.path("begun")).unwrap();
    fs::write(f.path("told"), "x").unwrap();
    files.hear_at("begun", &[Event::Created], f.at(0));
    files.hear_at("told", &[Event::Modified, Event::Closed], f.at(0));
    fs::write(f.path("missed"), "x").unwrap();
    files.inbox.rescan();
    files.work().await;
    let count = |channel: &str| f.told(channel).len();
    assert_eq!(["begun", "told", "missed"].map(count), [1, 1, 1]);
    assert_eq!(f.metrics.files_rescans.get(), 1);
}

#[tokio::test]
async fn what_needs_no_waiting_is_told_by_who_hears_it() {
    let f = Fixture::new();
    let files = f.open();
    let inbox = files.inbox.clone();
    inbox.lend(Box::new(files));
    touch(&f.path("news"));
    inbox.push("news.comet".as_ref(), Event::Attributes);
    inbox.push("news.comet".as_ref(), Event::Closed);
    assert_eq!(f.told("news").len(), 1);
    let woken = |inbox: Arc<Inbox>| async move {
        tokio::select! {
            biased;
            () = inbox.changed() => true,
            () = tokio::task::yield_now() => false,
        }
    };
    assert!(!woken(inbox.clone()).await);

    // Whether it is a touch shows in a moment only.
    File::create(f.path("new")).unwrap();
    inbox.push("new.comet".as_ref(), Event::Created);
    inbox.push("new.comet".as_ref(), Event::Closed);
    assert!(woken(inbox.clone()).await);
    let mut files = inbox.take_back();
    files.expire_at(Instant::now() + Duration::from_secs(1));
    assert_eq!(f.told("new").len(), 1);
    files.finish().await;
}

#[tokio::test]
async fn a_flood_is_gathered() {
    let f = Fixture::new();
    let files = f.open();
    let inbox = files.inbox.clone();
    inbox.lend(Box::new(files));
    let mut waiting = 0;
    while waiting == 0 {
        for n in 0..10 * AT_ONCE {
            inbox.push(format!("{n}.comet").as_ref(), Event::Closed);
        }
        waiting = inbox.take().names.len(); // less than that many in a millisecond, and none is left
    }
    inbox.take_back().finish().await;
}

#[tokio::test]
async fn what_inotify_refuses_to_watch_is_compared_until_it_does_not() {
    let f = Fixture::new();
    let refusing = Refusing::default();
    fs::write(f.path("old"), "x").unwrap();
    let mut files = f.open_with(Box::new(refusing.clone()));
    assert_eq!(f.metrics.files_polling.get(), 1);
    for n in 0..3 {
        fs::write(f.path("news"), n.to_string()).unwrap();
        while f.told("news").len() == n {
            files.compare_directory().await; // not at once: a pause follows each
        }
    }
    assert_eq!(f.told("news"), ["0", "1", "2"]);

    refusing.has_room.store(true, Ordering::Relaxed);
    fs::write(f.path("news"), "3").unwrap();
    while f.metrics.files_polling.get() == 1 {
        files.compare_directory().await;
    }
    fs::write(f.path("news"), "4").unwrap();
    files.inbox.push("news.comet".as_ref(), Event::Modified);
    files.inbox.push("news.comet".as_ref(), Event::Closed);
    files.work().await;
    files.expire_at(Instant::now() + Duration::from_secs(1));
    assert_eq!(f.told("news"), ["0", "1", "2", "3", "4"]);

    // What was told by comparing is not told again after a crash, what was not heard of is.
    drop(files);
    fs::write(f.path("late"), "x").unwrap();
    let _files = f.open();
    assert_eq!(f.told("late"), ["x"]);
    assert_eq!(f.told("news")[..5], ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_planted_stamp_is_replaced_when_it_is_gone() {
    let f = Fixture::new();
    let planted = f.root.path().join(stamp::FILE_NAME);
    fs::create_dir(&planted).unwrap();
    let mut files = f.open();
    files.begin_checkpoint();
    assert!(files.stamp().is_none());
    fs::remove_dir(&planted).unwrap();
    files.begin_checkpoint();
    assert!(files.stamp().is_some());
    assert!(f.stamp().ends_with(".\n"), "{}", f.stamp());
}

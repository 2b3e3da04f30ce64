//! Time is passed in by the test. So are the events of tests that need them in a certain order.

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
    events::{Event, Events},
    inotify::WatchError,
    names::SUFFIX,
    *,
};
use crate::{
    broker::{Local, Receipt, SourceKind},
    hub::{HistoryConfig, NewMessage},
};

/// A watcher without inotify: a test puts the events into the inbox.
#[derive(Clone, Default)]
struct ScriptedWatch(Arc<Mutex<Arc<Inbox>>>);

impl Watch for ScriptedWatch {
    fn start(
        &self,
        _: std::os::fd::BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = inbox;
        Ok(Box::new(()))
    }
}

/// A watcher like inotify at its limits: it refuses to start until `has_room` is true.
#[derive(Clone, Default)]
struct Refusing {
    has_room: Arc<AtomicBool>,
    scripted: ScriptedWatch,
}

impl Watch for Refusing {
    fn start(
        &self,
        directory: std::os::fd::BorrowedFd<'_>,
        inbox: Arc<Inbox>,
    ) -> Result<Box<dyn Any + Send>, WatchError> {
        match self.has_room.load(Ordering::Relaxed) {
            true => self.scripted.start(directory, inbox),
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
        self.open_with(Box::new(ScriptedWatch::default()))
    }

    fn open_with(&self, watch: Box<dyn Watch>) -> Files {
        self.open_on(watch, Local::new(self.hub.clone()))
    }

    fn open_on(&self, watch: Box<dyn Watch>, broker: Arc<dyn Broker>) -> Files {
        let rules = FileRules::new(&Config::parse("[files]\nmax_bytes = 100").unwrap());
        let (hub, metrics) = (&self.hub, self.metrics.clone());
        Files::open_with(watch, self.root.path(), rules, hub, broker, metrics).unwrap()
    }

    fn path(&self, channel: &str) -> PathBuf {
        self.root.path().join(format!("{channel}.comet"))
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_millis(milliseconds)
    }

    fn published(&self, channel: &str) -> Vec<String> {
        let names = [ChannelName::parse(channel).unwrap()];
        let backlog = self.hub.since(&names, Cursor(0));
        let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
        backlog
            .messages
            .iter()
            .map(|message| text(&message.data))
            .collect()
    }

    /// The content of the stamp file.
    fn stamp(&self) -> String {
        fs::read_to_string(self.root.path().join(stamp::FILE_NAME)).unwrap()
    }
}

impl Files {
    fn handle_at(&mut self, channel: &str, list: &[Event], now: Instant) {
        let mut events = Events::default();
        list.iter().for_each(|event| events.add(*event));
        let file = format!("{channel}{SUFFIX}");
        let directory = &self.watched.as_ref().unwrap().directory;
        self.signals
            .handle_events(directory, file.as_ref(), events, now);
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
fn a_new_file_with_the_name_of_a_waiting_one_is_published_when_closed() {
    let fixture = Fixture::new();
    let mut files = fixture.open();
    fs::write(fixture.path("news"), "").unwrap();
    files.handle_at("news", &[Event::Created, Event::Closed], fixture.at(0));
    fs::remove_file(fixture.path("news")).unwrap();
    fs::write(fixture.path("news"), "new").unwrap();
    let replaced = [Event::Gone, Event::Created, Event::Modified];
    files.handle_at("news", &replaced, fixture.at(1));
    files.expire_at(fixture.at(10));
    assert_eq!(files.signals.pending.next(), None); // nothing is due before the close
    assert!(fixture.published("news").is_empty());
    files.handle_at("news", &[Event::Closed], fixture.at(11));
    assert_eq!(fixture.published("news"), ["new"]);
}

#[test]
fn a_new_empty_file_is_published_when_its_window_is_over() {
    let f = Fixture::new();
    let mut files = f.open();
    File::create(f.path("news")).unwrap();
    files.handle_at("news", &[Event::Created, Event::Closed], f.at(0));
    files.expire_at(f.at(1));
    assert_eq!(f.published("news").len(), 0);
    files.expire_at(f.at(2));
    assert_eq!(f.published("news").len(), 1);
    files.expire_at(f.at(2000));
    assert_eq!(f.published("news").len(), 1);
}

#[test]
fn setting_the_times_ends_the_window() {
    let f = Fixture::new();
    let mut files = f.open();
    File::create(f.path("news")).unwrap();
    files.handle_at("news", &[Event::Created, Event::Closed], f.at(0));
    touch(&f.path("news"));
    files.handle_at("news", &[Event::Attributes], f.at(1));
    assert_eq!(f.published("news").len(), 1);
    files.expire_at(f.at(2000));
    assert_eq!(f.published("news").len(), 1);
}

#[test]
fn a_late_event_of_a_published_state_publishes_nothing() {
    let f = Fixture::new();
    let mut files = f.open();
    touch(&f.path("news"));
    files.handle_at("news", &[Event::Created, Event::Attributes], f.at(0));
    files.expire_at(f.at(2));
    assert_eq!(f.published("news").len(), 1);
    files.handle_at("news", &[Event::Closed], f.at(500));
    files.expire_at(f.at(2000));
    assert_eq!(f.published("news").len(), 1);
}

#[test]
fn touches_within_a_millisecond_become_one_message() {
    let f = Fixture::new();
    let mut files = f.open();
    for n in 0..100 {
        fs::write(f.path("news"), n.to_string()).unwrap();
        let now = f.start + Duration::from_micros(n);
        files.handle_at("news", &[Event::Modified, Event::Closed], now);
    }
    assert_eq!(f.published("news"), ["0"]);
    files.expire_at(f.at(1));
    assert_eq!(f.published("news"), ["0", "99"]);
    files.expire_at(f.at(2000));
    assert_eq!(f.published("news").len(), 2);
}

#[test]
fn a_locked_file_is_left_alone_for_a_second() {
    let f = Fixture::new();
    let mut files = f.open();
    fs::write(f.path("news"), "x").unwrap();
    let file = File::open(f.path("news")).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    files.handle_at("news", &[Event::Modified, Event::Closed], f.at(0));
    for ms in 1..1000 {
        files.expire_at(f.at(ms));
    }
    assert_eq!(f.published("news").len(), 0);
    files.expire_at(f.at(1002));
    assert_eq!(f.published("news"), ["x"]);
    drop(lock);
}

#[test]
fn a_second_touch_is_published_even_with_coarse_time_stamps() {
    let f = Fixture::new();
    let mut files = f.open();
    files.signals.reset(false);
    touch(&f.path("news"));
    // The second touch within a step of the time stamps leaves the same state behind as the first.
    files.handle_at("news", &[Event::Attributes], f.at(0));
    files.handle_at("news", &[Event::Closed], f.at(1));
    assert_eq!(f.published("news").len(), 1);
    files.handle_at("news", &[Event::Attributes], f.at(2));
    files.handle_at("news", &[Event::Closed], f.at(3));
    assert_eq!(f.published("news").len(), 2);
}

#[tokio::test]
async fn the_stamp_is_written_when_all_earlier_events_are_handled() {
    let f = Fixture::new();
    let mut files = f.open();
    let first = f.stamp();
    File::create(f.path("news")).unwrap();
    files.inbox.push("news.comet".as_ref(), Event::Created);
    files.inbox.push("news.comet".as_ref(), Event::Closed);
    files.begin_checkpoint();
    files.work().await;
    assert_eq!(
        f.stamp(),
        first,
        "the watcher may still report earlier events"
    );
    files.inbox.collect(|batch| batch.fence = true);
    files.work().await;
    let decided = !f.published("news").is_empty(); // on a slow machine the two calls may take the 2 ms of the window
    assert!(decided || f.stamp() == first, "a file waits for its window");

    files.expire_at(Instant::now() + Duration::from_secs(1));
    files.write_checkpoint();
    assert_eq!(f.published("news").len(), 1);
    assert_ne!(f.stamp(), first);
}

#[tokio::test]
async fn the_stamp_names_the_files_that_are_being_written() {
    let f = Fixture::new();
    let mut files = f.open();
    fs::write(f.path("news"), "x").unwrap();
    files.inbox.push("news.comet".as_ref(), Event::Modified);
    files.begin_checkpoint();
    files.inbox.collect(|batch| batch.fence = true);
    files.work().await;
    assert!(f.stamp().ends_with("\nnews\n.\n"), "{}", f.stamp());
    files.inbox.push("news.comet".as_ref(), Event::Closed);
    files.work().await;
    files.finish().await;
    assert!(!f.stamp().contains("news"), "{}", f.stamp());
    assert_eq!(f.published("news"), ["x"]);
}

#[tokio::test]
async fn a_change_that_was_not_handled_before_a_crash_is_published_after_it() {
    let f = Fixture::new();
    let mut files = f.open();
    fs::write(f.path("news"), "x").unwrap();
    files.checkpoint.due = 2;
    files.begin_checkpoint();
    files.work().await; // neither the file nor the fence was handled
    drop(files);
    let _files = f.open();
    assert_eq!(f.published("news"), ["x"]);
}

#[tokio::test]
async fn a_flood_of_files_uses_only_half_of_the_keys() {
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
async fn a_change_published_long_before_a_restart_is_not_published_again() {
    let f = Fixture::new();
    fs::write(f.path("news"), "x").unwrap();
    let mut files = f.open();
    files.finish().await;
    drop(files);
    let _files = f.open();
    assert_eq!(f.published("news").len(), 0);
}

#[tokio::test]
async fn a_clock_that_was_set_back_hides_no_change() {
    let f = Fixture::new();
    fs::write(f.path("news"), "x").unwrap();
    let in_a_year_or_so = f.open().published_until + 30_000_000_000_000_000;
    fs::write(
        f.root.path().join(stamp::FILE_NAME),
        format!("{in_a_year_or_so}\n.\n"),
    )
    .unwrap();
    let mut files = f.open();
    assert_eq!(f.published("news"), ["x"]);
    files.finish().await;
    drop(files);
    let _files = f.open();
    assert_eq!(f.published("news").len(), 1);
}

#[tokio::test]
async fn a_deleted_stamp_is_created_again() {
    let f = Fixture::new();
    let mut files = f.open();
    let first = f.stamp();
    fs::remove_file(f.root.path().join(stamp::FILE_NAME)).unwrap();
    files.begin_checkpoint();
    assert_eq!(f.stamp(), first);
    files.inbox.collect(|batch| batch.fence = true);
    files.work().await;
    assert_ne!(f.stamp(), first);
}

#[tokio::test]
async fn a_failed_scan_keeps_the_old_stamp() {
    let f = Fixture::new();
    let mut files = f.open();
    let first = f.stamp();
    files.scan_failed(Errno::EIO);
    files.begin_checkpoint();
    files.inbox.collect(|batch| batch.fence = true);
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
        std::thread::yield_now(); // until the file is clearly older than the start of the daemon
    }
    let mut files = f.open();
    assert_eq!(f.published("old").len(), 0);
    fs::write(f.path("news"), "x").unwrap();
    files.handle_at(
        "news",
        &[Event::Created, Event::Modified, Event::Closed],
        f.at(0),
    );
    assert_eq!(f.published("news"), ["x"]);
    files.begin_checkpoint();
    files.finish().await;
}

#[tokio::test]
async fn other_tasks_run_during_a_scan() {
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
async fn a_rescan_publishes_pending_and_missed_files_once() {
    let f = Fixture::new();
    let mut files = f.open();
    File::create(f.path("begun")).unwrap();
    fs::write(f.path("published"), "x").unwrap();
    files.handle_at("begun", &[Event::Created], f.at(0));
    files.handle_at("published", &[Event::Modified, Event::Closed], f.at(0));
    fs::write(f.path("missed"), "x").unwrap();
    files.inbox.collect(|batch| batch.rescan = true);
    files.work().await;
    let count = |channel: &str| f.published(channel).len();
    assert_eq!(["begun", "published", "missed"].map(count), [1, 1, 1]);
    assert_eq!(f.metrics.files_rescans.get(), 1);
}

#[tokio::test]
async fn the_watching_thread_publishes_events_that_need_no_waiting() {
    let f = Fixture::new();
    let files = f.open();
    let inbox = files.inbox.clone();
    inbox.lend(Box::new(files));
    touch(&f.path("news"));
    inbox.push("news.comet".as_ref(), Event::Attributes);
    inbox.push("news.comet".as_ref(), Event::Closed);
    assert_eq!(f.published("news").len(), 1);
    let woken = |inbox: Arc<Inbox>| async move {
        tokio::select! {
            biased;
            () = inbox.changed() => true,
            () = tokio::task::yield_now() => false,
        }
    };
    assert!(!woken(inbox.clone()).await);

    // Only after the window is it known whether this is a touch.
    File::create(f.path("new")).unwrap();
    inbox.push("new.comet".as_ref(), Event::Created);
    inbox.push("new.comet".as_ref(), Event::Closed);
    assert!(woken(inbox.clone()).await);
    let mut files = inbox.take_back().await;
    files.expire_at(Instant::now() + Duration::from_secs(1));
    assert_eq!(f.published("new").len(), 1);
    files.finish().await;
}

/// Calls a closure in the middle of the next publish, as if another thread were faster.
struct Interrupted {
    broker: Arc<Local>,
    during: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Broker for Interrupted {
    fn publish(&self, source: SourceKind, new: NewMessage<'_>) -> Receipt {
        if let Some(during) = self.during.lock().unwrap().take() {
            during();
        }
        self.broker.publish(source, new)
    }

    fn delete(&self, channel: &ChannelName) -> Receipt {
        self.broker.delete(channel)
    }

    fn changed(&self, id: u64) -> Receipt {
        self.broker.changed(id)
    }

    fn acknowledges_at_once(&self) -> bool {
        self.broker.acknowledges_at_once()
    }
}

impl Fixture {
    /// Lends the files source, and lets a watching thread publish `first`. Calls `during` in the middle of that.
    fn publish_first(&self, during: impl FnOnce(&Inbox) + Send + 'static) -> Arc<Inbox> {
        let broker = Arc::new(Interrupted {
            broker: Local::new(self.hub.clone()),
            during: Mutex::default(),
        });
        let files = self.open_on(Box::new(ScriptedWatch::default()), broker.clone());
        let inbox = files.inbox.clone();
        inbox.lend(Box::new(files));
        let used = inbox.clone();
        *broker.during.lock().unwrap() = Some(Box::new(move || during(&used)));
        for channel in ["first", "second"] {
            touch(&self.path(channel));
        }
        inbox.push("first.comet".as_ref(), Event::Closed);
        inbox
    }
}

#[tokio::test]
async fn events_that_come_while_a_thread_publishes_are_published_by_that_thread() {
    let f = Fixture::new();
    let inbox = f.publish_first(|inbox| {
        inbox.push("second.comet".as_ref(), Event::Closed); // neither waits nor publishes
    });
    let id = |channel: &str| {
        let names = [ChannelName::parse(channel).unwrap()];
        let messages = f.hub.since(&names, Cursor(0)).messages;
        messages.iter().map(|message| message.id).sum::<u64>()
    };
    assert!(0 < id("first") && id("first") < id("second"));
    assert!(inbox.take().names.is_empty());
    inbox.take_back().await.finish().await;
}

#[tokio::test]
async fn the_control_thread_waits_for_the_thread_that_publishes_and_handles_what_comes_meanwhile() {
    let f = Fixture::new();
    let inbox = f.publish_first(|inbox| {
        let mut taking = std::pin::pin!(inbox.take_back());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(taking.as_mut().poll(&mut context).is_pending());
        inbox.push("second.comet".as_ref(), Event::Closed);
    });
    let count = |channel: &str| f.published(channel).len();
    assert_eq!(["first", "second"].map(count), [1, 0]);
    let mut files = inbox.take_back().await;
    files.work().await;
    assert_eq!(["first", "second"].map(count), [1, 1]);
    files.finish().await;
}

#[tokio::test]
async fn events_of_a_flood_are_collected_for_the_control_thread() {
    let f = Fixture::new();
    let files = f.open();
    let inbox = files.inbox.clone();
    inbox.lend(Box::new(files));
    let mut waiting = 0;
    while waiting == 0 {
        for n in 0..10 * AT_ONCE {
            inbox.push(format!("{n}.comet").as_ref(), Event::Closed);
        }
        waiting = inbox.take().names.len(); // none is left if fewer came within a millisecond
    }
    inbox.take_back().await.finish().await;
}

#[tokio::test]
async fn a_directory_that_inotify_refuses_is_polled_until_it_can_be_watched() {
    let f = Fixture::new();
    let refusing = Refusing::default();
    fs::write(f.path("old"), "x").unwrap();
    let mut files = f.open_with(Box::new(refusing.clone()));
    assert_eq!(f.metrics.files_polling.get(), 1);
    for n in 0..3 {
        fs::write(f.path("news"), n.to_string()).unwrap();
        while f.published("news").len() == n {
            files.compare_directory().await; // a pause follows each comparison
        }
    }
    assert_eq!(f.published("news"), ["0", "1", "2"]);

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
    assert_eq!(f.published("news"), ["0", "1", "2", "3", "4"]);

    // What was published by comparing is not published again after a crash, but changes that were not handled before it are published.
    drop(files);
    fs::write(f.path("late"), "x").unwrap();
    let _files = f.open();
    assert_eq!(f.published("late"), ["x"]);
    assert_eq!(f.published("news")[..5], ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_stamp_is_created_when_a_planted_entry_is_gone() {
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

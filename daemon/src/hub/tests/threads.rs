//! The hub under real threads: publishers at full speed, and workers whose subscribers stay, or leave with every
//! message and join again like long-polls. The system's clock, so the ids are what they are in earnest.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use subscriber::{AfterDelivery, Audience, Feed, Subscriber, SubscriberKey};
use tokio::{runtime::Builder, sync::Notify, task};

use super::*;

const WORKERS: usize = 2;
const PUBLISHERS: usize = 3;
/// Messages of each publisher.
const MESSAGES: usize = 1000;
/// After so many, a publisher lets everyone come back.
const ROUND: usize = 250;
const CHANNELS: usize = 4;
/// Clients of each worker.
const CLIENTS: usize = 200;
/// A test that has lost a message would wait for it for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// What ends a channel.
const END: &[u8] = b"end";

/// Clients that have joined and not left, over all workers.
#[derive(Default)]
struct Parked(AtomicUsize);

impl Parked {
    /// Waits until everyone is: so that many times at least, polls come back.
    fn wait_for_all(&self) {
        let start = Instant::now();
        while self.0.load(Ordering::SeqCst) < WORKERS * CLIENTS {
            assert!(start.elapsed() < PATIENCE, "everyone comes back");
            thread::yield_now();
        }
    }
}

struct Client {
    parked: Arc<Parked>,
    audience: Rc<Audience>,
    channels: Vec<ChannelName>,
    leaves: bool,
    start: Cursor,
    cursor: Cell<Cursor>,
    seen: RefCell<Vec<Arc<Message>>>,
    gaps: Cell<usize>,
    joins: Cell<usize>,
    ended: Cell<usize>,
    key: Cell<Option<SubscriberKey>>,
    /// It has left, or seen the end.
    moved: Notify,
}

impl Client {
    fn new(
        audience: &Rc<Audience>,
        parked: &Arc<Parked>,
        channels: Vec<ChannelName>,
        leaves: bool,
    ) -> Rc<Self> {
        let start = audience.hub().last();
        Rc::new(Self {
            parked: parked.clone(),
            audience: audience.clone(),
            channels,
            leaves,
            start,
            cursor: Cell::new(start),
            seen: RefCell::default(),
            gaps: Cell::new(0),
            joins: Cell::new(0),
            ended: Cell::new(0),
            key: Cell::new(None),
            moved: Notify::new(),
        })
    }

    /// Joins, and again whenever it has left, until its channels have ended.
    async fn run(self: Rc<Self>) {
        while self.ended.get() < self.channels.len() {
            if self.key.get().is_some() {
                self.moved.notified().await;
                continue;
            }
            match self
                .audience
                .join(&self.channels, Some(self.cursor.get()), self.clone())
            {
                Ok((key, cursor)) => {
                    self.joins.update(|joins| joins + 1);
                    self.cursor.set(cursor);
                    self.key.set(Some(key));
                    self.parked.0.fetch_add(1, Ordering::SeqCst);
                }
                // As a poll would: answered at once, and back a little later.
                Err(backlog) => {
                    self.receive(&backlog);
                    task::yield_now().await;
                }
            }
        }
        if let Some(key) = self.key.take() {
            self.audience.leave(key);
        }
    }

    fn receive(&self, backlog: &Backlog) {
        assert!(self.cursor.get() <= backlog.cursor);
        self.gaps.update(|gaps| gaps + usize::from(backlog.gap));
        for message in &backlog.messages {
            assert!(self.cursor.get() < Cursor(message.id), "seen before");
            if *message.data == *END {
                self.ended.update(|ended| ended + 1);
            }
        }
        self.seen
            .borrow_mut()
            .extend(backlog.messages.iter().cloned());
        self.cursor.set(backlog.cursor);
    }
}

impl Subscriber for Client {
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery {
        let mut got = false;
        loop {
            let batch = feed.read(self.cursor.get());
            self.receive(batch.backlog());
            if batch.backlog().messages.is_empty() {
                break;
            }
            got = true;
        }
        self.moved.notify_one();
        if self.leaves && got {
            self.key.set(None);
            self.parked.0.fetch_sub(1, Ordering::SeqCst);
            return AfterDelivery::Leave;
        }
        AfterDelivery::Stay
    }
}

/// What a client has to say at the end.
struct Report {
    channels: Vec<ChannelName>,
    start: Cursor,
    seen: Vec<Arc<Message>>,
    gaps: usize,
    joins: usize,
    leaves: bool,
}

fn names() -> [ChannelName; CHANNELS] {
    ["a", "b", "c", "d"].map(channel)
}

/// The clients of one worker, until all of them have seen the end of their channels.
fn work(hub: Arc<Hub>, worker: usize, parked: &Arc<Parked>, ready: &Barrier) -> Vec<Report> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build_local(Default::default())
        .unwrap();
    let audience = Audience::new(hub, worker);
    let mut clients = Vec::new();
    for i in 0..CLIENTS {
        let [a, b, c, d] = names();
        let channels = match i % 4 {
            0 | 1 => vec![a],
            2 => vec![b, c],
            _ => vec![d, a, c],
        };
        clients.push(Client::new(&audience, parked, channels, i % 4 % 3 != 0));
    }
    runtime.block_on(async {
        let serving = task::spawn_local({
            let audience = audience.clone();
            async move { audience.run().await }
        });
        let tidying = task::spawn_local({
            let audience = audience.clone();
            async move {
                loop {
                    audience.tidy();
                    task::yield_now().await;
                }
            }
        });
        let running: Vec<_> = clients
            .iter()
            .map(|client| task::spawn_local(client.clone().run()))
            .collect();
        ready.wait();
        let all = async {
            for client in running {
                client.await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .expect("everyone sees the end");
        serving.abort();
        tidying.abort();
    });
    assert_eq!(audience.len(), 0);
    let reports = clients.into_iter().map(|client| Report {
        channels: client.channels.clone(),
        start: client.start,
        seen: client.seen.take(),
        gaps: client.gaps.get(),
        joins: client.joins.get(),
        leaves: client.leaves,
    });
    reports.collect()
}

/// Publishes to all channels in a pseudo-random order; returns the ids.
fn publish(hub: &Hub, publisher: usize, parked: &Parked) -> Vec<(u64, ChannelName)> {
    let names = names();
    let mut random = publisher as u64 + 1;
    let publish = |i: usize| {
        if i.is_multiple_of(ROUND) {
            parked.wait_for_all();
        }
        // Knuth's constants (MMIX); the upper bits are the random ones.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let name = &names[(random >> 33) as usize % CHANNELS];
        match random >> 40 & 15 {
            0 | 1 => thread::yield_now(),
            2 => hub.expire(),
            _ => {}
        }
        (
            hub.publish(message(name, format!("{publisher}:{i}").as_bytes())),
            name.clone(),
        )
    };
    (0..MESSAGES).map(publish).collect()
}

/// All threads on one hub; what was published by id, and what everyone saw.
fn storm(config: HistoryConfig) -> (BTreeMap<u64, ChannelName>, Vec<Report>) {
    let hub = Hub::new(config, WORKERS);
    let (ready, publishing) = (
        Barrier::new(WORKERS + PUBLISHERS),
        AtomicUsize::new(PUBLISHERS),
    );
    let parked = Arc::default();
    thread::scope(|scope| {
        let workers = [0, 1].map(|worker| {
            let (hub, parked, ready) = (hub.clone(), &parked, &ready);
            scope.spawn(move || work(hub, worker, parked, ready))
        });
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (hub, ready, parked, publishing) = (&hub, &ready, &parked, &publishing);
                scope.spawn(move || {
                    ready.wait();
                    let mut sent = publish(hub, publisher, parked);
                    if publishing.fetch_sub(1, Ordering::SeqCst) == 1 {
                        // The last one to finish ends the channels.
                        let end = names().map(|name| (hub.publish(message(&name, END)), name));
                        sent.extend(end);
                    }
                    sent
                })
            })
            .collect();
        let sent = publishers
            .into_iter()
            .flat_map(|publisher| publisher.join().unwrap())
            .collect();
        let reports = workers.map(|worker| worker.join());
        (
            sent,
            reports
                .into_iter()
                .flat_map(|reports| reports.unwrap())
                .collect(),
        )
    })
}

fn due(published: &BTreeMap<u64, ChannelName>, report: &Report) -> Vec<u64> {
    let after = published.range(report.start.0 + 1..);
    after
        .filter(|(_, name)| report.channels.contains(name))
        .map(|(id, _)| *id)
        .collect()
}

#[test]
fn everyone_gets_everything_once_and_in_order() {
    let config = HistoryConfig {
        default: roomy(),
        total_bytes: usize::MAX,
        ..HistoryConfig::default()
    };
    let (published, reports) = storm(config);
    assert_eq!(
        published.len(),
        PUBLISHERS * MESSAGES + CHANNELS,
        "no id is given twice"
    );
    for report in &reports {
        assert_eq!(report.gaps, 0);
        assert!(!report.leaves || report.joins >= MESSAGES / ROUND);
        let seen: Vec<u64> = report.seen.iter().map(|message| message.id).collect();
        assert_eq!(
            seen,
            due(&published, report),
            "nothing lost, nothing twice, in order"
        );
        // What one publisher sends keeps its order.
        for publisher in 0..PUBLISHERS {
            let prefix = format!("{publisher}:");
            let own = report.seen.iter().filter_map(|message| {
                str::from_utf8(&message.data)
                    .unwrap()
                    .strip_prefix(&prefix)?
                    .parse::<usize>()
                    .ok()
            });
            assert!(own.is_sorted());
        }
    }
}

#[test]
fn where_history_is_short_everyone_is_told_what_is_missing() {
    let limits = Limits {
        bytes: 1500,
        ..roomy()
    };
    let config = HistoryConfig {
        default: limits,
        ..HistoryConfig::default()
    };
    let (published, reports) = storm(config);
    for report in &reports {
        let (seen, due) = (
            report.seen.iter().map(|message| message.id),
            due(&published, report),
        );
        let seen: Vec<u64> = seen.collect();
        assert!(seen.iter().all(|id| due.binary_search(id).is_ok()));
        assert!(
            seen == due || report.gaps > 0,
            "{} of {} without a gap",
            seen.len(),
            due.len()
        );
    }
    let told = reports.iter().filter(|report| report.gaps > 0).count();
    assert!(told > 0, "the history was short enough for this test");
}

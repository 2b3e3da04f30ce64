//! HTTP: serves one worker thread's share of the connections. hyper parses requests and writes ordinary answers. A
//! request that has to wait leaves hyper (see `connection`).

mod accept;
mod addresses;
pub(crate) mod answer;
mod balance;
mod bell;
mod body;
mod chunks;
mod client_kind;
mod connection;
pub(crate) mod cors;
pub(crate) mod date;
pub(crate) mod entity_tag;
mod errand;
mod figures;
pub(crate) mod framing;
mod h2;
pub(crate) mod head;
mod held;
mod io;
pub(crate) mod media;
mod memory;
mod pages;
pub(crate) mod paths;
pub(crate) mod publish;
pub(crate) mod query;
mod reactor;
pub(crate) mod router;
mod service;
pub(crate) mod site;
pub(crate) mod upgrade;
mod writer;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;
use tokio::{
    sync::{Notify, watch},
    task::spawn_local,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    drain::{self, Drain},
    hub::subscriber::Audience,
    metrics::Metrics,
};
pub use accept::MOST_LISTENERS;
use accept::{Accept, AfterAccept, ReadyListeners, Refused};
use addresses::Address;
pub use balance::Balance;
use connection::{Conn, REFUSE_TIME};
pub use cors::Origins;
use date::{DateLine, unix_time};
pub use errand::{Errand, Work, WorkDone};
pub use memory::Ceiling;
use reactor::{Reactor, Sockets};
use site::Current;
pub use site::{Demo, Site};

/// The listeners from which the workers accept.
#[derive(Clone)]
pub struct Listeners {
    /// At most [`MOST_LISTENERS`].
    pub sockets: Arc<[TcpListener]>,
    pub balance: Arc<Balance>,
    /// Another process (systemd) also holds the listeners open. Connections that are not accepted wait for the next
    /// daemon.
    pub outlives: bool,
}

/// Time-outs are counted in steps of 50 ms, so that no connection needs a timer of its own. 32 bits of steps last
/// almost seven years.
const STEP: Duration = Duration::from_millis(50);

/// Interval of a worker's regular tick, at which it checks its connections.
const TICK: Duration = Duration::from_millis(250);
const TICK_STEPS: u32 = (TICK.as_millis() / STEP.as_millis()) as u32;

/// Times below 2 seconds, and ends of tokens, get a tick of their own and end at most one [`STEP`] late. Longer times
/// end with a regular tick, so that thousands of idle connections cause no more than four wake-ups a second.
const SHORT: Duration = Duration::from_secs(2);

/// How many batches of connections are still accepted when the daemon stops, and the size of a batch.
const LAST_BATCHES: usize = 64;
const LAST_BATCH: usize = 64;

/// One worker thread with its connections.
struct Worker {
    site: RefCell<Current>,
    metrics: Arc<Metrics>,
    drain: Drain,
    audience: Rc<Audience>,
    /// `None` after the worker has stopped accepting.
    accept: RefCell<Option<Accept>>,
    sockets: Rc<Sockets>,
    errand: Arc<Errand>,
    balance: Arc<Balance>,
    conns: RefCell<Slab<Rc<Conn>>>,
    /// How many of these connections will be refused because there was no room.
    refused: Cell<usize>,
    /// The client's address of each connection, if connections are counted by address.
    peers: RefCell<HashMap<u32, Address>>,
    /// For each connection the step at which `expire` acts. All entries are read at each tick, so they are stored
    /// together.
    dues: RefCell<Vec<u32>>,
    start: Instant,
    /// The step of the last tick, and that of the next one.
    now: Cell<u32>,
    next_tick: Cell<u32>,
    /// Steps at which timers of the runtime end that must not wait for a regular tick.
    alarms: RefCell<BTreeSet<u32>>,
    /// The second in which unneeded memory was last freed.
    tidied: Cell<u32>,
    /// The system clock's time at the start of the worker, corrected when the system clock was set.
    wall: Cell<Duration>,
    /// Notified when the system clock was set or the settings have changed. Tasks that hold subscriptions wait for it.
    changed: Notify,
    /// Number of subscriptions that the last change of settings has ended.
    revoked: Cell<u64>,
    date: DateLine,
    stopping: Cell<bool>,
    /// Number of polls that began to wait since the thread last served anything else.
    parked: Cell<u32>,
    /// Notified when the last connection has left after the worker began to stop.
    empty: Notify,
    /// Number of reads and writes that a connection may still do before others get their turn. `None` in a task, which
    /// has a budget from the runtime.
    credit: Cell<Option<u8>>,
}

impl Worker {
    fn site(&self) -> Current {
        self.site.borrow().clone()
    }

    fn conn(&self, place: u32) -> Option<Rc<Conn>> {
        self.conns.borrow().get(place as usize).cloned()
    }

    /// Number of connections without those that will be refused.
    fn open(&self) -> usize {
        self.conns.borrow().len() - self.refused.get()
    }

    /// Accepts up to `count` connections of these listeners. Returns how many it accepted.
    fn accept_some(self: &Rc<Self>, ready: ReadyListeners, count: usize) -> (usize, AfterAccept) {
        let mut accept = self.accept.borrow_mut();
        let Some(accept) = accept.as_mut() else {
            return (0, AfterAccept::Wait);
        };
        accept.take_some(ready, count, self)
    }

    /// Reports the number of connections. True: this thread is so far ahead of another one that the other threads
    /// should accept new connections.
    fn is_ahead(&self) -> bool {
        self.balance.count(self.audience.worker(), self.open())
    }

    /// Whether this thread was called to accept again, because other threads have more connections.
    fn is_called(&self) -> bool {
        self.balance.is_called(self.audience.worker())
    }

    /// Accepts the clients that connected before the listener closes, so that they get an answer. The number is
    /// limited, in case of a flood.
    fn accept_last(self: &Rc<Self>) {
        for _ in 0..LAST_BATCHES {
            if self.accept_some(ReadyListeners::ALL, LAST_BATCH).1 != AfterAccept::More {
                break;
            }
        }
    }

    fn accept_no_more(&self) {
        // epoll would go on reporting connections if another process holds the listener open.
        self.listen_no_more();
        self.accept.take();
    }

    fn listen_no_more(&self) {
        if let Some(accept) = &*self.accept.borrow() {
            self.sockets.remove_listeners(accept.listeners());
        }
    }

    fn listen_again(&self) -> std::io::Result<()> {
        match &*self.accept.borrow() {
            Some(accept) => self.sockets.add_listeners(accept.listeners()),
            None => Ok(()),
        }
    }

    /// Runs the errand. True: call this again.
    fn run_errand(&self) -> std::io::Result<bool> {
        self.parked.set(0);
        self.errand.run(self.audience.worker())
    }

    /// Adds a connection to the worker. With `refused`, the connection stays only until its request is refused.
    fn add(
        self: &Rc<Self>,
        stream: TcpStream,
        peer: Option<Address>,
        refused: Option<Refused>,
    ) -> std::io::Result<()> {
        let mut conns = self.conns.borrow_mut();
        let entry = conns.vacant_entry();
        let place = u32::try_from(entry.key()).expect("descriptors are 31 bits");
        if let Err(error) = self.sockets.add(&stream, place) {
            peer.into_iter()
                .for_each(|peer| addresses::OPEN.leave(peer));
            return Err(error);
        }
        entry.insert(Conn::new(stream, self, place, refused));
        drop(conns);
        if refused.is_some() {
            self.refused.set(self.refused.get() + 1);
            self.set_due(place, REFUSE_TIME);
            return Ok(());
        }
        if let Some(peer) = peer {
            self.peers.borrow_mut().insert(place, peer);
        }
        self.set_due(place, self.site().config.idle);
        self.metrics.http_connections.add(1);
        Ok(())
    }

    fn forget(&self, place: u32) {
        // No lookup if addresses are not counted.
        if !self.peers.borrow().is_empty() {
            let peer = self.peers.borrow_mut().remove(&place);
            peer.into_iter()
                .for_each(|peer| addresses::OPEN.leave(peer));
        }
        self.set_due(place, Duration::MAX);
        let conn = self.conns.borrow_mut().try_remove(place as usize);
        match conn.as_ref().is_some_and(|conn| conn.refused.is_some()) {
            true => self.refused.set(self.refused.get() - 1),
            false => self.metrics.http_connections.sub(1),
        }
        drop(conn); // after the borrow has ended: this may be the last reference
        if self.stopping.get() && self.conns.borrow().is_empty() {
            self.empty.notify_one();
        }
    }

    /// Whether connections use all the memory that they may.
    fn is_full(&self) -> bool {
        self.site().ceiling.is_reached(&self.metrics)
    }

    fn due(&self, place: u32) -> u32 {
        self.dues.borrow()[place as usize]
    }

    /// Has `expire` act on the connection after `time`.
    fn set_due(&self, place: u32, time: Duration) {
        self.set_due_step(place, self.step_after(time));
    }

    fn set_due_step(&self, place: u32, due: u32) {
        self.tick_by(due);
        let place = place as usize;
        let mut dues = self.dues.borrow_mut();
        if place >= dues.len() {
            dues.resize(place + 1, u32::MAX);
        }
        dues[place] = due;
    }

    /// Makes sure that the next tick comes at this step or earlier.
    fn tick_by(&self, step: u32) {
        if step < self.next_tick.get() {
            self.next_tick.set(step);
        }
    }

    /// The moment of the next tick.
    fn next_tick(&self) -> Instant {
        self.start + STEP * self.next_tick.get()
    }

    /// The step at which a wait of `duration` from now is over. It is never too early.
    fn step_after(&self, duration: Duration) -> u32 {
        if duration < SHORT {
            return self.exact_step_after(duration);
        }
        const PER_SECOND: u64 = 1000 / TICK.as_millis() as u64;
        let part = duration.subsec_millis().div_ceil(TICK.as_millis() as u32);
        let whole = duration.as_secs().saturating_mul(PER_SECOND);
        // The last tick may have been almost one tick ago.
        let ticks = whole.saturating_add(u64::from(part) + 1);
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        let now = self.now.get() / TICK_STEPS;
        now.saturating_add(ticks).saturating_mul(TICK_STEPS)
    }

    fn exact_step_after(&self, duration: Duration) -> u32 {
        let end = self.start.elapsed().saturating_add(duration);
        let steps = end.as_micros().div_ceil(STEP.as_micros());
        u32::try_from(steps).unwrap_or(u32::MAX)
    }

    /// The step at which this second since 1970 has come.
    fn step_at(&self, second: u64) -> u32 {
        let left = Duration::from_secs(second).saturating_sub(unix_time());
        // One millisecond more, so that the second has come by then although the two clocks differ in speed.
        self.exact_step_after(left + Duration::from_millis(1))
    }

    /// Makes a timer of the runtime end at most one [`STEP`] late. The runtime's timers end only at ticks.
    fn alarm_after(&self, duration: Duration) {
        // The runtime rounds up to whole milliseconds.
        let step = self.exact_step_after(duration + Duration::from_millis(2));
        self.alarms.borrow_mut().insert(step);
        self.tick_by(step);
    }

    /// When a client should come back whose subscription was ended by new settings.
    fn retry_of_revoked(&self) -> Duration {
        drain::retry_at(self.revoked.replace(self.revoked.get() + 1))
    }

    /// Calls `f` for each connection.
    fn each(&self, f: impl Fn(&Conn)) {
        let conns = self.conns.borrow();
        let conns: Vec<_> = conns.iter().map(|(_, conn)| conn.clone()).collect();
        conns.iter().for_each(|conn| f(conn));
    }

    /// Replaces the site. Its rights hold at once, also for waiting subscriptions.
    fn replace_site(&self, site: Arc<Site>) {
        let before = self.site.replace(Rc::new(site));
        self.revoked.set(0);
        self.each(|conn| conn.revoke(&before.rights));
        self.changed.notify_waiters();
    }

    /// Plans the ends of tokens anew when the system clock has moved against the monotonic clock, by being set or over
    /// time. Tokens end by the system clock, but steps are counted by the monotonic clock.
    fn follow_clock(&self) {
        let wall = unix_time().saturating_sub(self.start.elapsed());
        if wall.abs_diff(self.wall.get()) < TICK {
            return;
        }
        self.wall.set(wall);
        self.each(Conn::renew_end);
        self.changed.notify_waiters();
    }

    fn tick(&self) {
        self.date.refresh();
        let steps = self.start.elapsed().as_micros() / STEP.as_micros();
        // The largest number means "never".
        let now = u32::try_from(steps).unwrap_or(u32::MAX).min(u32::MAX - 1);
        self.now.set(now);
        self.follow_clock();
        let overdue = self.plan_next_tick(now);
        for conn in overdue.into_iter().filter_map(|place| self.conn(place)) {
            conn.expire();
        }
        let second = now / (1000 / STEP.as_millis() as u32);
        if self.tidied.replace(second) != second {
            self.audience.tidy();
            self.shrink();
        }
    }

    /// Plans the next tick, and returns the indexes of the connections that are due now.
    fn plan_next_tick(&self, now: u32) -> Vec<u32> {
        let dues = self.dues.borrow();
        let later = dues.iter().filter(|due| **due > now);
        let soonest = later.fold(u32::MAX, |soonest, due| soonest.min(*due));
        let mut alarms = self.alarms.borrow_mut();
        *alarms = alarms.split_off(&(now + 1));
        let alarm = alarms.first().copied().unwrap_or(u32::MAX);
        let regular = (now / TICK_STEPS + 1).saturating_mul(TICK_STEPS);
        self.next_tick.set(regular.min(alarm).min(soonest));
        let overdue = |(place, due): (usize, &u32)| (*due <= now).then_some(place as u32);
        dues.iter().enumerate().filter_map(overdue).collect()
    }

    /// Frees memory after a peak of connections.
    fn shrink(&self) {
        let mut conns = self.conns.borrow_mut();
        if conns.len() < conns.capacity() / 8 {
            conns.shrink_to_fit();
            let mut dues = self.dues.borrow_mut();
            dues.truncate(conns.capacity());
            dues.shrink_to_fit();
        }
    }
}

/// Serves connections on this thread until the daemon stops. From then on this thread publishes nothing, so that
/// `publisher` is dropped. When nothing in the daemon publishes any more, answers all waiting clients and returns when
/// the last connection has closed. The caller sets a deadline. The thread does the `errand` when it is its turn, and
/// calls `beat` at each tick.
///
/// # Errors
/// When the listeners cannot be used, or a part of the worker has failed.
pub fn serve(
    listeners: Listeners,
    sites: watch::Receiver<Arc<Site>>,
    audience: Rc<Audience>,
    publisher: TaskTrackerToken,
    errand: Arc<Errand>,
    beat: impl Fn(),
) -> std::io::Result<()> {
    let site = sites.borrow().clone();
    let outlives = listeners.outlives;
    let mut reactor = Reactor::new()?;
    let worker = Rc::new(Worker {
        metrics: site.metrics.clone(),
        drain: site.drain.clone(),
        site: RefCell::new(Rc::new(site)),
        audience: audience.clone(),
        accept: RefCell::new(Some(Accept::new(listeners.sockets))),
        sockets: reactor.sockets(),
        errand,
        balance: listeners.balance,
        conns: RefCell::default(),
        refused: Cell::new(0),
        peers: RefCell::default(),
        dues: RefCell::default(),
        start: Instant::now(),
        now: Cell::new(0),
        next_tick: Cell::new(0),
        alarms: RefCell::default(),
        tidied: Cell::new(0),
        wall: Cell::new(unix_time()),
        changed: Notify::new(),
        revoked: Cell::new(0),
        date: DateLine::default(),
        stopping: Cell::new(false),
        parked: Cell::new(0),
        empty: Notify::new(),
        credit: Cell::new(None),
    });
    reactor.join(worker.audience.worker(), &worker.errand, &worker.balance)?;
    reactor.begin_to_accept(&worker)?;
    let main = run(worker.clone(), audience, sites, publisher, outlives);
    let tick = || {
        worker.tick();
        beat();
    };
    reactor.run(&worker, main, tick)?
}

/// The thread's main task: waits for the stop of the daemon and ends the worker.
async fn run(
    worker: Rc<Worker>,
    audience: Rc<Audience>,
    sites: watch::Receiver<Arc<Site>>,
    publisher: TaskTrackerToken,
    outlives: bool,
) -> std::io::Result<()> {
    let mut deliveries = spawn_local(async move { audience.run().await });
    spawn_local(follow(worker.clone(), sites));
    let drain = &worker.drain;
    let leave = async {
        drain.stop.cancelled().await;
        if outlives {
            worker.accept_no_more();
        }
        // A publish checks `stop` and completes without an await on this thread. This code runs on the same thread, so
        // no publish is in progress.
        drop(publisher);
        drain.leave.cancelled().await;
    };
    tokio::select! {
        () = leave => {}
        // Happens only by a bug: without the delivery loop no client of this thread would get messages.
        failed = &mut deliveries => return Ok(failed?),
    }
    worker.stopping.set(true);
    worker.accept_last();
    worker.accept_no_more();
    worker.each(Conn::say_farewell);
    while !worker.conns.borrow().is_empty() {
        worker.empty.notified().await;
    }
    Ok(())
}

/// Replaces the site each time that the settings change.
async fn follow(worker: Rc<Worker>, mut sites: watch::Receiver<Arc<Site>>) {
    while sites.changed().await.is_ok() {
        let site = sites.borrow_and_update().clone();
        worker.replace_site(site);
    }
}

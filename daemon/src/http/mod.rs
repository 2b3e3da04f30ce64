//! HTTP: one worker thread's share of the connections. hyper parses requests and writes ordinary answers; a
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

/// What the workers accept from.
#[derive(Clone)]
pub struct Listeners {
    /// At most [`MOST_LISTENERS`].
    pub sockets: Arc<[TcpListener]>,
    pub balance: Arc<Balance>,
    /// Others hold it open: what is not accepted waits for the next daemon.
    pub outlives: bool,
}

/// Waits and time-outs are counted in steps, so that no connection needs a timer. 32 bits of them last almost seven years.
const STEP: Duration = Duration::from_millis(50);

/// How often a worker looks at its connections at least.
const TICK: Duration = Duration::from_millis(250);
const TICK_STEPS: u32 = (TICK.as_millis() / STEP.as_millis()) as u32;

/// Shorter times, and the moments of a clock, end by a tick of their own, at most a [`STEP`] late. Longer ones end with
/// a regular tick, so that thousands of idle connections cause no more than four wake-ups a second.
const SHORT: Duration = Duration::from_secs(2);

/// How many batches of connections are still accepted at the end, and how many are in each.
const LAST_BATCHES: usize = 64;
const LAST_BATCH: usize = 64;

/// One thread's connections.
struct Worker {
    site: RefCell<Current>,
    metrics: Arc<Metrics>,
    drain: Drain,
    audience: Rc<Audience>,
    /// Until it stops.
    accept: RefCell<Option<Accept>>,
    sockets: Rc<Sockets>,
    errand: Arc<Errand>,
    balance: Arc<Balance>,
    conns: RefCell<Slab<Rc<Conn>>>,
    /// Connections among these that there was no room for.
    refused: Cell<usize>,
    /// Whose they are, where that is counted.
    peers: RefCell<HashMap<u32, Address>>,
    /// The step at which `expire` does something about the connection with this place. All are looked at on each
    /// tick, so they lie together.
    dues: RefCell<Vec<u32>>,
    start: Instant,
    /// The step of the last tick, and of the next one.
    now: Cell<u32>,
    next_tick: Cell<u32>,
    /// Steps at which timers of the runtime end that shall not wait for a regular tick.
    alarms: RefCell<BTreeSet<u32>>,
    /// The second of the last look at what is needed no more.
    tidied: Cell<u32>,
    /// What the system's clock said at the start, as far as it has not been set since.
    wall: Cell<Duration>,
    /// The system's clock was set, or settings have changed: for the tasks that hold subscriptions.
    changed: Notify,
    /// Subscriptions that the last change of settings has ended.
    revoked: Cell<u64>,
    date: DateLine,
    stopping: Cell<bool>,
    /// Polls that began to wait since something else was asked for.
    parked: Cell<u32>,
    /// No connection is left.
    empty: Notify,
    /// What a connection may still read and write before others get their turn; `None` in a task, which has a budget
    /// from the runtime.
    credit: Cell<Option<u8>>,
}

impl Worker {
    fn site(&self) -> Current {
        self.site.borrow().clone()
    }

    fn conn(&self, place: u32) -> Option<Rc<Conn>> {
        self.conns.borrow().get(place as usize).cloned()
    }

    /// Connections that there was room for.
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

    /// Of the connections this thread has so many more than another one that it is to leave new ones to those.
    fn is_ahead(&self) -> bool {
        self.balance.count(self.audience.worker(), self.open())
    }

    /// Others have so many more now.
    fn is_called(&self) -> bool {
        self.balance.is_called(self.audience.worker())
    }

    /// Whoever has connected before the listener closes is answered; a flood is not.
    fn accept_last(self: &Rc<Self>) {
        for _ in 0..LAST_BATCHES {
            if self.accept_some(ReadyListeners::ALL, LAST_BATCH).1 != AfterAccept::More {
                break;
            }
        }
    }

    fn accept_no_more(&self) {
        // Where others hold it open, too, it would go on telling of connections.
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

    /// True: to be called again.
    fn run_errand(&self) -> std::io::Result<bool> {
        self.parked.set(0);
        self.errand.run(self.audience.worker())
    }

    /// Takes a connection in; with `refused` for as long as it takes to answer its request.
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
        // No look at a map where none is counted.
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
        drop(conn); // after the borrow: it may be the last reference
        if self.stopping.get() && self.conns.borrow().is_empty() {
            self.empty.notify_one();
        }
    }

    /// Connections take all the memory they may.
    fn is_full(&self) -> bool {
        self.site().ceiling.is_reached(&self.metrics)
    }

    fn due(&self, place: u32) -> u32 {
        self.dues.borrow()[place as usize]
    }

    /// `expire` looks at the connection when something that lasts `time` from now is over.
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

    /// The next tick is not later than at this step.
    fn tick_by(&self, step: u32) {
        if step < self.next_tick.get() {
            self.next_tick.set(step);
        }
    }

    /// The moment of the next tick.
    fn next_tick(&self) -> Instant {
        self.start + STEP * self.next_tick.get()
    }

    /// The step at which something that lasts `duration` from now is over; never too early.
    fn step_after(&self, duration: Duration) -> u32 {
        if duration < SHORT {
            return self.exact_step_after(duration);
        }
        const PER_SECOND: u64 = 1000 / TICK.as_millis() as u64;
        let part = duration.subsec_millis().div_ceil(TICK.as_millis() as u32);
        let whole = duration.as_secs().saturating_mul(PER_SECOND);
        // The last tick may be a whole one ago.
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
        // A little later, so that the second has come by then although the clocks differ in pace.
        self.exact_step_after(left + Duration::from_millis(1))
    }

    /// Has a timer of the runtime, which goes off at ticks, end at most a [`STEP`] late.
    fn alarm_after(&self, duration: Duration) {
        // The runtime counts in whole milliseconds, rounded up.
        let step = self.exact_step_after(duration + Duration::from_millis(2));
        self.alarms.borrow_mut().insert(step);
        self.tick_by(step);
    }

    /// When a client whose subscription new settings end should come back.
    fn retry_of_revoked(&self) -> Duration {
        drain::retry_at(self.revoked.replace(self.revoked.get() + 1))
    }

    /// Calls `f` for each connection.
    fn each(&self, f: impl Fn(&Conn)) {
        let conns = self.conns.borrow();
        let conns: Vec<_> = conns.iter().map(|(_, conn)| conn.clone()).collect();
        conns.iter().for_each(|conn| f(conn));
    }

    /// The rights of the new site hold from now on, also for those who wait.
    fn replace_site(&self, site: Arc<Site>) {
        let before = self.site.replace(Rc::new(site));
        self.revoked.set(0);
        self.each(|conn| conn.revoke(&before.rights));
        self.changed.notify_waiters();
    }

    /// Tokens end by the system's clock, steps are counted by the other one: when the two have moved against each other, by a
    /// step or in the course of time, the steps at which tokens end are counted anew.
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
        // The last number stands for "never".
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

    /// Sets the next tick by what is due until then, and returns the places of what is due now.
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

    /// A storm of connections that is over should not hold its memory.
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

/// Serves on this thread until the daemon stops. From then on nothing is published here, so `publisher` is dropped;
/// when nobody publishes any more, answers all who wait and returns when the last connection has closed. The caller
/// sets a deadline. When it is
/// its turn it does the `errand`; `beat` is called at each tick.
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

/// What the thread does beside its loop, from the start to the end.
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
        // A publish looks for `stop` and is done in one go on this thread, which is here: none is on its way.
        drop(publisher);
        drain.leave.cancelled().await;
    };
    tokio::select! {
        () = leave => {}
        // Only by a mistake of ours: without them nobody here would be told anything any more.
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

/// Takes each new site.
async fn follow(worker: Rc<Worker>, mut sites: watch::Receiver<Arc<Site>>) {
    while sites.changed().await.is_ok() {
        let site = sites.borrow_and_update().clone();
        worker.replace_site(site);
    }
}

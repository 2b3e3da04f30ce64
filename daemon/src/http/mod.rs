//! HTTP: serves one worker thread's share of the connections. hyper parses requests and writes ordinary answers. A
//! request that has to wait leaves hyper (see `connection`).

pub(crate) mod answer;
mod body;
mod chunks;
mod client_kind;
pub(crate) mod cors;
pub(crate) mod date;
mod door;
pub(crate) mod framing;
mod h1;
mod h2;
pub(crate) mod head;
mod hold;
mod io;
pub(crate) mod query;
mod reading;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod route;
mod service;
pub(crate) mod site;
pub(crate) mod upgrade;
mod upgraded;
mod writer;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::spawn_local,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

pub use crate::connection::memory::Ceiling;
use crate::{
    connection::{Conn, Limits, Worker},
    drain::{self, Drain},
    hub::subscriber::Audience,
    metrics::Metrics,
    worker::{Door, Due, Shared, Timers},
};
pub use cors::Origins;
use date::{DateLine, unix_time};
use door::HttpDoor;
use site::Current;
pub use site::Site;

/// A smaller difference between the clocks does not count as a step of the system clock.
const CLOCK_STEP: Duration = Duration::from_millis(250);

/// What all HTTP connections of one thread share.
pub(crate) struct Http {
    site: RefCell<Current>,
    /// The site before, while the connections are told of the change.
    before: RefCell<Option<Current>>,
    metrics: Arc<Metrics>,
    drain: Drain,
    audience: Rc<Audience>,
    date: DateLine,
    /// How many connections will be refused because there was no room.
    refused: Cell<usize>,
    /// The system clock's time at the start of the thread, corrected when the system clock was set.
    wall: Cell<Duration>,
    /// Notified when the system clock was set or the settings have changed. Tasks that hold subscriptions wait for it.
    changed: Notify,
    /// Number of subscriptions that the last change of settings has ended.
    revoked: Cell<u64>,
}

impl Http {
    fn new(site: Arc<Site>, audience: Rc<Audience>) -> Self {
        Self {
            metrics: site.metrics.clone(),
            drain: site.drain.clone(),
            site: RefCell::new(Rc::new(site)),
            before: RefCell::default(),
            audience,
            date: DateLine::default(),
            refused: Cell::new(0),
            wall: Cell::new(unix_time()),
            changed: Notify::new(),
            revoked: Cell::new(0),
        }
    }

    fn site(&self) -> Current {
        self.site.borrow().clone()
    }

    /// Whether connections use all the memory that they may.
    fn is_full(&self) -> bool {
        self.site().ceiling.is_reached(&self.metrics)
    }

    /// When a client should come back whose subscription was ended by new settings.
    fn retry_of_revoked(&self) -> Duration {
        drain::retry_at(self.revoked.replace(self.revoked.get() + 1))
    }
}

/// The moment at which this second since 1970 has come.
fn due_at(timers: &Timers, second: u64) -> Due {
    let left = Duration::from_secs(second).saturating_sub(unix_time());
    // One millisecond more, so that the second has come by then although the two clocks differ in speed.
    timers.exactly_after(left + Duration::from_millis(1))
}

/// Replaces the site. Its rights hold at once, also for waiting subscriptions.
fn replace_site(http: &Http, worker: &Worker, site: Arc<Site>) {
    worker.context.set(site.config.write_time, site.ceiling);
    let before = http.site.replace(Rc::new(site));
    http.before.replace(Some(before));
    http.revoked.set(0);
    worker.each(|conn| conn.change());
    http.before.take();
    http.changed.notify_waiters();
}

/// Plans the ends of tokens anew when the system clock has moved against the monotonic clock, by being set or over
/// time. Tokens end by the system clock, but the worker counts time by the monotonic clock.
fn follow_clock(http: &Http, worker: &Worker) {
    let wall = unix_time().saturating_sub(worker.timers.elapsed());
    if wall.abs_diff(http.wall.get()) < CLOCK_STEP {
        return;
    }
    http.wall.set(wall);
    worker.each(|conn| conn.change());
    http.changed.notify_waiters();
}

/// Serves connections on the thread with this audience until the daemon stops. From then on this thread publishes
/// nothing, so that `publisher` is dropped. When nothing in the daemon publishes any more, answers all waiting clients
/// and returns when the last connection has closed. The caller sets a deadline. Calls `beat` at each tick. `outlives`:
/// another process (systemd) also holds the listeners open, and connections that are not accepted wait for the next
/// daemon.
///
/// # Errors
/// When the listeners cannot be used, or a part of the worker has failed.
pub fn serve(
    shared: Shared,
    outlives: bool,
    sites: watch::Receiver<Arc<Site>>,
    audience: Rc<Audience>,
    publisher: TaskTrackerToken,
    beat: impl Fn(),
) -> std::io::Result<()> {
    let site = sites.borrow().clone();
    let limits = Limits::new(site.metrics.clone(), site.config.write_time, site.ceiling);
    let http = Rc::new(Http::new(site, audience.clone()));
    let doors: Vec<Box<dyn Door<Conn>>> = vec![Box::new(HttpDoor::new(http.clone()))];
    let (worker, events) = Worker::new(audience.worker(), shared, doors, limits)?;
    let main = run(worker.clone(), http.clone(), sites, publisher, outlives);
    let tick = || {
        http.date.refresh();
        follow_clock(&http, &worker);
        worker.tick(|| http.audience.tidy());
        beat();
    };
    events.run(&worker, main, tick)?
}

/// The thread's main task: waits for the stop of the daemon and ends the worker.
async fn run(
    worker: Rc<Worker>,
    http: Rc<Http>,
    sites: watch::Receiver<Arc<Site>>,
    publisher: TaskTrackerToken,
    outlives: bool,
) -> std::io::Result<()> {
    let audience = http.audience.clone();
    let mut deliveries = spawn_local(async move { audience.run().await });
    spawn_local(follow(worker.clone(), http.clone(), sites));
    let drain = &http.drain;
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
    worker.stop().await;
    Ok(())
}

/// Replaces the site each time that the settings change.
async fn follow(worker: Rc<Worker>, http: Rc<Http>, mut sites: watch::Receiver<Arc<Site>>) {
    while sites.changed().await.is_ok() {
        let site = sites.borrow_and_update().clone();
        replace_site(&http, &worker, site);
    }
}

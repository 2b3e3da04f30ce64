//! HTTP: parses requests and frames answers, without knowing what is asked for. hyper handles what is not a plain request.
//! A subscription that has to wait leaves hyper, and the connection holds it.

pub(crate) mod answer;
mod body;
mod client_kind;
pub(crate) mod cors;
pub(crate) mod date;
mod door;
mod encode;
pub(crate) mod h1;
mod h2;
mod hold;
mod io;
pub(crate) mod query;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod route;
pub(crate) mod site;
mod switching;
pub(crate) mod upgrade;
mod upgraded;
mod writer;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

pub use crate::connection::memory::Ceiling;
use crate::{
    connection::{Conn, Worker},
    drain::{self, Drain},
    hub::subscriber::Audience,
    metrics::Metrics,
    worker::{Door, Due, Timers},
};
use answer::Answer;
pub use cors::Origins;
use date::{DateLine, unix_time};
use door::HttpDoor;
use site::Current;
pub use site::Site;
use writer::Variant;

/// A smaller difference between the clocks does not count as a step of the system clock.
const CLOCK_STEP: Duration = Duration::from_millis(250);

/// A buffer that has grown larger than this many bytes is not reused.
const MOST_BUFFER: usize = 4096;

/// What all HTTP connections of one thread share.
pub(crate) struct Http {
    site: RefCell<Current>,
    /// The site before, while the connections are told of the change.
    before: RefCell<Option<Current>>,
    metrics: Arc<Metrics>,
    drain: Drain,
    audience: Rc<Audience>,
    date: DateLine,
    /// An empty buffer that is reused for each answer.
    buffer: Cell<Vec<u8>>,
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
    pub(crate) fn new(site: Arc<Site>, audience: Rc<Audience>) -> Self {
        Self {
            metrics: site.metrics.clone(),
            drain: site.drain.clone(),
            site: RefCell::new(Rc::new(site)),
            before: RefCell::default(),
            audience,
            date: DateLine::default(),
            buffer: Cell::default(),
            refused: Cell::new(0),
            wall: Cell::new(unix_time()),
            changed: Notify::new(),
            revoked: Cell::new(0),
        }
    }

    /// The door for HTTP clients.
    pub(crate) fn door(self: Rc<Self>) -> Box<dyn Door<Conn>> {
        Box::new(HttpDoor::new(self))
    }

    /// Replaces the site. Its rights hold at once, also for waiting subscriptions.
    pub(crate) fn replace_site(&self, worker: &Worker, site: Arc<Site>) {
        let before = self.site.replace(Rc::new(site));
        self.before.replace(Some(before));
        self.revoked.set(0);
        worker.each(|conn| conn.change());
        self.before.take();
        self.changed.notify_waiters();
    }

    /// Follows the system clock. Must be called at the beginning of each tick.
    ///
    /// Tokens expire by the system clock, but the worker counts time by the monotonic clock. So the moments at which tokens
    /// expire are computed again when the difference between the two clocks has changed.
    pub(crate) fn begin_tick(&self, worker: &Worker) {
        self.date.refresh();
        let wall = unix_time().saturating_sub(worker.timers.elapsed());
        if wall.abs_diff(self.wall.get()) < CLOCK_STEP {
            return;
        }
        self.wall.set(wall);
        worker.each(|conn| conn.change());
        self.changed.notify_waiters();
    }

    /// The present settings.
    pub(crate) fn site(&self) -> Current {
        self.site.borrow().clone()
    }

    /// The settings before, while a change of settings is handled: see [`Protocol::changed`](crate::connection::Protocol).
    pub(crate) fn site_before(&self) -> Option<Current> {
        self.before.borrow().clone()
    }

    /// The subscribers of this thread.
    pub(crate) fn audience(&self) -> &Rc<Audience> {
        &self.audience
    }

    /// The bytes of an ordinary answer.
    fn answer_bytes(&self, site: &Site, answer: &Answer, variant: Variant) -> Bytes {
        let mut out = self.buffer.take();
        let Variant { close, cors, .. } = variant;
        encode::whole(&mut out, answer, close, cors, &site.origins, &self.date);
        let bytes = Bytes::copy_from_slice(&out);
        if out.capacity() <= MOST_BUFFER {
            out.clear();
            self.buffer.set(out);
        }
        bytes
    }

    /// Whether connections use all the memory that they may.
    fn is_full(&self) -> bool {
        self.site().ceiling.is_reached(&self.metrics)
    }

    /// When a client should come back whose subscription was ended by new settings.
    pub(crate) fn retry_of_revoked(&self) -> Duration {
        drain::retry_at(self.revoked.replace(self.revoked.get() + 1))
    }
}

/// The moment at which this second since 1970 has come.
pub(crate) fn due_at(timers: &Timers, second: u64) -> Due {
    let left = Duration::from_secs(second).saturating_sub(unix_time());
    // One millisecond more, so that the second has come even if the two clocks differ slightly in speed.
    timers.exactly_after(left + Duration::from_millis(1))
}

//! HTTP: one worker thread's share of the connections. hyper parses requests and writes ordinary answers; a
//! request that has to wait leaves hyper (see `connection`).

mod accept;
mod answer;
mod connection;
mod h2;
mod held;
mod io;
mod pages;
mod query;
mod router;
mod service;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use comet_proto::ChannelName;
use slab::Slab;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{CompatConfig, HttpConfig},
    hub::subscriber::Audience,
    metrics::Metrics,
};
use answer::DateLine;
use connection::Conn;

/// What all workers know: settings that do not change while the daemon runs.
pub struct Site {
    pub config: HttpConfig,
    pub compat: CompatConfig,
    /// The channel of the zeitoun chat.
    pub chat: ChannelName,
    /// Publishing over HTTP is on.
    pub publish: bool,
    /// Connections over all workers.
    pub max_connections: u64,
    /// With `--demo`: what the pages tell.
    pub demo: Option<Demo>,
    pub metrics: Arc<Metrics>,
    /// No more is published.
    pub stop: CancellationToken,
}

/// What the demo pages tell about this daemon.
pub struct Demo {
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub listen: SocketAddr,
}

/// Waits and time-outs are counted in these: no timer a connection.
const TICK: Duration = Duration::from_millis(250);

/// One thread's connections.
struct Worker {
    site: Arc<Site>,
    audience: Rc<Audience>,
    conns: RefCell<Slab<Rc<Conn>>>,
    /// Ticks since the start.
    now: Cell<u32>,
    date: DateLine,
    stopping: Cell<bool>,
    stop: CancellationToken,
}

impl Worker {
    /// The tick at which something that lasts `duration` from now is over; never too early.
    fn tick_after(&self, duration: Duration) -> u32 {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis()) + 1;
        self.now
            .get()
            .saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    fn tick(&self) {
        self.date.refresh();
        let now = self.now.get();
        for (_, conn) in self.conns.borrow().iter() {
            conn.expire(now);
        }
        if now.is_multiple_of(4) {
            self.audience.tidy();
            let mut conns = self.conns.borrow_mut();
            if conns.len() < conns.capacity() / 8 {
                conns.shrink_to_fit();
            }
        }
    }
}

/// Serves until `stop`; then answers all who wait and returns when the last connection has closed. The caller
/// sets a deadline.
///
/// # Errors
/// When the listener cannot be used, or a part of the worker has failed.
pub async fn serve(
    listener: std::net::TcpListener,
    site: Arc<Site>,
    audience: Rc<Audience>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let worker = Rc::new(Worker {
        site,
        audience: audience.clone(),
        conns: RefCell::default(),
        now: Cell::new(0),
        date: DateLine::default(),
        stopping: Cell::new(false),
        stop: stop.clone(),
    });
    let mut deliveries = tokio::task::spawn_local(async move { audience.run().await });
    let mut ticks = tokio::task::spawn_local(run_ticks(worker.clone()));

    tokio::select! {
        () = accept::run(&listener, &worker) => {}
        () = stop.cancelled() => {}
        // Only by a mistake of ours: without them nobody here would be told anything any more.
        failed = &mut deliveries => return Ok(failed?),
        failed = &mut ticks => return Ok(failed?),
    }
    drop(listener);
    worker.stopping.set(true);
    for (_, conn) in worker.conns.borrow().iter() {
        conn.say_farewell();
    }
    while !worker.conns.borrow().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    deliveries.abort();
    ticks.abort();
    Ok(())
}

async fn run_ticks(worker: Rc<Worker>) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let now = start.elapsed().as_millis() / TICK.as_millis();
        worker.now.set(u32::try_from(now).unwrap_or(u32::MAX));
        worker.tick();
    }
}

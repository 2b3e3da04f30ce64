//! One worker thread: its connections, its subscribers, and its end.

use std::{io, rc::Rc, sync::Arc};

use tokio::{sync::watch, task::spawn_local};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    compat::port::Port,
    connection::{Conn, ConnectionLimits, Worker},
    drain::Drain,
    http::{Http, Site},
    hub::subscriber::Audience,
    worker::{Door, SharedParts},
};

/// What a worker thread gets from the thread that starts it.
pub(super) struct ThreadParts {
    pub(super) shared: SharedParts,
    pub(super) ports: Arc<[Arc<dyn Port>]>,
    /// Another process (systemd) also holds the listeners open. Connections that are not accepted wait for the next
    /// daemon.
    pub(super) outlives: bool,
    pub(super) sites: watch::Receiver<Arc<Site>>,
    /// The thread publishes nothing after this is dropped.
    pub(super) publisher: TaskTrackerToken,
}

/// Serves connections on the thread with this audience until the daemon stops. When the daemon publishes nothing any more,
/// answers all waiting clients, and returns when the last connection has closed. The caller sets a deadline. Calls
/// `count_tick` at each tick.
///
/// # Errors
/// When the listeners cannot be used, or a part of the thread has failed.
pub(super) fn serve(
    parts: ThreadParts,
    audience: Rc<Audience>,
    count_tick: impl Fn(),
) -> io::Result<()> {
    let site = parts.sites.borrow().clone();
    let limits = ConnectionLimits::new(site.metrics.clone(), site.config.write_time, site.ceiling);
    let http = Rc::new(Http::new(site.clone(), audience.clone()));
    let doors = doors(&http, &parts.ports, &audience, &site);
    let (worker, events) = Worker::new(audience.worker(), parts.shared, doors, limits)?;
    let stop = Stop {
        drain: site.drain.clone(),
        publisher: parts.publisher,
        outlives: parts.outlives,
    };
    let main = run(&worker, &http, &audience, parts.sites, stop);
    let tick = || {
        http.begin_tick(&worker);
        worker.tick(|| audience.tidy());
        count_tick();
    };
    events.run(&worker, main, tick)?
}

/// The doors by their number: first the door for HTTP, then the doors for other ports.
fn doors(
    http: &Rc<Http>,
    ports: &[Arc<dyn Port>],
    audience: &Rc<Audience>,
    site: &Arc<Site>,
) -> Vec<Box<dyn Door<Conn>>> {
    let others = ports.iter().map(|port| port.door(audience, site));
    std::iter::once(http.clone().door()).chain(others).collect()
}

/// The thread's main task: delivers messages and follows the settings until the daemon stops, and then ends the worker.
async fn run(
    worker: &Rc<Worker>,
    http: &Rc<Http>,
    audience: &Rc<Audience>,
    sites: watch::Receiver<Arc<Site>>,
    stop: Stop,
) -> io::Result<()> {
    let audience = audience.clone();
    let mut deliveries = spawn_local(async move { audience.run().await });
    spawn_local(follow(worker.clone(), http.clone(), sites));
    tokio::select! {
        () = stop.wait(worker) => {}
        // Only a bug can end the delivery loop. Without it no client of this thread would get messages.
        failed = &mut deliveries => return Ok(failed?),
    }
    worker.stop().await;
    Ok(())
}

/// Passes changed settings to the connections.
async fn follow(worker: Rc<Worker>, http: Rc<Http>, mut sites: watch::Receiver<Arc<Site>>) {
    while sites.changed().await.is_ok() {
        let site = sites.borrow_and_update().clone();
        worker.context.set(site.config.write_time, site.ceiling);
        http.replace_site(&worker, site);
    }
}

/// How the thread learns that the daemon stops.
struct Stop {
    drain: Drain,
    publisher: TaskTrackerToken,
    outlives: bool,
}

impl Stop {
    /// Waits until the daemon publishes nothing any more.
    async fn wait(self, worker: &Worker) {
        self.drain.stop.cancelled().await;
        if self.outlives {
            worker.accept_no_more();
        }
        // A publish checks `stop` and completes without an await on this thread. This code runs on the same thread, so
        // no publish is in progress.
        drop(self.publisher);
        self.drain.leave.cancelled().await;
    }
}

//! One worker thread: its connections, its subscribers, and its end.

use std::{io, rc::Rc, sync::Arc};

use tokio::{sync::watch, task::spawn_local};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::settings::ServedSettings;
use crate::{
    compat::port::{Port, PortContext},
    connection::{Conn, ConnectionLimits, Worker},
    drain::Drain,
    http::Http,
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
    pub(super) served: watch::Receiver<ServedSettings>,
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
    let ServedSettings { site, rights } = parts.served.borrow().clone();
    let limits = ConnectionLimits::new(site.metrics.clone(), site.config.write_time, site.ceiling);
    let http = Rc::new(Http::new(site.clone(), audience.clone()));
    let context = PortContext::new(&audience, site.clone(), rights);
    let doors = doors(&http, &parts.ports, &context);
    let (worker, events) = Worker::new(audience.worker(), parts.shared, doors, limits)?;
    let stop = Stop {
        drain: site.drain.clone(),
        publisher: parts.publisher,
        outlives: parts.outlives,
    };
    let follow = follow(worker.clone(), http.clone(), context, parts.served);
    let main = run(&worker, &audience, follow, stop);
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
    context: &Rc<PortContext>,
) -> Vec<Box<dyn Door<Conn>>> {
    let others = ports.iter().map(|port| port.door(context));
    std::iter::once(http.clone().door()).chain(others).collect()
}

/// The thread's main task: delivers messages and follows the settings until the daemon stops, and then ends the worker.
async fn run(
    worker: &Rc<Worker>,
    audience: &Rc<Audience>,
    follow: impl Future<Output = ()> + 'static,
    stop: Stop,
) -> io::Result<()> {
    let audience = audience.clone();
    let mut deliveries = spawn_local(async move { audience.run().await });
    spawn_local(follow);
    tokio::select! {
        () = stop.wait(worker) => {}
        // Only a bug can end the delivery loop. Without it no client of this thread would get messages.
        failed = &mut deliveries => return Ok(failed?),
    }
    worker.stop().await;
    Ok(())
}

/// Passes changed settings to the connections.
async fn follow(
    worker: Rc<Worker>,
    http: Rc<Http>,
    context: Rc<PortContext>,
    mut served: watch::Receiver<ServedSettings>,
) {
    while served.changed().await.is_ok() {
        let ServedSettings { site, rights } = served.borrow_and_update().clone();
        worker.context.set(site.config.write_time, site.ceiling);
        // The ports get the new settings first: `replace_site` makes each connection check its rights, and connections of ports
        // read their settings from `context`.
        context.replace(site.clone(), rights);
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

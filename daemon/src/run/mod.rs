//! Builds and starts all parts of the daemon (threads, listeners, signals), and stops them in order.

mod listeners;
mod manager;
mod settings;

use std::{
    io::{self, Write},
    path::PathBuf,
    pin::pin,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    broker::{Broker, Local},
    config::Config,
    drain::Drain,
    http::{self, Site},
    hub::{Hub, HubStatus, MAX_WORKERS, Promise, StoreStatus, subscriber::Audience},
    machine,
    metrics::Metrics,
    source::{
        files::{EventsRead, Files, Watcher},
        socket::Socket,
        spool::Spool,
    },
    store::{self, Directory, Durability},
    worker::{Balance, Errand, Shared, Work, WorkDone},
};

use listeners::Passed;
use manager::Manager;
pub use manager::Pulse;
pub use settings::Reread;
use settings::{Settings, SiteParts};

/// Descriptors that are reserved for files, the Unix socket and everything else that is not a browser.
const RESERVED_DESCRIPTORS: u64 = 256;

/// A smaller difference does not count as a step of the clock.
const STEP: Duration = Duration::from_secs(1);

/// The advice when the system cannot start a thread.
const NO_THREAD: &str = "cannot start a thread; raise the limit of processes (ulimit -u, LimitNPROC= and TasksMax= of the \
                         service, pids.max of its control group)";

/// Interval in which expired messages are dropped.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT. On SIGHUP it reads the settings again with `reread`; if that is `None`,
/// SIGHUP ends the daemon, too.
///
/// # Errors
/// What could not be opened, and why.
///
/// `file` is the configuration file, for `comet status`.
pub fn serve(given: Config, file: Option<PathBuf>, reread: Option<Reread>) -> anyhow::Result<()> {
    let (mut passed, manager) = (Passed::take()?, Manager::from_env());
    let mut config = given.clone();
    if let Some(addr) = passed.http_addr()? {
        config.listen = addr;
    }
    passed.warn_of_unused(&given);
    config.check()?;
    if let Some(warning) = config.too_much_memory() {
        warn!("{warning}");
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // The control thread has subscribers, too, so it counts as one more worker.
    let workers = config.workers.unwrap_or(cores).clamp(1, MAX_WORKERS - 1);
    let descriptors = raise_descriptor_limit()?;
    let listeners = listeners::open(&mut passed, config.listen, workers)?;
    let addr = listeners.address;
    let (socket_path, mut socket) = open_socket(passed, &config)?;
    let metrics = Arc::new(Metrics::default());
    let hub = open_hub(&config, workers + 1)?;
    let broker: Arc<dyn Broker> = Local::new(hub.clone());
    let drain = Drain::default();
    let watcher = Watcher::new().context("cannot watch for files")?;
    let mut files = Files::open(
        &config,
        watcher.clone(),
        &hub,
        broker.clone(),
        metrics.clone(),
    )
    .context("cannot watch for files")?;
    let parts = SiteParts {
        addr,
        socket: socket_path.clone(),
        room: descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1),
        hub: hub.clone(),
        broker: broker.clone(),
        metrics: metrics.clone(),
        drain: drain.clone(),
    };
    let spool_path = comet_client::spool_path(config.spool.dir.as_deref(), &socket_path);
    let mut spool = Spool::open(spool_path, &config, broker.clone(), metrics.clone())
        .context("cannot take messages from the spool")?;
    let settings = Settings::new(given, config, parts)?;

    local_runtime()?.block_on(async {
        let (started, pulse) = (Instant::now(), Pulse::new(workers));
        let audience = Audience::new(hub.clone(), workers);
        let keeping = hub.start_keeping().context(NO_THREAD)?;
        // Messages in the spool are older than any new message.
        spool.publish().await;
        let shared = Shared {
            listeners: listeners.sockets.into(),
            balance: Balance::new(workers).into(),
            errand: Errand::new(watcher, workers),
            metrics: metrics.clone(),
        };
        let threads = start_workers(
            workers,
            &shared,
            listeners.outlives,
            &settings.sites(),
            &hub,
            &drain,
            &pulse,
        )
        .context(NO_THREAD)?;
        let status = {
            let (hub, metrics) = (hub.clone(), metrics.clone());
            let places = Arc::new(Places {
                listen: addr.to_string(),
                socket: socket_path.clone(),
                dir: settings.now().dir.clone(),
                config: file,
            });
            move || Status::new(started, &places, &hub, metrics.clone())
        };
        socket.follow(settings.configs());
        files.follow(settings.configs());
        let mut sources = JoinSet::new();
        let drained = drain.clone();
        sources.spawn_local(socket.run(audience.clone(), broker, metrics.clone(), status, drained));
        sources.spawn_local(watch(files, drain.clone()));
        sources.spawn_local(take(spool, settings.configs(), drain.clone())?);
        let deliveries = tokio::task::spawn_local(deliver(audience.clone()));
        let config = settings.now();
        let (socket, dir) = (socket_path.display(), config.dir.display());
        // Signals are handled before the daemon reports that it is ready, because the reader may stop it at once.
        let signals = Signals::new()?;
        let ready = format!("listening on http://{addr}, socket {socket}, watching {dir}");
        let _ = writeln!(io::stdout(), "comet: {ready}"); // if standard output is closed, the daemon runs anyway
        manager.ready(&ready);
        tokio::task::spawn_local(keep_alive(manager.clone(), pulse, drain.clone()));
        let reload = reread.map(|reread| {
            let (manager, settings, ready) = (&manager, &settings, &ready);
            async move || {
                manager.reloading();
                let said = settings.reload(&reread).await;
                manager.ready(&format!("{said}; {ready}"));
            }
        });

        tokio::select! {
            signal = signals.stop(reload) => info!("{signal} received, stopping"),
            () = expire(&hub, &audience) => {}
            // None of these tasks ends by itself. A restart is better than a daemon that looks healthy and publishes nothing.
            _ = sources.join_next() => bail!("a source has failed; see above"),
            _ = deliveries => bail!("the socket's subscribers cannot be served any more; see above"),
            () = one_has_ended(&threads) => bail!("a worker thread has failed; see above"),
        }
        manager.stopping();
        let grace = settings.now().grace;
        let ended = async {
            // Deliver every acknowledged message before waiting clients get their last answers.
            drain.run(grace / 2, || metrics.clients()).await;
            all_done(&mut sources).await;
            all_have_ended(&threads).await;
        };
        if timeout(grace, ended).await.is_err() {
            warn!(?grace, "some clients took too long to leave: connections cut");
        }
        keeping.stop().context("not everything is kept")
    })
}

/// Opens the hub with the history that an earlier daemon kept.
fn open_hub(config: &Config, workers: usize) -> anyhow::Result<Arc<Hub>> {
    let (history, store) = (config.history.clone(), &config.store);
    let given = store.dir.as_deref();
    if store.durability == Durability::Memory {
        store::end(given)?;
        return Ok(Hub::new(history, workers));
    }
    let dir = store::directory(given)?;
    let disk = Directory::open(&dir).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => anyhow::anyhow!(
            "another comet keeps its history in {} (use another directory with --store or COMET_STORE)",
            dir.display()
        ),
        _ => anyhow::anyhow!(
            "cannot keep history in {}: {error} (use another directory with --store or COMET_STORE)",
            dir.display()
        ),
    })?;
    let promise = Promise {
        durability: store.durability,
        on_error: store.on_error,
        rewrite_bytes: store.rewrite as u64,
        boot: store::boot(),
    };
    let begun = Instant::now();
    let (hub, found) = Hub::open(history, workers, Arc::new(disk), &promise)
        .context("cannot read the history in the log")?;
    found.log(&dir, begun.elapsed());
    Ok(hub)
}

/// The addresses and the configuration file, for `comet status`.
#[derive(Serialize)]
struct Places {
    listen: String,
    socket: PathBuf,
    dir: PathBuf,
    /// The configuration file.
    config: Option<PathBuf>,
}

/// The figures that `comet status` shows.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    pid: u32,
    uptime_seconds: u64,
    /// Resident memory in bytes.
    memory_bytes: Option<u64>,
    #[serde(flatten)]
    places: Arc<Places>,
    hub: HubStatus,
    /// `None`: there is no log, and messages are lost when the daemon ends.
    store: Option<StoreStatus>,
    files: FilesStatus,
    metrics: Arc<Metrics>,
}

/// The notices of the files source.
struct FilesStatus(Arc<Metrics>);

impl Serialize for FilesStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.files_notices.serialize(serializer)
    }
}

impl Status {
    fn new(started: Instant, places: &Arc<Places>, hub: &Hub, metrics: Arc<Metrics>) -> Self {
        Self {
            places: places.clone(),
            memory_bytes: machine::resident(),
            files: FilesStatus(metrics.clone()),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: started.elapsed().as_secs(),
            hub: hub.status(),
            store: hub.store_status(),
            metrics,
        }
    }
}

/// Uses the socket that was passed, or opens one.
fn open_socket(passed: Passed, config: &Config) -> anyhow::Result<(PathBuf, Socket)> {
    let path = passed.socket_path();
    let path = match path {
        Some(path) => path,
        None => comet_client::socket_path(config.socket.path.as_deref())?,
    };
    let socket = match passed.socket {
        Some(listener) => Socket::passed(listener, config),
        None => Socket::bind(&path, config)
            .context("cannot serve the socket (--socket or COMET_SOCKET names another)")?,
    };
    Ok((path, socket))
}

async fn keep_alive(manager: Manager, pulse: Arc<Pulse>, drain: Drain) {
    manager.keep_alive(pulse, drain).await;
}

async fn watch(files: Files, drain: Drain) {
    let _publisher = drain.publisher();
    files.run(drain.stop).await;
}

/// Starts the spool's thread. Returns a future that ends when the thread does.
fn take(
    spool: Spool,
    configs: watch::Receiver<Arc<Config>>,
    drain: Drain,
) -> anyhow::Result<impl Future<Output = ()>> {
    let (ends, ended) = oneshot::channel::<()>();
    let guard = (drain.publisher(), ends);
    let started = spool.start(configs, drain.stop, guard);
    started.context(NO_THREAD)?;
    Ok(async move { _ = ended.await })
}

async fn deliver(audience: Rc<Audience>) {
    audience.run().await;
}

/// Tasks that run before the runtime looks for new events. One task may take a [turn](crate::source::socket) of 100 µs, and with
/// tokio's 61 a new connection would wait for 61 of them.
const TASKS_BEFORE_EVENTS: u32 = 8;

/// Builds a current-thread runtime: tasks never move to another thread, so they need no locks.
fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_BEFORE_EVENTS)
        .build_local(LocalOptions::default())
}

/// Watches the directory on the workers.
impl Work for Watcher {
    fn run(&self) -> WorkDone {
        let EventsRead { more, woken } = self.read_events();
        WorkDone { more, woken }
    }
}

/// Starts a thread that serves browsers.
type Worker = JoinHandle<io::Result<()>>;

fn start_workers(
    workers: usize,
    shared: &Shared,
    outlives: bool,
    sites: &watch::Receiver<Arc<Site>>,
    hub: &Arc<Hub>,
    drain: &Drain,
    pulse: &Arc<Pulse>,
) -> io::Result<Vec<Worker>> {
    let start = |number| {
        let (shared, sites, hub) = (shared.clone(), sites.clone(), hub.clone());
        let (publisher, pulse) = (drain.publisher(), pulse.clone());
        thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                let audience = Audience::new(hub, number);
                let beat = || pulse.beat(number);
                http::serve(shared, outlives, sites, audience, publisher, beat)
            })
    };
    (0..workers).map(start).collect()
}

async fn all_done(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn all_have_ended(threads: &[Worker]) {
    while threads.iter().any(|thread| !thread.is_finished()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn one_has_ended(threads: &[Worker]) {
    while !threads.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn expire(hub: &Hub, audience: &Rc<Audience>) {
    let mut seconds = tokio::time::interval(EXPIRE_EVERY);
    let mut was_ahead = Duration::ZERO;
    loop {
        seconds.tick().await;
        let ahead = hub.ahead();
        if ahead > was_ahead + STEP {
            warn!(
                ?ahead,
                "the clock has stepped back; ids go on from where it was"
            );
        } else if ahead < STEP && was_ahead >= STEP {
            info!("the clock has caught up with the ids");
        }
        was_ahead = ahead;
        // In parts, so that publishers need not wait until a hundred thousand channels have expired.
        while hub.expire_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        audience.tidy();
    }
}

/// The signals that end the daemon or change its settings.
struct Signals {
    term: Signal,
    int: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to handle the signals.
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(mut self, reload: Option<impl AsyncFn()>) -> &'static str {
        loop {
            let (mut term, mut int) = (pin!(self.term.recv()), pin!(self.int.recv()));
            tokio::select! {
                _ = &mut term => return "SIGTERM",
                _ = &mut int => return "SIGINT",
                _ = self.hangup.recv() => {}
            }
            let Some(reload) = &reload else {
                return "SIGHUP";
            };
            tokio::select! {
                _ = term => return "SIGTERM",
                _ = int => return "SIGINT",
                () = reload() => {}
            }
        }
    }
}

/// Raises the soft limit of descriptors to the hard limit, because each browser needs a descriptor.
fn raise_descriptor_limit() -> anyhow::Result<u64> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the descriptor limit")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .context("cannot raise the descriptor limit")?;
    }
    Ok(hard)
}

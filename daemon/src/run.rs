//! Puts the parts together: threads, listeners, signals, and the end of it all.

mod settings;

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use socket2::{Domain, Protocol, Type};
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    config::Config,
    drain::Drain,
    http::{self, Site},
    hub::{Hub, HubStatus, MAX_WORKERS, subscriber::Audience},
    metrics::Metrics,
    source::{files::Files, socket::Socket, spool::Spool},
};

pub use settings::Reread;
use settings::{Ground, Settings};

/// Descriptors that are kept for files, the Unix socket and whatever else is not a browser.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Connections that the kernel may complete before they are accepted.
const BACKLOG: i32 = 4096;

/// How often old history is dropped.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP has the settings read again; where there is nothing to read
/// (`None`) it ends the daemon, too.
///
/// # Errors
/// What could not be opened, and why.
pub fn serve(config: Config, reread: Option<Reread<'_>>) -> anyhow::Result<()> {
    config.check()?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // The control thread's subscribers need a bit too.
    let workers = config.workers.unwrap_or(cores).clamp(1, MAX_WORKERS - 1);
    let descriptors = raise_descriptor_limit()?;
    let (listeners, addr) = bind(config.listen, workers)?;
    let socket_path = comet_client::socket_path(config.socket.path.as_deref())?;
    let mut socket = Socket::bind(&socket_path, &config)
        .context("cannot serve the socket (--socket or COMET_SOCKET names another)")?;
    let metrics = Arc::new(Metrics::default());
    let hub = Hub::new(config.history.clone(), workers + 1);
    let drain = Drain::default();
    let mut files =
        Files::open(&config, hub.clone(), metrics.clone()).context("cannot watch for files")?;
    let ground = Ground {
        addr,
        socket: socket_path.clone(),
        room: descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1),
        hub: hub.clone(),
        metrics: metrics.clone(),
        drain: drain.clone(),
    };
    let spool_path = comet_client::spool_path(config.spool.dir.as_deref(), &socket_path);
    let mut spool = Spool::open(spool_path, &config, hub.clone(), metrics.clone())
        .context("cannot take messages from the spool")?;
    let settings = Settings::new(config, ground)?;

    local_runtime()?.block_on(async {
        let started = Instant::now();
        let audience = Audience::new(hub.clone(), workers);
        // Its messages are older than any that comes now.
        spool.publish().await;
        let threads = start_workers(listeners, &settings.sites(), &hub, &drain)?;
        let status = {
            let (hub, metrics) = (hub.clone(), metrics.clone());
            move || Status::new(started, &hub, metrics.clone())
        };
        socket.follow(settings.configs());
        files.follow(settings.configs());
        let mut sources = JoinSet::new();
        sources.spawn_local(socket.run(audience.clone(), metrics.clone(), status, drain.clone()));
        sources.spawn_local(watch(files, drain.clone()));
        sources.spawn_local(take(spool, settings.configs(), drain.clone()));
        let deliveries = tokio::task::spawn_local(deliver(audience.clone()));
        let config = settings.now();
        let (socket, dir) = (socket_path.display(), config.dir.display());
        // Before it is said that we are ready: whoever reads that may stop us at once.
        let signals = Signals::new()?;
        let ready = format!("comet: listening on http://{addr}, socket {socket}, watching {dir}");
        let _ = writeln!(io::stdout(), "{ready}"); // where nobody reads it, we serve all the same

        tokio::select! {
            signal = signals.stop(reread.map(|reread| || settings.reload(reread))) => info!("{signal} received, stopping"),
            () = expire(&hub, &audience) => {}
            // None of these ends by itself. Better a restart than a daemon that looks well and is deaf.
            _ = sources.join_next() => bail!("a source has failed; see above"),
            _ = deliveries => bail!("the socket's subscribers cannot be served any more; see above"),
            () = one_has_ended(&threads) => bail!("a worker thread has failed; see above"),
        }
        let grace = settings.now().grace;
        let ended = async {
            // What is still acknowledged reaches those who wait before they get their last answer.
            drain.run(grace / 2, || metrics.clients()).await;
            all_done(&mut sources).await;
            all_have_ended(&threads).await;
        };
        if timeout(grace, ended).await.is_err() {
            warn!(?grace, "some clients took too long to leave: connections cut");
        }
        Ok(())
    })
}

/// What `comet status` shows.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    pid: u32,
    uptime_seconds: u64,
    hub: HubStatus,
    metrics: Arc<Metrics>,
}

impl Status {
    fn new(started: Instant, hub: &Hub, metrics: Arc<Metrics>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: started.elapsed().as_secs(),
            hub: hub.status(),
            metrics,
        }
    }
}

async fn watch(files: Files, drain: Drain) {
    let _publisher = drain.publisher();
    files.run(drain.stop).await;
}

async fn take(spool: Spool, configs: watch::Receiver<Arc<Config>>, drain: Drain) {
    let _publisher = drain.publisher();
    spool.run(configs, drain.stop).await;
}

async fn deliver(audience: Rc<Audience>) {
    audience.run().await;
}

/// Everything of one thread stays on it: no locks, no moving of tasks.
fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// A thread that holds browsers.
type Worker = JoinHandle<io::Result<()>>;

fn start_workers(
    listeners: Vec<TcpListener>,
    sites: &watch::Receiver<Arc<Site>>,
    hub: &Arc<Hub>,
    drain: &Drain,
) -> io::Result<Vec<Worker>> {
    let start = |(number, listener)| {
        let (sites, hub) = (sites.clone(), hub.clone());
        let publisher = drain.publisher();
        thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                let runtime = local_runtime()?;
                runtime.block_on(http::serve(
                    listener,
                    sites,
                    Audience::new(hub, number),
                    publisher,
                ))
            })
    };
    listeners.into_iter().enumerate().map(start).collect()
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
    loop {
        seconds.tick().await;
        // In parts: whoever publishes must not wait for a hundred thousand channels to expire.
        while hub.expire_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        audience.tidy();
    }
}

/// What ends the daemon, or changes its settings.
struct Signals {
    term: Signal,
    int: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they are ours.
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(mut self, reload: Option<impl Fn()>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.term.recv() => return "SIGTERM",
                _ = self.int.recv() => return "SIGINT",
                _ = self.hangup.recv() => match &reload {
                    Some(reload) => reload(),
                    None => return "SIGHUP",
                },
            }
        }
    }
}

/// One listener a worker on the same port: the kernel deals connections out.
fn bind(addr: SocketAddr, workers: usize) -> anyhow::Result<(Vec<TcpListener>, SocketAddr)> {
    let bind = || {
        if addr.port() != 0 {
            // A shared port can be shared with a second daemon by mistake; a plain bind finds that out.
            drop(listener(addr, false)?);
        }
        let first = listener(addr, true)?;
        let addr = first.local_addr()?;
        let others = (1..workers).map(|_| listener(addr, true));
        Ok((
            std::iter::once(Ok(first))
                .chain(others)
                .collect::<io::Result<Vec<_>>>()?,
            addr,
        ))
    };
    bind().map_err(|e: io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "cannot listen on {addr}: something else listens there already (another comet?)"
            )
        }
        _ => anyhow::anyhow!("cannot listen on {addr}: {e}"),
    })
}

fn listener(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes all that the hard limit allows: one browser is one descriptor.
fn raise_descriptor_limit() -> anyhow::Result<u64> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the descriptor limit")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .context("cannot raise the descriptor limit")?;
    }
    Ok(hard)
}

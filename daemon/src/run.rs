//! Puts the parts together: threads, listeners, signals, and the end of it all.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use comet_proto::ChannelName;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use socket2::{Domain, Protocol, Type};
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    config::Config,
    drain::Drain,
    http::{self, Demo, Rights, Site},
    hub::{Hub, HubStatus, MAX_WORKERS, subscriber::Audience},
    metrics::Metrics,
    source::{files::Files, socket::Socket, spool::Spool},
};

/// Descriptors that are kept for files, the Unix socket and whatever else is not a browser.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Connections that the kernel may complete before they are accepted.
const BACKLOG: i32 = 4096;

/// How often old history is dropped.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be opened, and why.
pub fn serve(config: Config) -> anyhow::Result<()> {
    config.check_readers()?;
    let channels = &config.channels;
    if !channels.socket.is_empty() || !channels.files.is_empty() {
        bail!(
            "socket and files under [[channel]] are not enforced yet: this daemon takes read and publish there"
        );
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // The control thread's subscribers need a bit too.
    let workers = config.workers.unwrap_or(cores).clamp(1, MAX_WORKERS - 1);
    let descriptors = raise_descriptor_limit()?;
    let (listeners, addr) = bind(config.listen, workers)?;
    let socket_path = comet_client::socket_path(config.socket.path.as_deref())?;
    let socket = Socket::bind(&socket_path, &config.socket)
        .context("cannot serve the socket (--socket or COMET_SOCKET names another)")?;
    let metrics = Arc::new(Metrics::default());
    let hub = Hub::new(config.history.clone(), workers + 1);
    let drain = Drain::default();
    let site = Arc::new(site(
        &config,
        addr,
        &socket_path,
        descriptors,
        metrics.clone(),
        drain.clone(),
    )?);
    let files = Files::open(
        &config.dir,
        config.files.clone(),
        config.demo,
        hub.clone(),
        metrics.clone(),
    )
    .context("cannot watch for files")?;
    let spool_path = comet_client::spool_path(config.spool.dir.as_deref(), &socket_path);
    let mut spool = Spool::open(spool_path, &config, hub.clone(), metrics.clone())
        .context("cannot take messages from the spool")?;

    local_runtime()?.block_on(async {
        let started = Instant::now();
        let audience = Audience::new(hub.clone(), workers);
        // Its messages are older than any that comes now.
        spool.publish().await;
        let threads = start_workers(listeners, &site, &hub)?;
        let status = {
            let (hub, metrics) = (hub.clone(), metrics.clone());
            move || Status::new(started, &hub, metrics.clone())
        };
        let mut sources = JoinSet::new();
        sources.spawn_local(socket.run(audience.clone(), metrics.clone(), status, drain.clone()));
        sources.spawn_local(watch(files, drain.clone()));
        sources.spawn_local(take(spool, drain.clone()));
        let deliveries = tokio::task::spawn_local(deliver(audience.clone()));
        let (socket, dir) = (socket_path.display(), config.dir.display());
        // Before it is said that we are ready: whoever reads that may stop us at once.
        let signals = Signals::new()?;
        let ready = format!("comet: listening on http://{addr}, socket {socket}, watching {dir}");
        let _ = writeln!(io::stdout(), "{ready}"); // where nobody reads it, we serve all the same

        tokio::select! {
            signal = signals.stop() => info!("{signal} received, stopping"),
            () = expire(&hub, &audience) => {}
            // None of these ends by itself. Better a restart than a daemon that looks well and is deaf.
            _ = sources.join_next() => bail!("a source has failed; see above"),
            _ = deliveries => bail!("the socket's subscribers cannot be served any more; see above"),
            () = one_has_ended(&threads) => bail!("a worker thread has failed; see above"),
        }
        let ended = async {
            // What is still acknowledged reaches those who wait before they get their last answer.
            drain.run(config.grace / 2, || metrics.clients()).await;
            all_done(&mut sources).await;
            all_have_ended(&threads).await;
        };
        if timeout(config.grace, ended).await.is_err() {
            warn!(grace = ?config.grace, "some clients took too long to leave: connections cut");
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

async fn take(spool: Spool, drain: Drain) {
    let _publisher = drain.publisher();
    spool.run(drain.stop).await;
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
    site: &Arc<Site>,
    hub: &Arc<Hub>,
) -> io::Result<Vec<Worker>> {
    let start = |(number, listener)| {
        let (site, hub) = (site.clone(), hub.clone());
        let publisher = site.drain.publisher();
        thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                let runtime = local_runtime()?;
                runtime.block_on(http::serve(
                    listener,
                    site,
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

/// What ends the daemon.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// From here on they are ours.
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn stop(mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

fn site(
    config: &Config,
    addr: SocketAddr,
    socket: &std::path::Path,
    descriptors: u64,
    metrics: Arc<Metrics>,
    drain: Drain,
) -> anyhow::Result<Site> {
    let room = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1);
    let max_connections = config
        .http
        .max_connections
        .map_or(room, |max| room.min(max as u64));
    let chat =
        ChannelName::parse(&config.compat.zeitoun_channel).context("compat.zeitoun_channel")?;
    Ok(Site {
        config: config.http.clone(),
        compat: config.compat.clone(),
        chat,
        rights: Rights::new(config)?,
        max_connections,
        demo: config.demo.then(|| Demo {
            dir: config.dir.clone(),
            socket: PathBuf::from(socket),
            listen: addr,
        }),
        metrics,
        drain,
    })
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

//! The whole daemon: builds all parts before any of them runs, then starts them, and stops them in order.

use std::{path::PathBuf, rc::Rc, sync::Arc, time::Instant};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::warn;

use super::{
    expiry,
    history::open_hub,
    listeners::{HttpListeners, OpenSockets},
    manager::TickCounts,
    settings::{Settings, SiteParts},
    sources::Sources,
    status::{Places, StatusReport},
    workers::{self, NO_THREAD, WorkerParts, WorkerThreads},
};
use crate::{
    broker::{Broker, Local},
    compat::port::Port,
    config::Config,
    drain::Drain,
    hub::{Hub, LogThreads, subscriber::Audience},
    metrics::Metrics,
    presence::LocalPresence,
    source::files::Watcher,
    worker::{Balance, MigratingHandler, SharedParts},
};

/// Descriptors that are reserved for files, the Unix socket and everything else that is not a browser.
const RESERVED_DESCRIPTORS: u64 = 256;

/// A daemon with all its parts, before any of them runs.
pub(super) struct Daemon {
    settings: Settings,
    hub: Arc<Hub>,
    presence: Arc<LocalPresence>,
    metrics: Arc<Metrics>,
    drain: Drain,
    sources: Sources,
    workers: usize,
    listeners: HttpListeners,
    ports: Vec<Arc<dyn Port>>,
    watcher: Arc<Watcher>,
    places: Places,
}

impl Daemon {
    /// Builds all parts. `given` is `config` without the changes that passed sockets have made; `file` is the
    /// configuration file, for `comet status`.
    pub(super) fn build(
        sockets: OpenSockets,
        config: Config,
        given: Config,
        file: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let (addr, path) = (sockets.addr(), sockets.unix_path);
        let descriptors = raise_descriptor_limit()?;
        let workers = workers::number(&config);
        let hub = open_hub(&config, workers + 1)?;
        let broker: Arc<dyn Broker> = Local::new(hub.clone());
        let is_restart = hub.status().messages > 0;
        let presence = LocalPresence::new(hub.clone(), broker.clone(), is_restart);
        let (metrics, drain) = (Arc::new(Metrics::default()), Drain::default());
        let watcher = Watcher::new().context("cannot watch for files")?;
        let sources = Sources::open(
            &config,
            sockets.unix,
            &path,
            watcher.clone(),
            &hub,
            broker.clone(),
            &metrics,
        )?;
        let places = Places {
            listen: addr.to_string(),
            ports: sockets.port_addresses,
            socket: path.clone(),
            dir: config.dir.clone(),
            config: file,
        };
        let parts = SiteParts {
            addr,
            socket: path,
            room: descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1),
            hub: hub.clone(),
            broker,
            presence: presence.clone(),
            metrics: metrics.clone(),
            drain: drain.clone(),
        };
        Ok(Self {
            settings: Settings::new(given, config, parts)?,
            hub,
            presence,
            metrics,
            drain,
            sources,
            workers,
            listeners: sockets.http,
            ports: sockets.ports,
            watcher,
            places,
        })
    }

    /// Starts all parts. Needs a current-thread runtime with local tasks.
    pub(super) async fn start(mut self) -> anyhow::Result<Running> {
        let (started, places) = (Instant::now(), Arc::new(self.places));
        let keeping = self.hub.start_log_threads().context(NO_THREAD)?;
        self.sources.publish_spool().await;
        let tick_counts = TickCounts::new(self.workers);
        let shared = SharedParts {
            listeners: self.listeners.sockets.into(),
            balance: Balance::new(self.workers).into(),
            handler: MigratingHandler::new(self.watcher, self.workers),
            metrics: self.metrics.clone(),
        };
        let workers = WorkerParts {
            shared,
            ports: self.ports.into(),
            outlives: self.listeners.outlives,
            served: self.settings.served(),
            hub: self.hub.clone(),
            drain: self.drain.clone(),
            tick_counts: tick_counts.clone(),
        };
        let threads = workers.start(self.workers).context(NO_THREAD)?;
        let description = places.to_string();
        let status = {
            let (hub, metrics) = (self.hub.clone(), self.metrics.clone());
            move || StatusReport::new(started, &places, &hub, metrics.clone())
        };
        let audience = Audience::new(self.hub.clone(), self.workers);
        let (configs, metrics) = (self.settings.configs(), self.metrics.clone());
        let sources = self.sources.start(
            &configs,
            audience.clone(),
            self.presence.clone(),
            metrics,
            status,
            &self.drain,
        )?;
        Ok(Running {
            description,
            settings: Rc::new(self.settings),
            drain: self.drain,
            tick_counts,
            hub: self.hub,
            presence: self.presence,
            metrics: self.metrics,
            keeping,
            threads,
            sources,
            deliveries: tokio::task::spawn_local(deliver(audience.clone())),
            audience,
        })
    }
}

/// A running daemon.
pub(super) struct Running {
    /// The addresses that the daemon serves, for `comet status` and the service manager.
    pub(super) description: String,
    pub(super) settings: Rc<Settings>,
    pub(super) drain: Drain,
    pub(super) tick_counts: Arc<TickCounts>,
    hub: Arc<Hub>,
    presence: Arc<LocalPresence>,
    metrics: Arc<Metrics>,
    keeping: LogThreads,
    threads: WorkerThreads,
    sources: JoinSet<()>,
    /// The audience of the control thread: subscribers of the Unix socket.
    audience: Rc<Audience>,
    deliveries: JoinHandle<()>,
}

impl Running {
    /// Waits for `shutdown`.
    ///
    /// # Errors
    /// A part has failed: no part ends before `shutdown`. Then the whole daemon should be restarted, because it might look
    /// healthy and publish nothing.
    pub(super) async fn wait(&mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown => Ok(()),
            () = expiry::run(&self.hub, &self.presence, &self.audience) => Ok(()),
            _ = self.sources.join_next() => bail!("a source has failed; the log lines above say why"),
            _ = &mut self.deliveries => {
                bail!("the deliveries to the socket's subscribers have failed; the log lines above say why")
            }
            () = self.threads.one_has_ended() => {
                bail!("a worker thread has failed; the log lines above say why")
            }
        }
    }

    /// Stops in order: the sources, then the subscribers, last the log. Clients that take longer than the grace period are cut.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let grace = self.settings.now().grace;
        let ended = async {
            // Deliver every acknowledged message before waiting clients get their last answers.
            self.drain.run(grace / 2, || self.metrics.clients()).await;
            while self.sources.join_next().await.is_some() {}
            self.threads.all_have_ended().await;
        };
        if timeout(grace, ended).await.is_err() {
            warn!(
                ?grace,
                "some clients did not read their last answers in time: their connections were closed"
            );
        }
        self.keeping
            .stop()
            .context("some messages are not in the log")
    }
}

async fn deliver(audience: Rc<Audience>) {
    audience.run().await;
}

/// Raises the soft limit of descriptors to the hard limit, because each browser needs a descriptor. Returns the limit.
fn raise_descriptor_limit() -> anyhow::Result<u64> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the descriptor limit")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .context("cannot raise the descriptor limit")?;
    }
    Ok(hard)
}

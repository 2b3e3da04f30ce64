//! Settings that change while the daemon runs: SIGHUP reads them again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::Context;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::{
    access::Rights,
    api::{Api, Demo},
    broker::Broker,
    compat,
    config::Config,
    drain::Drain,
    http::{Ceiling, Origins, Site},
    hub::Hub,
    metrics::Metrics,
    presence::Presence,
    session::SessionEndpoint,
};

/// Reads the settings again, as at the start of the daemon. Called on its own thread.
pub type Reread = Arc<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// The present settings, and channels that send changed settings to the parts of the daemon.
pub(super) struct Settings {
    /// The settings at the start.
    started: Config,
    configs: watch::Sender<Arc<Config>>,
    served: watch::Sender<ServedSettings>,
    parts: SiteParts,
}

/// The settings that worker threads follow.
#[derive(Clone)]
pub(super) struct ServedSettings {
    pub(super) site: Arc<Site>,
    pub(super) rights: Arc<Rights>,
}

/// The parts of a `Site` that do not come from the settings.
pub(super) struct SiteParts {
    pub(super) addr: SocketAddr,
    pub(super) socket: PathBuf,
    /// The number of connections that the descriptor limit allows.
    pub(super) room: u64,
    pub(super) hub: Arc<Hub>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
}

impl Settings {
    /// `given` is `config` without the changes that passed sockets have made.
    pub(super) fn new(given: Config, config: Config, parts: SiteParts) -> anyhow::Result<Self> {
        let served = parts.served(&config, Rights::new(&config)?, None);
        Ok(Self {
            started: given,
            configs: watch::Sender::new(Arc::new(config)),
            served: watch::Sender::new(served),
            parts,
        })
    }

    pub(super) fn now(&self) -> Arc<Config> {
        self.configs.borrow().clone()
    }

    pub(super) fn configs(&self) -> watch::Receiver<Arc<Config>> {
        self.configs.subscribe()
    }

    pub(super) fn served(&self) -> watch::Receiver<ServedSettings> {
        self.served.subscribe()
    }

    /// Reads the settings again. If they have a mistake, nothing changes. Returns a text for the service manager.
    ///
    /// Another thread reads the files and looks up the users: a file system that hangs must not block the control thread, which
    /// serves the socket and handles SIGTERM.
    pub(super) async fn reload(&self, reread: &Reread) -> &'static str {
        let (reread, started) = (reread.clone(), self.started.clone());
        let listen = self.configs.borrow().listen;
        let (sender, receiver) = oneshot::channel();
        let thread = thread::Builder::new().name("settings".into());
        let thread = thread.spawn(move || {
            let read = reread().and_then(|config| NewSettings::new(config, &started, listen));
            let _ = sender.send(read); // fails when the daemon stops, and then the result is not needed
        });
        let read = match thread {
            Ok(_) => receiver.await.context("reading them has failed"),
            Err(error) => Err(error).context("cannot start a thread that reads them"),
        };
        match read.flatten().and_then(|new| self.replace(new)) {
            Ok(need_restart) => {
                let need_restart = need_restart.join(", ");
                match need_restart.as_str() {
                    "" => info!("SIGHUP received, settings read again"),
                    need_restart => warn!(
                        "SIGHUP received, settings read again; for {need_restart} the daemon has to be restarted"
                    ),
                }
                "settings read again"
            }
            Err(error) => {
                warn!("SIGHUP received, settings stay as they are: {error:#}");
                "settings have a mistake and stay as they are (see the log)"
            }
        }
    }

    /// Returns the changed keys that need a restart.
    fn replace(&self, new: NewSettings) -> anyhow::Result<Vec<&'static str>> {
        let NewSettings {
            config,
            rights,
            need_restart,
        } = new;
        let before = self.served.borrow().site.clone();
        let served = self.parts.served(&config, rights, Some(&before));
        if config.history != self.configs.borrow().history {
            self.parts.hub.limit(config.hub_history());
        }
        self.served.send_replace(served);
        self.configs.send_replace(Arc::new(config));
        Ok(need_restart)
    }
}

/// Settings that were read again, with the loaded keys for tokens.
struct NewSettings {
    config: Config,
    rights: Rights,
    /// The changed keys that need a restart.
    need_restart: Vec<&'static str>,
}

impl NewSettings {
    fn new(mut config: Config, started: &Config, listen: SocketAddr) -> anyhow::Result<Self> {
        let need_restart = config.keep_fixed(started);
        config.listen = listen;
        config.check()?;
        Ok(Self {
            rights: Rights::new(&config)?,
            config,
            need_restart,
        })
    }
}

impl SiteParts {
    fn served(&self, config: &Config, rights: Rights, before: Option<&Site>) -> ServedSettings {
        let max_connections = config
            .http
            .max_connections
            .map_or(self.room, |max| self.room.min(max as u64));
        let demo = config.demo.then(|| self.demo(&config.dir));
        let mut endpoints = compat::endpoints(&config.compat);
        endpoints.push(Box::new(SessionEndpoint));
        let rights = Arc::new(rights);
        let site = Arc::new(Site {
            config: config.http.clone(),
            routes: Arc::new(Api::new(rights.clone(), demo, endpoints)),
            origins: Origins::new(&config.http.origins, before.map(|site| &site.origins)),
            max_connections,
            ceiling: Ceiling::new(config.http.max_memory),
            broker: self.broker.clone(),
            presence: self.presence.clone(),
            metrics: self.metrics.clone(),
            drain: self.drain.clone(),
        });
        ServedSettings { site, rights }
    }

    fn demo(&self, dir: &Path) -> Demo {
        Demo {
            dir: dir.into(),
            socket: self.socket.clone(),
            listen: self.addr,
        }
    }
}

//! Settings that change while the daemon runs: SIGHUP reads them again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use comet_proto::ChannelName;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    config::Config,
    drain::Drain,
    http::{Ceiling, Demo, Origins, Rights, Site},
    hub::Hub,
    metrics::Metrics,
};

/// Reads the settings again, as at the start.
pub type Reread<'a> = &'a dyn Fn() -> anyhow::Result<Config>;

/// What the parts of the daemon follow.
pub(super) struct Settings {
    /// As given at the start.
    started: Config,
    configs: watch::Sender<Arc<Config>>,
    sites: watch::Sender<Arc<Site>>,
    ground: Ground,
}

/// What sites are made of beside settings.
pub(super) struct Ground {
    pub(super) addr: SocketAddr,
    pub(super) socket: PathBuf,
    /// Connections that the descriptor limit leaves room for.
    pub(super) room: u64,
    pub(super) hub: Arc<Hub>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
}

impl Settings {
    /// `given` is `config` without what the sockets that were passed have changed.
    pub(super) fn new(given: Config, config: Config, ground: Ground) -> anyhow::Result<Self> {
        let site = ground.site(&config, None)?;
        Ok(Self {
            started: given,
            configs: watch::Sender::new(Arc::new(config)),
            sites: watch::Sender::new(Arc::new(site)),
            ground,
        })
    }

    pub(super) fn now(&self) -> Arc<Config> {
        self.configs.borrow().clone()
    }

    pub(super) fn configs(&self) -> watch::Receiver<Arc<Config>> {
        self.configs.subscribe()
    }

    pub(super) fn sites(&self) -> watch::Receiver<Arc<Site>> {
        self.sites.subscribe()
    }

    /// Reads the settings again; says how that went. With a mistake in them all stays as it is.
    pub(super) fn reload(&self, reread: Reread<'_>) -> &'static str {
        match reread().and_then(|config| self.replace(config)) {
            Ok(kept) => {
                let kept = kept.join(", ");
                match kept.as_str() {
                    "" => info!("SIGHUP received, settings read again"),
                    kept => warn!(
                        "SIGHUP received, settings read again; for {kept} the daemon has to be restarted"
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

    /// Returns the keys that differ and do not change before a restart.
    fn replace(&self, mut config: Config) -> anyhow::Result<Vec<&'static str>> {
        let kept = config.keep_fixed(&self.started);
        config.listen = self.configs.borrow().listen;
        config.check()?;
        let site = self.ground.site(&config, Some(&self.sites.borrow()))?;
        if config.history != self.configs.borrow().history {
            self.ground.hub.limit(config.history.clone());
        }
        self.sites.send_replace(Arc::new(site));
        self.configs.send_replace(Arc::new(config));
        Ok(kept)
    }
}

impl Ground {
    fn site(&self, config: &Config, before: Option<&Site>) -> anyhow::Result<Site> {
        let max_connections = config
            .http
            .max_connections
            .map_or(self.room, |max| self.room.min(max as u64));
        let chat =
            ChannelName::parse(&config.compat.zeitoun_channel).context("compat.zeitoun_channel")?;
        Ok(Site {
            config: config.http.clone(),
            compat: config.compat.clone(),
            chat,
            rights: Rights::new(config)?,
            origins: Origins::new(&config.http.origins, before.map(|site| &site.origins)),
            max_connections,
            ceiling: Ceiling::new(config.http.max_memory),
            demo: config.demo.then(|| self.demo(&config.dir)),
            metrics: self.metrics.clone(),
            drain: self.drain.clone(),
        })
    }

    fn demo(&self, dir: &Path) -> Demo {
        Demo {
            dir: dir.into(),
            socket: self.socket.clone(),
            listen: self.addr,
        }
    }
}

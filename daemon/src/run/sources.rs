//! The sources: the watched files, the Unix socket and the spool, and the tasks in which they run.

use std::{path::Path, rc::Rc, sync::Arc};

use anyhow::Context;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{status::StatusReport, workers::NO_THREAD};
use crate::{
    broker::Broker,
    config::Config,
    drain::Drain,
    hub::{Hub, subscriber::Audience},
    metrics::Metrics,
    presence::Presence,
    source::{
        files::{Files, Watcher},
        socket::Socket,
        spool::Spool,
    },
};

/// The opened sources.
pub(super) struct Sources {
    files: Files,
    socket: Socket,
    spool: Spool,
    broker: Arc<dyn Broker>,
}

impl Sources {
    /// Opens the files and the spool. The socket at `socket_path` is open already.
    pub(super) fn open(
        config: &Config,
        socket: Socket,
        socket_path: &Path,
        watcher: Arc<Watcher>,
        hub: &Hub,
        broker: Arc<dyn Broker>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let files = Files::open(config, watcher, hub, broker.clone(), metrics.clone())
            .context("cannot watch for files")?;
        let spool_path = comet_client::spool_path(config.spool.dir.as_deref(), socket_path);
        let spool = Spool::open(spool_path, config, broker.clone(), metrics.clone())
            .context("cannot take messages from the spool")?;
        Ok(Self {
            files,
            socket,
            spool,
            broker,
        })
    }

    /// Publishes the messages of the spool, which are older than any new message.
    pub(super) async fn publish_spool(&mut self) {
        self.spool.publish().await;
    }

    /// Starts each source. A task of the returned set ends only when its source has failed, or after a stop of `drain`.
    pub(super) fn start(
        self,
        configs: &watch::Receiver<Arc<Config>>,
        audience: Rc<Audience>,
        presence: Arc<dyn Presence>,
        metrics: Arc<Metrics>,
        status: impl Fn() -> StatusReport + 'static,
        drain: &Drain,
    ) -> anyhow::Result<JoinSet<()>> {
        let (mut files, mut socket) = (self.files, self.socket);
        socket.follow(configs.clone());
        files.follow(configs.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn_local(socket.run(
            audience,
            self.broker,
            presence,
            metrics,
            status,
            drain.clone(),
        ));
        tasks.spawn_local(watch_files(files, drain.clone()));
        tasks.spawn_local(start_spool(self.spool, configs.clone(), drain)?);
        Ok(tasks)
    }
}

async fn watch_files(files: Files, drain: Drain) {
    let _publisher = drain.publisher();
    files.run(drain.stop).await;
}

/// Starts the spool's thread. Returns a future that ends when the thread does.
fn start_spool(
    spool: Spool,
    configs: watch::Receiver<Arc<Config>>,
    drain: &Drain,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let (ends, ended) = oneshot::channel::<()>();
    let guard = (drain.publisher(), ends);
    let started = spool.start(configs, drain.stop.clone(), guard);
    started.context(NO_THREAD)?;
    Ok(async move { _ = ended.await })
}

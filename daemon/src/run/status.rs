//! The answer to `comet status`.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use serde::Serialize;

use crate::{
    hub::{Hub, HubStatus, StoreStatus},
    machine,
    metrics::Metrics,
};

/// The addresses and the configuration file, for `comet status`.
#[derive(Serialize)]
pub(super) struct Places {
    pub(super) listen: String,
    /// The addresses of the protocols with a port of their own, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) ports: BTreeMap<&'static str, SocketAddr>,
    pub(super) socket: PathBuf,
    pub(super) dir: PathBuf,
    /// The configuration file.
    pub(super) config: Option<PathBuf>,
}

/// The addresses in one line, for people and the service manager.
impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (listen, socket, dir) = (&self.listen, self.socket.display(), self.dir.display());
        write!(f, "listening on http://{listen}")?;
        for (name, address) in &self.ports {
            write!(f, ", {name} {address}")?;
        }
        write!(f, ", socket {socket}, watching {dir}")
    }
}

/// The figures that `comet status` shows.
#[derive(Serialize)]
pub(super) struct StatusReport {
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

impl StatusReport {
    pub(super) fn new(
        started: Instant,
        places: &Arc<Places>,
        hub: &Hub,
        metrics: Arc<Metrics>,
    ) -> Self {
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

//! What all requests share: settings, rights, limits and counters.

use std::{net::SocketAddr, path::PathBuf, rc::Rc, sync::Arc};

use comet_proto::ChannelName;

use super::cors::Origins;
use crate::{
    access::rules::Rights,
    broker::Broker,
    config::{CompatConfig, HttpConfig},
    connection::memory::Ceiling,
    drain::Drain,
    metrics::Metrics,
};

/// The settings and counters that all workers share. Changed settings make a new site.
pub struct Site {
    pub config: HttpConfig,
    pub compat: CompatConfig,
    /// The channel of the zeitoun chat.
    pub chat: ChannelName,
    pub rights: Rights,
    pub origins: Origins,
    /// The limit of connections over all workers.
    pub max_connections: u64,
    pub ceiling: Ceiling,
    pub broker: Arc<dyn Broker>,
    /// With `--demo`: what the demo pages show about this daemon.
    pub demo: Option<Demo>,
    pub metrics: Arc<Metrics>,
    /// How the daemon stops.
    pub drain: Drain,
}

/// The site as it is now. The connections of one thread share one `Rc`, so that counting references needs no atomic
/// operation.
pub(super) type Current = Rc<Arc<Site>>;

/// What the demo pages show about this daemon.
#[derive(Clone)]
pub struct Demo {
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub listen: SocketAddr,
}

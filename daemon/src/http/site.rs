//! What all requests share: settings, routes, limits and counters.

use std::{rc::Rc, sync::Arc};

use super::{cors::Origins, route::Routes};
use crate::{
    broker::Broker, config::HttpConfig, connection::memory::Ceiling, drain::Drain,
    metrics::Metrics, presence::Presence,
};

/// The settings and counters that all workers share. Changed settings make a new site.
pub struct Site {
    pub(crate) config: HttpConfig,
    /// What is served, and who may do what there.
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) origins: Origins,
    /// The limit of connections over all workers.
    pub(crate) max_connections: u64,
    pub(crate) ceiling: Ceiling,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) metrics: Arc<Metrics>,
    /// How the daemon stops.
    pub(crate) drain: Drain,
}

impl Site {
    /// Whether the daemon stops. Subscribers may have had their last answer by then, so that a message that is published
    /// now would reach nobody.
    pub(crate) fn is_stopping(&self) -> bool {
        self.drain.stop.is_cancelled()
    }
}

/// The site as it is now. The connections of one thread share one `Rc`, so that counting references needs no atomic
/// operation.
pub(crate) type Current = Rc<Arc<Site>>;

//! What a protocol with a port of its own provides, and what all such protocols share.

mod buffer;
mod commands;
mod door;
mod replies;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

use crate::{
    access::Rights, connection::Conn, http::Site, hub::subscriber::Audience, worker::Door,
};
pub(crate) use buffer::CommandBuffer;
pub(crate) use commands::{CommandConnection, CommandOutcome, Commands, MessageRead};
pub(crate) use door::{PortClient, PortDoor, PublishRefusal};
pub(crate) use replies::Replies;

/// A protocol with a port of its own.
pub(crate) trait Port: Send + Sync {
    /// The protocol's name in `comet status` and in the metrics.
    fn name(&self) -> &'static str;

    /// The address where the protocol listens.
    fn listen(&self) -> SocketAddr;

    /// Creates the door that makes the protocol's connections on one thread. Most protocols return a [`PortDoor`].
    fn door(&self, context: &Rc<PortContext>) -> Box<dyn Door<Conn>>;
}

/// What all ports of one thread use.
pub(crate) struct PortContext {
    pub(crate) audience: Rc<Audience>,
    site: RefCell<Arc<Site>>,
    rights: RefCell<Arc<Rights>>,
}

impl PortContext {
    pub(crate) fn new(audience: &Rc<Audience>, site: Arc<Site>, rights: Arc<Rights>) -> Rc<Self> {
        Rc::new(Self {
            audience: audience.clone(),
            site: RefCell::new(site),
            rights: RefCell::new(rights),
        })
    }

    /// The present limits, the broker, the counters, and how the daemon stops.
    pub(crate) fn site(&self) -> Arc<Site> {
        self.site.borrow().clone()
    }

    /// The present rules of channels.
    pub(crate) fn rights(&self) -> Arc<Rights> {
        self.rights.borrow().clone()
    }

    /// Replaces the settings after a reload.
    pub(crate) fn replace(&self, site: Arc<Site>, rights: Arc<Rights>) {
        self.site.replace(site);
        self.rights.replace(rights);
    }
}

//! The interface of a protocol with a port of its own.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use crate::{connection::Conn, http::Site, hub::subscriber::Audience, worker::Door};

/// A protocol with a port of its own.
pub(crate) trait Port: Send + Sync {
    /// The address where the protocol listens.
    fn listen(&self) -> SocketAddr;

    /// Creates the door that makes the protocol's connections on the thread with this audience. `site` has the broker and the
    /// counters.
    fn door(&self, audience: &Rc<Audience>, site: &Arc<Site>) -> Box<dyn Door<Conn>>;
}

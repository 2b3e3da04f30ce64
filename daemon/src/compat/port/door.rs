//! Lets clients of a port in, according to the limits, and publishes for them.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use comet_proto::ChannelName;
use tracing::warn;

use super::PortContext;
use crate::{
    broker::{NotKept, Receipt, SourceKind},
    config::PortLimits,
    connection::{Conn, Protocol, Worker, memory},
    hub::NewMessage,
    log_limit::LogLimit,
    metrics::PortMetrics,
    worker::Door,
};

/// The door of a port on one thread. `start` makes the protocol of a new connection.
pub(crate) struct PortDoor<F> {
    name: &'static str,
    context: Rc<PortContext>,
    limits: PortLimits,
    metrics: Arc<PortMetrics>,
    /// Writes the reason of a refusal as an error of the protocol.
    refusal: fn(&str) -> Vec<u8>,
    start: F,
    /// Clients can reach a limit again and again, so the number of log lines is limited.
    lines: RefCell<LogLimit>,
}

impl<F: Fn(PortClient) -> Box<dyn Protocol>> PortDoor<F> {
    pub(crate) fn new(
        name: &'static str,
        context: &Rc<PortContext>,
        limits: PortLimits,
        refusal: fn(&str) -> Vec<u8>,
        start: F,
    ) -> Self {
        Self::starting(name, context, limits, refusal, start)
    }
}

impl PortDoor<()> {
    /// A door for a protocol in which the server speaks first. Its owner calls [`PortDoor::admit`].
    pub(crate) fn for_greeting(
        name: &'static str,
        context: &Rc<PortContext>,
        limits: PortLimits,
        refusal: fn(&str) -> Vec<u8>,
    ) -> Self {
        Self::starting(name, context, limits, refusal, ())
    }
}

impl<F> PortDoor<F> {
    fn starting(
        name: &'static str,
        context: &Rc<PortContext>,
        limits: PortLimits,
        refusal: fn(&str) -> Vec<u8>,
        start: F,
    ) -> Self {
        Self {
            name,
            context: context.clone(),
            limits,
            metrics: context.site().metrics.ports.of(name),
            refusal,
            start,
            lines: RefCell::default(),
        }
    }

    /// Adds the client, or refuses it if there is no room. The client must send something within `time`. `start` makes the
    /// protocol, and can write to the client before.
    ///
    /// # Errors
    /// When the machine has no resources left for the connection.
    pub(crate) fn admit(
        &self,
        stream: TcpStream,
        worker: &Rc<Worker>,
        time: Duration,
        start: impl FnOnce(PortClient, &TcpStream) -> Box<dyn Protocol>,
    ) -> io::Result<()> {
        if let Some(reason) = self.is_full() {
            self.refuse(&stream, &reason);
            return Ok(());
        }
        let client = PortClient::new(&self.context, self.limits, &self.metrics);
        worker.add(stream, None, |stream, place| {
            let protocol = start(client, &stream);
            let due = worker.timers.after(time);
            Conn::new(worker, stream, place, true, protocol, due)
        })
    }

    /// Why there is no room for one more connection.
    fn is_full(&self) -> Option<String> {
        let site = self.context.site();
        if self.metrics.connections.get() >= self.limits.max_connections as u64 {
            let max = self.limits.max_connections;
            return Some(format!("limit of {max} connections, see max_connections"));
        }
        if site.metrics.http_connections.get() >= site.max_connections {
            let max = site.max_connections;
            return Some(format!("limit of {max} connections of the whole daemon"));
        }
        let is_near = memory::taken(&site.metrics) >= site.ceiling.near();
        is_near.then(|| "no memory left for connections, see http.max_memory".into())
    }

    /// Writes the reason, and closes the connection. What the client has sent already is read before, because otherwise the
    /// kernel would send a reset, and the client could lose the reason.
    fn refuse(&self, mut stream: &TcpStream, reason: &str) {
        self.metrics.refused.add(1);
        if self.lines.borrow_mut().is_due(Instant::now()) {
            let name = self.name;
            warn!("a connection to the port of {name} was refused: {reason}");
        }
        let _ = stream.read(&mut [0; 2048]);
        let _ = stream.write(&(self.refusal)(reason));
    }
}

impl<F: Fn(PortClient) -> Box<dyn Protocol>> Door<Conn> for PortDoor<F> {
    fn open(&self, stream: TcpStream, _: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        let start = |client, _: &TcpStream| (self.start)(client);
        self.admit(stream, worker, self.limits.idle, start)
    }
}

/// A client of a port. The client counts as connected while this value exists, so the protocol must own this value.
pub(crate) struct PortClient {
    pub(crate) context: Rc<PortContext>,
    pub(crate) limits: PortLimits,
    pub(crate) metrics: Arc<PortMetrics>,
}

/// Why a publish of a port's client was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishRefusal {
    #[error("{0} may not be published to without a key; publish under [[channel]] decides this")]
    Closed(ChannelName),
    #[error("the daemon stops; connect again")]
    Stopping,
    #[error(transparent)]
    NotKept(#[from] NotKept),
}

impl PortClient {
    fn new(context: &Rc<PortContext>, limits: PortLimits, metrics: &Arc<PortMetrics>) -> Self {
        metrics.connections.add(1);
        Self {
            context: context.clone(),
            limits,
            metrics: metrics.clone(),
        }
    }

    /// Publishes a message. The caller must acknowledge the message only when its receipt says that the message is kept.
    /// `has_key`: the client has shown the key of its port, which replaces the rules of channels.
    ///
    /// # Errors
    /// The message was not published.
    pub(crate) fn publish(
        &self,
        has_key: bool,
        new: NewMessage<'_>,
    ) -> Result<Receipt, PublishRefusal> {
        let (site, rights) = (self.context.site(), self.context.rights());
        let closed = |channel: &&ChannelName| !has_key && !rights.may_publish_on_port(channel);
        if let Some(channel) = new.channels.iter().find(closed) {
            return Err(PublishRefusal::Closed(channel.clone()));
        }
        if site.is_stopping() {
            return Err(PublishRefusal::Stopping);
        }
        let receipt = site.broker.publish(SourceKind::Client, new);
        if let Some(reason) = receipt.refusal() {
            return Err(reason.clone().into());
        }
        self.metrics.published.add(1);
        Ok(receipt)
    }

    /// Whether the client may read the channel.
    pub(crate) fn may_read(&self, has_key: bool, channel: &ChannelName) -> bool {
        has_key || self.context.rights().may_read_on_port(channel)
    }
}

impl Drop for PortClient {
    fn drop(&mut self) {
        self.metrics.connections.sub(1);
    }
}

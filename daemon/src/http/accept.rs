//! Takes connections, as many as the limit allows.

use std::{
    io::{self, ErrorKind, Write},
    net::IpAddr,
    rc::Rc,
};

use hyper::{StatusCode, header::RETRY_AFTER};
use mio::{
    Registry,
    event::Source,
    net::{TcpListener, TcpStream},
};
use tracing::warn;

use super::{
    Site, Worker,
    addresses::{self, Address},
    answer::Refusal,
    memory,
};

/// Connections that are taken before others get their turn.
const BATCH: usize = 64;

/// One worker's listener.
pub(super) struct Accept {
    listener: TcpListener,
    /// What the log says is the matter now.
    warned: Warned,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Warned {
    #[default]
    Nothing,
    Limit,
    Memory,
    Exhausted,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// More may wait.
    More,
    /// The listener tells when there is somebody.
    Wait,
    /// The machine has no descriptor or memory left: later.
    Pause,
}

impl Accept {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            warned: Warned::default(),
        }
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.listener.deregister(registry)
    }

    pub(super) fn take_some(&mut self, worker: &Rc<Worker>) -> Next {
        for _ in 0..BATCH {
            let accepted = self.listener.accept();
            match accepted.and_then(|(stream, peer)| self.take(stream, peer.ip(), worker)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Next::Wait,
                // The client gave up between its SYN and our accept.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    worker.metrics.http_accept_pauses.add(1);
                    if self.is_news(Warned::Exhausted) {
                        warn!(%error, "cannot accept connections; those that are open go on");
                    }
                    return Next::Pause;
                }
            }
        }
        Next::More
    }

    fn take(&mut self, mut stream: TcpStream, peer: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        let site = worker.site();
        let refusal = match self.room(&site).and_then(|()| enter(&site, peer)) {
            Ok(peer) => return worker.add(stream, peer),
            Err(refusal) => refusal,
        };
        // As far as it goes without waiting; then closed.
        let _ = stream.write(&refusal.with(RETRY_AFTER, "5").into_bytes());
        Ok(())
    }

    /// Whether there is room for one more.
    fn room(&mut self, site: &Site) -> Result<(), Refusal> {
        let (open, max) = (site.metrics.http_connections.get(), site.max_connections);
        let (taken, bytes) = (memory::taken(&site.metrics), site.ceiling.bytes());
        let (what, message) = if open >= max {
            let message = format!("more than {max} connections are open; try again later");
            (Warned::Limit, message)
        } else if taken >= site.ceiling.near() {
            let message =
                format!("connections take {taken} of the {bytes} bytes they may; try again later");
            (Warned::Memory, message)
        } else {
            // Not at each connection that comes where one has left.
            if open < max - max / 10 && taken < bytes - bytes / 5 {
                self.warned = Warned::Nothing;
            }
            return Ok(());
        };
        site.metrics.http_refused.add(1);
        if self.is_news(what) {
            match what {
                Warned::Memory => warn!(
                    "connections take {taken} of the {bytes} bytes that http.max_memory lets them; others are refused with 503"
                ),
                _ => warn!(
                    "{max} connections are open, which is the limit; others are refused with 503"
                ),
            }
        }
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Err(Refusal::new(status, "connections", message))
    }

    fn is_news(&mut self, what: Warned) -> bool {
        std::mem::replace(&mut self.warned, what) != what
    }
}

/// Counts the connection for its address, where that is counted.
fn enter(site: &Site, peer: IpAddr) -> Result<Option<Address>, Refusal> {
    let (Some(max), Some(peer)) = (site.config.max_per_address, Address::of(peer)) else {
        return Ok(None);
    };
    if addresses::OPEN.enter(peer, max) {
        return Ok(Some(peer));
    }
    site.metrics.http_refused_by_address.add(1);
    let message = format!("more than {max} connections of your address are open");
    Err(Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "connections",
        message,
    ))
}

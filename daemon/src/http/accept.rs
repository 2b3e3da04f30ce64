//! Takes connections, as many as the limit allows.

use std::{
    io::{self, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    rc::Rc,
};

use hyper::{StatusCode, header::RETRY_AFTER};
use rustix::net::{SocketFlags, acceptfrom_with};
use tracing::warn;

use super::{
    Site, Worker,
    addresses::{self, Address},
    answer::Refusal,
    memory,
};

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

    pub(super) fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Takes up to so many, and says how many those were.
    pub(super) fn take_some(&mut self, count: usize, worker: &Rc<Worker>) -> (usize, Next) {
        for taken in 0..count {
            let accepted = accept(&self.listener);
            match accepted.and_then(|(stream, peer)| self.take(stream, peer, worker)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return (taken, Next::Wait),
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
                    return (taken, Next::Pause);
                }
            }
        }
        (count, Next::More)
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

/// Without blocking, now and later: the listener's sockets do not inherit that.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    // One that has left by now has no address; nobody else is without.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    Ok((socket.into(), peer))
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

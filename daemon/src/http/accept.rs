//! Accepts connections, as many as the limits allow.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use hyper::{StatusCode, header::RETRY_AFTER};
use rustix::net::{SocketFlags, acceptfrom_with};
use tracing::warn;

use super::{
    Worker,
    addresses::{self, Address},
    answer::{BUSY, Refusal},
    memory,
    site::Site,
};
use crate::log_limit::LogLimit;

/// The listeners from which one worker accepts, and its warnings about limits.
pub(super) struct Accept {
    listeners: Arc<[TcpListener]>,
    /// The index of the listener that is tried next.
    next: usize,
    /// The problem that was logged last. Clients can cause and end a problem at will, so the number of log lines is
    /// limited.
    warned: Warned,
    lines: LogLimit,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Warned {
    #[default]
    Nothing,
    Limit,
    Memory,
    Exhausted,
}

/// The largest number of listeners that workers can share.
pub const MOST_LISTENERS: usize = 64;

/// Connections of one thread that are over a limit, but whose requests are read, so that each gets an answer that its
/// client understands. Further connections get an answer that depends on the bytes that have arrived already.
const MOST_REFUSED: usize = 32;

/// The listeners where a connection may wait to be accepted: one bit each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadyListeners(u64);

impl ReadyListeners {
    pub(super) const ALL: Self = Self(u64::MAX);

    pub(super) fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.0 &= !(1 << index);
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Only those of the first `count` listeners.
    fn of(self, count: usize) -> Self {
        Self(
            self.0
                & 1_u64
                    .checked_shl(count as u32)
                    .map_or(u64::MAX, |bit| bit - 1),
        )
    }

    /// The first listener from `index` on, or else the first of all.
    fn from(self, index: usize) -> Option<usize> {
        let later = self.0 & u64::MAX.checked_shl(index as u32).unwrap_or(0);
        let first = if later == 0 { self.0 } else { later }.trailing_zeros();
        (first < u64::BITS).then_some(first as usize)
    }
}

/// What to do after accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterAccept {
    /// More connections may wait.
    More,
    /// No connection waits. epoll reports the next one.
    Wait,
    /// The machine has no descriptor or memory left: accept later.
    Pause,
}

impl Accept {
    pub(super) fn new(listeners: Arc<[TcpListener]>) -> Self {
        Self {
            listeners,
            next: 0,
            warned: Warned::default(),
            lines: LogLimit::default(),
        }
    }

    pub(super) fn listeners(&self) -> &[TcpListener] {
        &self.listeners
    }

    /// Accepts up to `count` connections of these listeners. Returns how many it accepted.
    pub(super) fn take_some(
        &mut self,
        ready: ReadyListeners,
        count: usize,
        worker: &Rc<Worker>,
    ) -> (usize, AfterAccept) {
        let (mut ready, mut taken) = (ready.of(self.listeners.len()), 0);
        while taken < count {
            let Some(index) = ready.from(self.next) else {
                return (taken, AfterAccept::Wait);
            };
            self.next = index + 1;
            let accepted = accept(&self.listeners[index]);
            match accepted.and_then(|(stream, peer)| self.take(stream, peer, worker)) {
                Ok(()) => taken += 1,
                Err(e) if e.kind() == ErrorKind::WouldBlock => ready.remove(index),
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
                    return (taken, AfterAccept::Pause);
                }
            }
        }
        (taken, AfterAccept::More)
    }

    fn take(&mut self, mut stream: TcpStream, peer: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        let site = worker.site();
        let refused = match self.room(&site).and_then(|()| enter(&site, peer)) {
            Ok(peer) => return worker.add(stream, peer, None),
            Err(refused) => refused,
        };
        if worker.refused.get() < MOST_REFUSED {
            return worker.add(stream, None, Some(refused));
        }
        // The answer depends on what has arrived of the request. Do not wait for more; then close.
        let mut input = [0; 2048];
        let read = stream.read(&mut input).unwrap_or(0);
        let refusal = refused.refusal(&site).asked_by(&site, &input[..read]);
        let _ = stream.write(&refusal.into_bytes(&site.origins));
        Ok(())
    }

    /// Whether there is room for one more.
    fn room(&mut self, site: &Site) -> Result<(), Refused> {
        let (open, max) = (site.metrics.http_connections.get(), site.max_connections);
        let (taken, bytes) = (memory::taken(&site.metrics), site.ceiling.bytes());
        let (what, refused) = if open >= max {
            (Warned::Limit, Refused::Connections)
        } else if taken >= site.ceiling.near() {
            (Warned::Memory, Refused::Memory)
        } else {
            // Warn again only when there was room for a while, not each time that a connection replaces another.
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
        Err(refused)
    }

    fn is_news(&mut self, what: Warned) -> bool {
        let is_new = std::mem::replace(&mut self.warned, what) != what;
        is_new && self.lines.is_due(Instant::now())
    }
}

/// Accepts a connection without waiting. The accepted socket does not inherit the non-blocking mode from the listener,
/// so the mode is set here.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    // Only a connection that has ended by now has no address.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    Ok((socket.into(), peer))
}

/// Counts the connection for its client's address, if connections are counted by address.
fn enter(site: &Site, peer: IpAddr) -> Result<Option<Address>, Refused> {
    let (Some(max), Some(peer)) = (site.config.max_per_address, Address::of(peer)) else {
        return Ok(None);
    };
    if addresses::OPEN.enter(peer, max) {
        return Ok(Some(peer));
    }
    site.metrics.http_refused_by_address.add(1);
    Err(Refused::Address)
}

/// Why there is no room for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Connections,
    Memory,
    Address,
}

impl Refused {
    /// The answer to its request.
    pub(super) fn refusal(self, site: &Site) -> Refusal {
        let (taken, bytes) = (memory::taken(&site.metrics), site.ceiling.bytes());
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        let (status, message) = match self {
            Self::Connections => {
                let max = site.max_connections;
                let message = format!("more than {max} connections are open; try again later");
                (busy, message)
            }
            Self::Memory => {
                let message = format!(
                    "connections take {taken} of the {bytes} bytes they may; try again later"
                );
                (busy, message)
            }
            Self::Address => {
                let max = site.config.max_per_address.unwrap_or_default();
                let message = format!("more than {max} connections of your address are open");
                (StatusCode::TOO_MANY_REQUESTS, message)
            }
        };
        Refusal::new(status, "connections", message).with(RETRY_AFTER, BUSY)
    }
}

//! Accepts connections and passes each to the door of its listener.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use rustix::net::{SocketFlags, acceptfrom_with};
use tracing::warn;

use super::{Connection, Door, Worker};
use crate::log_limit::LogLimit;

/// A socket to which clients connect.
pub struct Listener {
    /// In non-blocking mode.
    pub socket: TcpListener,
    /// The index of the door that gets the accepted connections.
    pub door: usize,
}

/// The listeners from which one worker accepts, and the doors that get the connections.
pub(super) struct Accept<C> {
    listeners: Arc<[Listener]>,
    doors: Vec<Box<dyn Door<C>>>,
    /// The index of the listener that is tried next.
    next: usize,
    /// The last attempt failed, so the next failure is not logged. `lines` limits the log lines, too, because clients can
    /// cause and end such a failure as often as they want.
    failed: bool,
    lines: LogLimit,
}

/// The largest number of listeners that workers can share.
pub const MOST_LISTENERS: usize = 64;

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

    /// Only the bits of the first `count` listeners.
    fn of(self, count: usize) -> Self {
        Self(
            self.0
                & 1_u64
                    .checked_shl(count as u32)
                    .map_or(u64::MAX, |bit| bit - 1),
        )
    }

    /// The first ready listener from `index` on. If there is none, the first ready listener of all.
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

impl<C: Connection> Accept<C> {
    pub(super) fn new(listeners: Arc<[Listener]>, doors: Vec<Box<dyn Door<C>>>) -> Self {
        Self {
            listeners,
            doors,
            next: 0,
            failed: false,
            lines: LogLimit::default(),
        }
    }

    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Accepts up to `count` connections of these listeners. Returns how many it accepted.
    pub(super) fn take_some(
        &mut self,
        ready: ReadyListeners,
        count: usize,
        worker: &Rc<Worker<C>>,
    ) -> (usize, AfterAccept) {
        let (mut ready, mut taken) = (ready.of(self.listeners.len()), 0);
        while taken < count {
            let Some(index) = ready.from(self.next) else {
                return (taken, AfterAccept::Wait);
            };
            self.next = index + 1;
            match self.take_one(index, worker) {
                Ok(()) => {
                    taken += 1;
                    self.failed = false;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => ready.remove(index),
                // The client has closed the connection before it was accepted.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    worker.metrics.http_accept_pauses.add(1);
                    if !std::mem::replace(&mut self.failed, true)
                        && self.lines.is_due(Instant::now())
                    {
                        warn!(%error, "cannot accept connections; open connections are not affected");
                    }
                    return (taken, AfterAccept::Pause);
                }
            }
        }
        (taken, AfterAccept::More)
    }

    fn take_one(&self, index: usize, worker: &Rc<Worker<C>>) -> io::Result<()> {
        let listener = &self.listeners[index];
        let (stream, peer) = accept(&listener.socket)?;
        self.doors[listener.door].open(stream, peer, worker)
    }
}

/// Accepts a connection without waiting. The accepted socket does not inherit the non-blocking mode from the listener,
/// so the mode is set here.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    // A connection without an address has already ended.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    Ok((socket.into(), peer))
}

//! Opens the sockets of the load client.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};

/// A message without a response after this time counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Connections from one source address. An address has more ports than this, but some may still be in TIME_WAIT.
const PER_SOURCE: usize = 8000;

/// Result of a storm, as the clients saw it.
pub(crate) struct StormResult {
    /// Time from the first connect until the last request was written.
    pub(crate) took: Duration,
    /// Handshakes that the kernel had to repeat, because the server's accept queue was full.
    pub(crate) slow: usize,
}

pub(super) fn blocking(addr: SocketAddr) -> Result<TcpStream> {
    let socket = bound()?;
    socket.connect(&addr.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Creates a socket that is bound to one of the source addresses. The addresses are used in turn.
pub(crate) fn bound() -> Result<Socket> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let block = COUNT.fetch_add(1, Ordering::Relaxed) / PER_SOURCE % 250;
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, block as u8 + 1), 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Without this option, bind would choose a port that is unused towards every server. After many runs few such ports
    // are left.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&source.into())?;
    Ok(socket)
}

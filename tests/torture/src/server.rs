//! Servers that this program starts, stops and kills, and servers that a command restarts.

mod comet;
mod nchan;

pub use comet::Comet;
pub use nchan::{Nchan, find};

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::random::Random;

/// A server that does not listen after this time counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that can be restarted.
pub trait Server: Send {
    /// Stops the server and starts it again. Returns when the server listens.
    ///
    /// # Errors
    /// When the server does not listen again.
    fn restart(&mut self, random: &mut Random) -> Result<()>;

    /// Describes the kind of restart for the report.
    fn restarts_by(&self) -> String;
}

/// A server that was not started here. A command restarts it.
pub struct Foreign {
    pub command: String,
    pub addr: SocketAddr,
}

impl Server for Foreign {
    fn restart(&mut self, _: &mut Random) -> Result<()> {
        let status = Command::new("sh").arg("-c").arg(&self.command).status();
        let status = status.context("cannot run sh")?;
        if !status.success() {
            bail!("{:?}: {status}", self.command);
        }
        wait_for(self.addr, || Ok(()))
    }

    fn restarts_by(&self) -> String {
        format!("`{}`", self.command)
    }
}

/// Waits until the address accepts connections. `alive` returns an error when that will never happen.
pub(crate) fn wait_for(addr: SocketAddr, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        let stream = TcpStream::connect(addr);
        // If nothing listens on a port of the kernel's client range, a client may connect to itself.
        let myself = |s: &TcpStream| s.local_addr().ok() == s.peer_addr().ok();
        if stream.is_ok_and(|stream| !myself(&stream)) {
            return Ok(());
        }
        alive()?;
        if start.elapsed() > PATIENCE {
            bail!("nobody listens at {addr} after {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns a free port outside the kernel's client range, so that no client gets the port while the server is down.
pub(crate) fn port(random: &mut Random) -> Result<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next();
    let first: u16 = first.and_then(|first| first.parse().ok()).unwrap_or(32768);
    let (low, high) = match first {
        12000.. => (10000, first),
        _ => (1024, first.max(2048)),
    };
    for _ in 0..1000 {
        let port = low + random.below(usize::from(high - low)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {low} to {high}")
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    // The process may have ended already. Then there is nothing to stop.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
}

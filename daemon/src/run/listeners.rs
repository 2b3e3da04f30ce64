//! The sockets on which the daemon listens: those that systemd passed, which outlive the daemon, or its own.

use std::{
    collections::BTreeMap,
    env,
    fmt::Display,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Type};
use tracing::warn;

use crate::{
    compat::{self, port::Port},
    config::Config,
    source::socket::Socket,
    worker::{Listener, MOST_LISTENERS},
};

/// The length of the listen queue: the kernel completes this number of connections before they are accepted.
const BACKLOG: i32 = 4096;

/// The number of the door for the listeners of HTTP. The doors of other ports have the next numbers.
const HTTP_DOOR: usize = 0;

/// The open sockets of a daemon: HTTP and the Unix socket.
pub struct OpenSockets {
    pub(super) http: HttpListeners,
    /// The protocols with a port of their own, whose listeners are among those of HTTP.
    pub(super) ports: Vec<Arc<dyn Port>>,
    /// The addresses of these protocols, with the ports that the system chose for port 0.
    pub(super) port_addresses: BTreeMap<&'static str, SocketAddr>,
    pub(super) unix: Socket,
    pub(super) unix_path: PathBuf,
}

/// The listeners for HTTP clients.
pub(super) struct HttpListeners {
    pub(super) sockets: Vec<Listener>,
    pub(super) address: SocketAddr,
    /// Another process (systemd) also holds the listeners open. Connections that are not accepted wait for the next
    /// daemon.
    pub(super) outlives: bool,
}

impl OpenSockets {
    /// Opens the sockets that `config` names.
    ///
    /// # Errors
    /// Says which socket cannot be opened, and why.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let ports = compat::ports(&config.compat)?;
        Self::open(PassedSockets::default(), config, ports)
    }

    /// The address of HTTP, with the port that the system chose for port 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.http.address
    }

    /// Uses the passed sockets, and opens those that are missing.
    pub(super) fn open(
        mut passed: PassedSockets,
        config: &Config,
        ports: Vec<Arc<dyn Port>>,
    ) -> anyhow::Result<Self> {
        let mut http = open(&mut passed, config.listen, super::workers::number(config))?;
        let mut port_addresses = BTreeMap::new();
        for (door, port) in (HTTP_DOOR + 1..).zip(&ports) {
            let name = port.name();
            let socket = bind(port.listen(), 1)
                .with_context(|| format!("compat: the port of {name} cannot be opened"))?
                .remove(0);
            port_addresses.insert(name, socket.local_addr()?);
            http.sockets.push(Listener { socket, door });
        }
        let most = http.sockets.len() <= MOST_LISTENERS;
        ensure!(most, "{MOST_LISTENERS} sockets can be served, not more");
        let (unix_path, unix) = open_unix(passed, config)?;
        Ok(Self {
            http,
            ports,
            port_addresses,
            unix,
            unix_path,
        })
    }
}

/// Sockets that systemd passes and keeps open for a socket unit (sd_listen_fds(3)). A client that connects while no daemon
/// runs waits in their queue for the next daemon.
#[derive(Default)]
pub(super) struct PassedSockets {
    pub(super) http: Vec<TcpListener>,
    pub(super) socket: Option<UnixListener>,
}

impl PassedSockets {
    /// Must be called only once, before any descriptor is opened.
    pub(super) fn take() -> anyhow::Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let mut descriptors = ListenFd::from_env();
        let mut passed = Self::default();
        ensure!(
            descriptors.len() <= MOST_LISTENERS,
            "{} sockets were passed, and {MOST_LISTENERS} can be served",
            descriptors.len()
        );
        for index in 0..descriptors.len() {
            let name = names.next().unwrap_or("without a name");
            passed
                .take_one(&mut descriptors, index)
                .with_context(|| format!("passed socket {index} ({name}) cannot be served"))?;
        }
        Ok(passed)
    }

    fn take_one(&mut self, descriptors: &mut ListenFd, index: usize) -> anyhow::Result<()> {
        let connected = "it does not listen (Accept= of a socket unit must be no)";
        if let Ok(Some(listener)) = descriptors.take_tcp_listener(index) {
            let socket = SockRef::from(&listener);
            socket.listen(BACKLOG).context(connected)?;
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?; // accepted sockets inherit it
            self.http.push(listener);
        } else if let Ok(Some(listener)) = descriptors.take_unix_listener(index) {
            SockRef::from(&listener)
                .listen(BACKLOG)
                .context(connected)?;
            ensure!(self.socket.is_none(), "there is one Unix socket already");
            self.socket = Some(listener);
        } else {
            bail!("it is neither a TCP nor a Unix stream socket");
        }
        Ok(())
    }

    /// The address of HTTP. If there are several, an address that other machines can reach.
    pub(super) fn http_addr(&self) -> io::Result<Option<SocketAddr>> {
        let addrs: io::Result<Vec<_>> = self.http.iter().map(TcpListener::local_addr).collect();
        let addrs = addrs?;
        let open = addrs.iter().find(|addr| !addr.ip().is_loopback());
        Ok(open.or(addrs.first()).copied())
    }

    /// Warns if the settings name addresses that have no effect, because passed sockets replace them.
    pub(super) fn warn_of_unused(&self, given: &Config) {
        let addrs: Vec<_> = self.http.iter().flat_map(TcpListener::local_addr).collect();
        let is_default = given.listen == Config::default().listen;
        if !addrs.is_empty() && !is_default && !addrs.contains(&given.listen) {
            unused("listen", &given.listen);
        }
        let path = given.socket.path.as_ref().filter(|_| self.socket.is_some());
        if let Some(path) = path.filter(|path| self.socket_path().as_ref() != Some(path)) {
            unused("socket.path", &path.display());
        }
    }

    /// The path of the Unix socket, if it has one.
    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        let addr = self.socket.as_ref()?.local_addr().ok()?;
        addr.as_pathname().map(Into::into)
    }
}

fn unused(key: &str, value: &dyn Display) {
    warn!(
        "{key} is not used: a socket was passed to the daemon instead; to use {value}, write it as ListenStream= into the socket unit (systemctl edit comet.socket)"
    );
}

/// Uses the Unix socket that was passed, or opens one.
fn open_unix(passed: PassedSockets, config: &Config) -> anyhow::Result<(PathBuf, Socket)> {
    let path = match passed.socket_path() {
        Some(path) => path,
        None => comet_client::socket_path(config.socket.path.as_deref())?,
    };
    let socket = match passed.socket {
        Some(listener) => Socket::passed(listener, config),
        None => Socket::bind(&path, config)
            .context("cannot serve the socket (--socket or COMET_SOCKET names another)")?,
    };
    Ok((path, socket))
}

/// The passed HTTP listeners, or else new ones at `addr`.
fn open(
    passed: &mut PassedSockets,
    addr: SocketAddr,
    workers: usize,
) -> anyhow::Result<HttpListeners> {
    let outlives = !passed.http.is_empty();
    let (sockets, address) = match outlives {
        true => (std::mem::take(&mut passed.http), addr),
        false => {
            let own = bind(addr, workers)?;
            let addr = own[0].local_addr()?;
            (own, addr)
        }
    };
    let listener = |socket| Listener {
        socket,
        door: HTTP_DOOR,
    };
    Ok(HttpListeners {
        sockets: sockets.into_iter().map(listener).collect(),
        address,
        outlives,
    })
}

/// Opens one listener for each worker on the same port. Each listener has its own queue, because one queue would be too short
/// for many connections at once.
fn bind(addr: SocketAddr, workers: usize) -> anyhow::Result<Vec<TcpListener>> {
    let bind = || {
        if addr.port() != 0 {
            // With SO_REUSEPORT a second daemon could use the same port by mistake. A bind without it detects this.
            drop(listener(addr, false)?);
        }
        let first = listener(addr, true)?;
        let addr = first.local_addr()?;
        let others = (1..workers).map(|_| listener(addr, true));
        std::iter::once(Ok(first))
            .chain(others)
            .collect::<io::Result<Vec<_>>>()
    };
    bind().map_err(|e: io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "cannot listen on {addr}: another program, perhaps another comet, already listens there"
            )
        }
        _ => anyhow::anyhow!("cannot listen on {addr}: {e}"),
    })
}

fn listener(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

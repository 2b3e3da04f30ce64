//! Unix socket: publish, subscribe, history, status and ping as one JSON object a line (`docs/protocol.md`,
//! "Socket").
//!
//! Here: the file that clients find, and who is let in. What is said on a connection is in `connection`.

mod bind;
mod connection;
mod input;
pub(super) mod peer;
mod subscription;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    os::unix::net::UnixListener,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use comet_proto::{ChannelName, line};
use interprocess::{
    local_socket::tokio::prelude::*,
    os::unix::uds_local_socket::{self, tokio::Listener, tokio::Stream},
};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

pub use bind::SocketError;
use bind::SocketFile;
use connection::Connection;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use input::lines;
use peer::Peer;

use crate::{
    auth::{Allow, entry_of},
    config::{ByPrefix, Config, SocketConfig},
    drain::Drain,
    hub::subscriber::Audience,
    metrics::Metrics,
};

/// How long accepting pauses when the system cannot give another descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Users whose refusal is logged, each once; later ones are only counted.
const MAX_LOGGED: usize = 1024;

/// A bound socket. Dropping it removes its file.
pub struct Socket {
    listener: uds_local_socket::Listener,
    /// Not of a socket that was passed: that outlives us.
    file: Option<SocketFile>,
    config: SocketConfig,
    settings: Option<watch::Receiver<Arc<Config>>>,
    rules: ByPrefix<Allow>,
}

type WriteStatus = dyn Fn(&mut Vec<u8>);

/// What all connections share.
struct Shared {
    audience: Rc<Audience>,
    metrics: Arc<Metrics>,
    config: RefCell<Rc<SocketConfig>>,
    /// Who may publish where.
    rules: RefCell<ByPrefix<Allow>>,
    /// Appends the reply to `status` as a line.
    write_status: Box<WriteStatus>,
    drain: Drain,
    open: Cell<usize>,
    /// Users of whom a refusal was logged; true: to connect, false: to publish.
    refused_users: RefCell<HashSet<(u32, bool)>>,
}

impl Socket {
    /// Binds `path`, for its owner and group alone (0660) whatever the umask. A socket that nobody serves any
    /// more is taken over, one that somebody serves never. Needs no runtime.
    ///
    /// # Errors
    /// Says what is in the way.
    pub fn bind(path: &Path, config: &Config) -> Result<Self, SocketError> {
        let (listener, file) = bind::bind(path)?;
        Ok(Self {
            listener,
            file: Some(file),
            config: config.socket.clone(),
            rules: config.channels.socket.clone(),
            settings: None,
        })
    }

    /// Serves a socket that was passed to the daemon. Its file is whoever's who made it.
    #[must_use]
    pub fn passed(listener: UnixListener, config: &Config) -> Self {
        Self {
            listener: listener.into(),
            file: None,
            config: config.socket.clone(),
            rules: config.channels.socket.clone(),
            settings: None,
        }
    }

    /// Takes changes of the settings from here.
    pub fn follow(&mut self, settings: watch::Receiver<Arc<Config>>) {
        self.settings = Some(settings);
    }

    /// Serves until the daemon stops; then removes the file, answers what was read, and returns when all connections
    /// are closed, those of subscribers last. Needs a runtime with local tasks. `status` gives the fields of the reply to `status`.
    pub async fn run<S: Serialize>(
        self,
        audience: Rc<Audience>,
        metrics: Arc<Metrics>,
        status: impl Fn() -> S + 'static,
        drain: Drain,
    ) {
        let publisher = drain.publisher();
        let listener = match Listener::try_from(self.listener) {
            Ok(listener) => listener,
            Err(error) => return error!(%error, "cannot serve the socket"),
        };
        let shared = Rc::new(Shared {
            audience,
            metrics,
            config: RefCell::new(Rc::new(self.config)),
            rules: RefCell::new(self.rules),
            write_status: Box::new(move |out| line::write_status(&status(), out)),
            drain,
            open: Cell::new(0),
            refused_users: RefCell::default(),
        });
        let tasks = TaskTracker::new();
        tokio::select! {
            () = accept_all(&listener, &shared, &tasks) => {}
            () = shared.follow(self.settings) => {}
        }

        // From here on another daemon may take the path.
        drop((listener, self.file, publisher));
        tasks.close();
        tasks.wait().await;
    }
}

async fn accept_all(listener: &Listener, shared: &Rc<Shared>, tasks: &TaskTracker) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.drain.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                failing = false;
                shared.admit(stream, tasks);
            }
            Err(error) => {
                shared.metrics.socket_accept_pauses.add(1);
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot accept socket connections, trying on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Shared {
    fn config(&self) -> Rc<SocketConfig> {
        self.config.borrow().clone()
    }

    async fn follow(&self, settings: Option<watch::Receiver<Arc<Config>>>) {
        if let Some(mut settings) = settings {
            while settings.changed().await.is_ok() {
                let config = settings.borrow_and_update().clone();
                self.config.replace(Rc::new(config.socket.clone()));
                self.rules.replace(config.channels.socket.clone());
            }
        }
        std::future::pending().await
    }

    fn admit(self: &Rc<Self>, stream: Stream, tasks: &TaskTracker) {
        let most = self.config().max_connections;
        if self.open.get() >= most {
            self.metrics.socket_refused.add(1);
            let mut out = Vec::new();
            line::write_error(
                "connections",
                &format!("limit of {most} connections"),
                &mut out,
            );
            // A fresh socket takes a line at once; where it does not, its end says enough.
            let _ = stream.inner().try_write(&out);
            return;
        }
        let open = Open::new(self.clone());
        tasks.spawn_local(async move {
            let shared = &open.0;
            let peer = Peer::of(&stream);
            let refusal = shared.refusal(&peer);
            let connection = Connection::new(stream, peer, shared.clone());
            let ended = match refusal {
                None => connection.converse().await,
                Some(reason) => connection.refuse("permission", &reason).await,
            };
            if let Err(error) = ended {
                debug!(%error, "socket connection ended");
            }
        });
    }

    /// Why the peer may not connect.
    fn refusal(&self, peer: &Peer) -> Option<String> {
        let allow = &self.config().allow;
        if allow.is_empty() || peer.is_in(allow) {
            return None;
        }
        self.metrics.socket_refused.add(1);
        let name = peer.name();
        let entry = entry_of(peer.uid());
        let reason = format!(
            "user {name} may not connect: socket.allow lacks {entry:?}; it is allowed by allow = [{entry:?}] under [socket]"
        );
        self.log_refusal(peer, true, &reason);
        Some(reason)
    }

    /// Why the peer may not publish there.
    fn forbids(&self, peer: &Peer, channel: &ChannelName) -> Option<String> {
        let rules = self.rules.borrow();
        let (prefix, rule) = rules.find(channel)?;
        if peer.is_in(rule) {
            return None;
        }
        self.metrics.socket_forbidden.add(1);
        let name = peer.name();
        let entry = entry_of(peer.uid());
        let reason = format!(
            "user {name} may not publish to {channel}: socket under [[channel]] lacks {entry:?}; it is allowed by \
             socket = [{entry:?}] under [[channel]] with prefix = {prefix:?}"
        );
        self.log_refusal(peer, false, &reason);
        Some(reason)
    }

    fn log_refusal(&self, peer: &Peer, to_connect: bool, reason: &str) {
        let mut logged = self.refused_users.borrow_mut();
        if logged.len() < MAX_LOGGED && logged.insert((peer.uid(), to_connect)) {
            warn!("{reason}; later refusals of this user are only counted");
        }
    }
}

/// Counts a connection for as long as it lives.
struct Open(Rc<Shared>);

impl Open {
    fn new(shared: Rc<Shared>) -> Self {
        shared.open.set(shared.open.get() + 1);
        shared.metrics.socket_connections.add(1);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.metrics.socket_connections.sub(1);
    }
}

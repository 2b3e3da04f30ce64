//! Unix socket: publish, subscribe, unsubscribe, history, status and ping as one JSON object per line (`docs/protocol.md`,
//! "Socket").
//!
//! This file binds and runs the socket. `accept` accepts connections, `shared` says who may connect and publish, and
//! `connection` serves one connection.

mod accept;
mod bind;
mod connection;
mod history;
mod line_buffer;
pub(super) mod peer;
mod shared;
mod slots;
mod subscription;
mod unacknowledged;
mod unwritten;

use std::{
    cell::{Cell, RefCell},
    os::unix::net::UnixListener,
    path::Path,
    rc::Rc,
    sync::Arc,
};

use comet_proto::line;
use interprocess::os::unix::uds_local_socket::{self, tokio::Listener};
use nix::sys::socket::{Backlog, listen};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

pub use bind::SocketError;
use bind::SocketFile;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use line_buffer::lines;
use shared::Shared;
use slots::Slots;

use crate::{
    broker::Broker,
    config::{ByPrefix, Config, SocketConfig},
    drain::Drain,
    hub::subscriber::Audience,
    metrics::Metrics,
    presence::Presence,
    users::AllowList,
};

/// Connections that wait to be accepted. The queue has no order of users: with the system's 4,096, one user who connects again
/// and again made another one wait for some 100 ms. A client whose connect() waits gets its place in the queue by turns.
const BACKLOG: i32 = 256;

/// A bound socket. Dropping it removes its file.
pub struct Socket {
    listener: uds_local_socket::Listener,
    /// `None` for a socket that was passed, because that outlives this daemon.
    file: Option<SocketFile>,
    config: SocketConfig,
    settings: Option<watch::Receiver<Arc<Config>>>,
    rules: ByPrefix<AllowList>,
    slots: Slots,
}

impl Socket {
    /// Binds `path` for its owner and group only (0660), whatever the umask. A stale socket is replaced, a socket that a
    /// daemon serves never. Needs no runtime.
    ///
    /// # Errors
    /// Says what prevents it.
    pub fn bind(path: &Path, config: &Config) -> Result<Self, SocketError> {
        let (listener, file) = bind::bind(path)?;
        Ok(Self {
            listener,
            file: Some(file),
            config: config.socket.clone(),
            rules: config.channels.socket.clone(),
            slots: Slots::new(config),
            settings: None,
        })
    }

    /// Serves a socket that was passed to the daemon. Its file belongs to whoever created it.
    #[must_use]
    pub fn passed(listener: UnixListener, config: &Config) -> Self {
        Self {
            listener: listener.into(),
            file: None,
            config: config.socket.clone(),
            rules: config.channels.socket.clone(),
            slots: Slots::new(config),
            settings: None,
        }
    }

    /// Follows changes of the settings.
    pub fn follow(&mut self, settings: watch::Receiver<Arc<Config>>) {
        self.settings = Some(settings);
    }

    /// Serves until the daemon stops; then removes the file, answers what was read, and returns when all connections
    /// are closed, those of subscribers last. Needs a runtime with local tasks. `status` gives the fields of the reply to `status`.
    pub async fn run<S: Serialize>(
        self,
        audience: Rc<Audience>,
        broker: Arc<dyn Broker>,
        presence: Arc<dyn Presence>,
        metrics: Arc<Metrics>,
        status: impl Fn() -> S + 'static,
        drain: Drain,
    ) {
        let publisher = drain.publisher();
        let queue = Backlog::new(BACKLOG).and_then(|backlog| listen(&self.listener, backlog));
        if let Err(error) = queue {
            warn!(%error, "cannot shorten the queue of socket connections");
        }
        let listener = match Listener::try_from(self.listener) {
            Ok(listener) => listener,
            Err(error) => return error!(%error, "cannot serve the socket"),
        };
        let shared = Rc::new(Shared {
            audience,
            broker,
            presence,
            metrics,
            config: RefCell::new(Rc::new(self.config)),
            rules: RefCell::new(self.rules),
            write_status: Box::new(move |out| line::write_status(&status(), out)),
            drain,
            slots: Rc::new(self.slots),
            settings: Cell::new(0),
            changed: Notify::new(),
            refused: Cell::new(0),
            names: RefCell::default(),
            logged: RefCell::default(),
        });
        let tasks = TaskTracker::new();
        tokio::select! {
            () = accept::accept_all(&listener, &shared, &tasks) => {}
            () = shared.follow(self.settings) => {}
        }

        // Connections to a passed socket wait in its queue for the next daemon.
        let _ = listen(&listener, Backlog::MAXALLOWABLE);
        // From here on another daemon may bind the path.
        drop((listener, self.file, publisher));
        tasks.close();
        tasks.wait().await;
    }
}

//! Unix socket: publish, subscribe, history, status and ping as one JSON object per line (`docs/protocol.md`,
//! "Socket").
//!
//! This file has the socket, and decides who may connect. `connection` serves a connection.

mod bind;
mod connection;
mod history;
mod line_buffer;
pub(super) mod peer;
mod slots;
mod subscription;
mod unwritten;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    os::unix::net::UnixListener,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use comet_proto::{ChannelName, line};
use interprocess::{
    local_socket::tokio::prelude::*,
    os::unix::uds_local_socket::{self, tokio::Listener, tokio::Stream},
};
use nix::sys::socket::{Backlog, listen};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

pub use bind::SocketError;
use bind::SocketFile;
use connection::Connection;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use line_buffer::lines;
use peer::{Peer, user_name};
use slots::{NoSlot, Slots};

use crate::{
    config::{ByPrefix, Config, SocketConfig},
    drain::Drain,
    hub::subscriber::Audience,
    log_limit::LogLimit,
    metrics::Metrics,
    users::{Allow, entry_of},
};

/// Connections that wait to be accepted. The queue has no order of users: with the system's 4,096, one user who connects again
/// and again made another one wait for some 100 ms. A client whose connect() waits gets its place in the queue by turns.
const BACKLOG: i32 = 256;

/// The pause of accepting when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most users whose refusal is logged, each once. Further ones are only counted.
const MAX_LOGGED: usize = 1024;

/// The most refused peers that may go on sending for a moment ([`Connection::refuse`]). Further ones are closed at once, so
/// that users who may not connect do not use up descriptors.
const MAX_REFUSED: usize = 64;

/// A bound socket. Dropping it removes its file.
pub struct Socket {
    listener: uds_local_socket::Listener,
    /// `None` for a socket that was passed, because that outlives this daemon.
    file: Option<SocketFile>,
    config: SocketConfig,
    settings: Option<watch::Receiver<Arc<Config>>>,
    rules: ByPrefix<Allow>,
    slots: Slots,
}

type WriteStatus = dyn Fn(&mut Vec<u8>);

/// What was refused to a user.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum RefusedAction {
    Connecting,
    Slot,
    Publishing,
}

/// The data that all connections share.
struct Shared {
    audience: Rc<Audience>,
    metrics: Arc<Metrics>,
    config: RefCell<Rc<SocketConfig>>,
    /// Who may publish where.
    rules: RefCell<ByPrefix<Allow>>,
    /// Appends the reply to `status` as a line.
    write_status: Box<WriteStatus>,
    drain: Drain,
    slots: Rc<Slots>,
    /// How often `config` has changed, and who waits for that: connections of peers who are not allowed any more end.
    settings: Cell<u64>,
    changed: Notify,
    /// The number of refused peers that still send.
    refused: Cell<usize>,
    /// Cached names of users who were refused, because looking one up can take long.
    names: RefCell<HashMap<u32, Rc<str>>>,
    /// The refusals that were already logged, by user.
    logged: RefCell<HashSet<(u32, RefusedAction)>>,
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
            () = accept_all(&listener, &shared, &tasks) => {}
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

async fn accept_all(listener: &Listener, shared: &Rc<Shared>, tasks: &TaskTracker) {
    let (mut failing, mut lines) = (false, LogLimit::default());
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
                let is_new = !std::mem::replace(&mut failing, true);
                if is_new && lines.is_due(Instant::now()) {
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
                self.slots.follow(&config);
                self.settings.set(self.settings.get() + 1);
                self.changed.notify_waiters();
            }
        }
        std::future::pending().await
    }

    /// Waits until the settings differ from those.
    async fn changed(&self, settings: u64) {
        while self.settings.get() == settings {
            self.changed.notified().await;
        }
    }

    fn admit(self: &Rc<Self>, stream: Stream, tasks: &TaskTracker) {
        let peer = Peer::of(&stream);
        if let Some(reason) = self.refusal(&peer) {
            return self.turn_away(stream, peer, "permission", reason, tasks);
        }
        let slot = match self.slots.take(peer.uid(), &self.config()) {
            Ok(slot) => slot,
            Err(why) => {
                let reason = self.refuse_no_slot(&peer, &why);
                return self.turn_away(stream, peer, "connections", reason, tasks);
            }
        };
        let open = Open::new(self.clone());
        tasks.spawn_local(async move {
            let connection = Connection::new(stream, peer, open.0.clone());
            if let Err(error) = connection.converse(slot).await {
                debug!(%error, "socket connection ended");
            }
        });
    }

    /// Sends a peer the reason of its refusal. The peer takes no slot. Its further bytes are read only while few other peers
    /// are refused.
    fn turn_away(
        self: &Rc<Self>,
        stream: Stream,
        peer: Peer,
        code: &'static str,
        reason: String,
        tasks: &TaskTracker,
    ) {
        if self.refused.get() >= MAX_REFUSED {
            return write_refusal(&stream, code, &reason);
        }
        self.refused.set(self.refused.get() + 1);
        let shared = self.clone();
        tasks.spawn_local(async move {
            let connection = Connection::new(stream, peer, shared.clone());
            if let Err(error) = connection.refuse(code, &reason).await {
                debug!(%error, "refused socket connection ended");
            }
            shared.refused.set(shared.refused.get() - 1);
        });
    }

    /// The error for a peer for which there is no slot.
    fn refuse_no_slot(&self, peer: &Peer, why: &NoSlot) -> String {
        self.metrics.socket_refused.add(1);
        match why {
            NoSlot::Full(most) => {
                let more = self.config().max_connections.saturating_mul(2);
                format!(
                    "limit of {most} connections; max_connections = {more} under [socket] allows more"
                )
            }
            NoSlot::Share(share) => {
                let (name, all) = (self.name_of(peer), self.config().max_connections);
                let more = share.saturating_mul(2).min(all).max(share + 1);
                let reason = format!(
                    "user {name} has {share} connections, all that one user may have; max_per_user = {more} under \
                     [socket] allows more"
                );
                self.log_refusal(peer, RefusedAction::Slot, &reason);
                reason
            }
        }
    }

    /// Why the peer may not connect.
    fn refusal(&self, peer: &Peer) -> Option<String> {
        let allow = &self.config().allow;
        if allow.is_empty() || peer.is_in(allow) {
            return None;
        }
        self.metrics.socket_refused.add(1);
        let name = self.name_of(peer);
        let entry = entry_of(peer.uid());
        let reason = format!(
            "user {name} may not connect: socket.allow lacks {entry:?}; it is allowed by allow = [{entry:?}] under [socket]"
        );
        self.log_refusal(peer, RefusedAction::Connecting, &reason);
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
        let name = self.name_of(peer);
        let entry = entry_of(peer.uid());
        let reason = format!(
            "user {name} may not publish to {channel}: socket under [[channel]] lacks {entry:?}; it is allowed by \
             socket = [{entry:?}] under [[channel]] with prefix = {prefix:?}"
        );
        self.log_refusal(peer, RefusedAction::Publishing, &reason);
        Some(reason)
    }

    /// The peer's name, looked up once for each user.
    fn name_of(&self, peer: &Peer) -> Rc<str> {
        let mut names = self.names.borrow_mut();
        if names.len() >= MAX_LOGGED {
            names.clear();
        }
        let name = names.entry(peer.uid());
        name.or_insert_with(|| user_name(peer.uid()).into()).clone()
    }

    fn log_refusal(&self, peer: &Peer, refused: RefusedAction, reason: &str) {
        let mut logged = self.logged.borrow_mut();
        if logged.len() < MAX_LOGGED && logged.insert((peer.uid(), refused)) {
            warn!("{reason}; later refusals of this user are only counted");
        }
    }
}

/// Writes a refusal without waiting. A new socket normally accepts a line at once; otherwise the peer only sees the end.
fn write_refusal(stream: &Stream, code: &str, reason: &str) {
    let mut out = Vec::new();
    line::write_error(code, reason, &mut out);
    let _ = stream.inner().try_write(&out);
}

/// Counts a connection while it exists.
struct Open(Rc<Shared>);

impl Open {
    fn new(shared: Rc<Shared>) -> Self {
        shared.metrics.socket_connections.add(1);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.socket_connections.sub(1);
    }
}

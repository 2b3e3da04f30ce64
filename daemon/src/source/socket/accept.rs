//! Accepts connections, and refuses peers that may not connect or get no slot.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use comet_proto::line::{self, ErrorCode};
use interprocess::{
    local_socket::tokio::prelude::*,
    os::unix::uds_local_socket::tokio::{Listener, Stream},
};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{connection::Connection, peer::Peer, shared::Shared};
use crate::log_limit::LogLimit;

/// The pause of accepting when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of refused peers that may still send for a moment ([`Connection::refuse`]). Connections of further refused
/// peers are closed at once, so that users who may not connect do not use up descriptors.
const MAX_REFUSED: usize = 64;

pub(super) async fn accept_all(listener: &Listener, shared: &Rc<Shared>, tasks: &TaskTracker) {
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
                admit(shared, stream, tasks);
            }
            Err(error) => {
                shared.metrics.socket_accept_pauses.add(1);
                let is_new = !std::mem::replace(&mut failing, true);
                if is_new && lines.is_due(Instant::now()) {
                    warn!(%error, "cannot accept socket connections; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(shared: &Rc<Shared>, stream: Stream, tasks: &TaskTracker) {
    let peer = Peer::of(&stream);
    if let Some(reason) = shared.refusal(&peer) {
        return turn_away(shared, stream, peer, ErrorCode::Permission, reason, tasks);
    }
    let slot = match shared.slots.take(peer.uid(), &shared.config()) {
        Ok(slot) => slot,
        Err(why) => {
            let reason = shared.refuse_no_slot(&peer, &why);
            return turn_away(shared, stream, peer, ErrorCode::Connections, reason, tasks);
        }
    };
    let open = OpenConnection::new(shared.clone());
    tasks.spawn_local(async move {
        let connection = Connection::new(stream, peer, open.0.clone());
        if let Err(error) = connection.converse(slot).await {
            debug!(%error, "socket connection ended");
        }
    });
}

/// Sends a peer the reason of its refusal. The peer gets no slot. Bytes that the peer still sends are read only if few other
/// peers are being refused.
fn turn_away(
    shared: &Rc<Shared>,
    stream: Stream,
    peer: Peer,
    code: ErrorCode,
    reason: String,
    tasks: &TaskTracker,
) {
    if shared.refused.get() >= MAX_REFUSED {
        return write_refusal(&stream, &code, &reason);
    }
    shared.refused.set(shared.refused.get() + 1);
    let shared = shared.clone();
    tasks.spawn_local(async move {
        let connection = Connection::new(stream, peer, shared.clone());
        if let Err(error) = connection.refuse(&code, &reason).await {
            debug!(%error, "refused socket connection ended");
        }
        shared.refused.set(shared.refused.get() - 1);
    });
}

/// Writes a refusal without waiting. A new socket normally accepts a line at once; otherwise the peer only sees the end.
fn write_refusal(stream: &Stream, code: &ErrorCode, reason: &str) {
    let mut out = Vec::new();
    line::write_error(code, reason, &mut out);
    let _ = stream.inner().try_write(&out);
}

/// Counts a connection while it exists.
struct OpenConnection(Rc<Shared>);

impl OpenConnection {
    fn new(shared: Rc<Shared>) -> Self {
        shared.metrics.socket_connections.add(1);
        Self(shared)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.metrics.socket_connections.sub(1);
    }
}

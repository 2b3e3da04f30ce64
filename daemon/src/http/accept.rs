//! Takes connections, as many as the limit allows.

use std::{
    io::{self, ErrorKind, Write},
    rc::Rc,
};

use hyper::{StatusCode, header::RETRY_AFTER};
use mio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::{Worker, answer::Refusal};

/// Connections that are taken before others get their turn.
const BATCH: usize = 64;

/// One worker's listener.
pub(super) struct Accept {
    listener: TcpListener,
    warned: bool,
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
            warned: false,
        }
    }

    pub(super) fn take_some(&mut self, worker: &Rc<Worker>) -> Next {
        for _ in 0..BATCH {
            let taken = self
                .listener
                .accept()
                .and_then(|(stream, _)| take(stream, worker));
            match taken {
                Ok(()) => self.warned = false,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Next::Wait,
                // The client gave up between its SYN and our accept.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.warned, true) {
                        warn!(%error, "cannot accept connections; those that are open go on");
                    }
                    return Next::Pause;
                }
            }
        }
        Next::More
    }
}

fn take(mut stream: TcpStream, worker: &Rc<Worker>) -> io::Result<()> {
    let (site, metrics) = (&worker.site, &worker.site.metrics);
    if metrics.http_connections.get() < site.max_connections {
        return worker.add(stream);
    }
    metrics.http_refused.add(1);
    let message = format!(
        "more than {} connections are open; try again later",
        site.max_connections
    );
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "connections", message)
        .with(RETRY_AFTER, "5");
    // As far as it goes without waiting; then closed.
    let _ = stream.write(&refusal.into_bytes());
    Ok(())
}

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
    /// What the log says is the matter now.
    warned: Warned,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Warned {
    #[default]
    Nothing,
    Limit,
    Exhausted,
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
            warned: Warned::default(),
        }
    }

    pub(super) fn take_some(&mut self, worker: &Rc<Worker>) -> Next {
        for _ in 0..BATCH {
            let accepted = self.listener.accept();
            match accepted.and_then(|(stream, _)| self.take(stream, worker)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Next::Wait,
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
                    return Next::Pause;
                }
            }
        }
        Next::More
    }

    fn take(&mut self, mut stream: TcpStream, worker: &Rc<Worker>) -> io::Result<()> {
        let (site, metrics) = (worker.site(), &worker.metrics);
        let (open, max) = (metrics.http_connections.get(), site.max_connections);
        if open < max {
            // Not at each connection that comes where one has left.
            if open < max - max / 10 {
                self.warned = Warned::Nothing;
            }
            return worker.add(stream);
        }
        metrics.http_refused.add(1);
        if self.is_news(Warned::Limit) {
            warn!("{max} connections are open, which is the limit; others are refused with 503");
        }
        let message = format!("more than {max} connections are open; try again later");
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "connections", message)
            .with(RETRY_AFTER, "5");
        // As far as it goes without waiting; then closed.
        let _ = stream.write(&refusal.into_bytes());
        Ok(())
    }

    fn is_news(&mut self, what: Warned) -> bool {
        std::mem::replace(&mut self.warned, what) != what
    }
}

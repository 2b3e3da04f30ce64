//! The Unix signals that end the daemon or change its settings.

use std::{io, pin::pin};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the daemon or change its settings.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to handle the signals.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the daemon, and returns its name. Each SIGHUP calls `reload`; without `reload`, SIGHUP ends
    /// the daemon, too.
    pub(super) async fn stop(mut self, reload: Option<impl AsyncFn()>) -> &'static str {
        loop {
            let (mut term, mut int) = (pin!(self.term.recv()), pin!(self.int.recv()));
            tokio::select! {
                _ = &mut term => return "SIGTERM",
                _ = &mut int => return "SIGINT",
                _ = self.hangup.recv() => {}
            }
            let Some(reload) = &reload else {
                return "SIGHUP";
            };
            tokio::select! {
                _ = term => return "SIGTERM",
                _ = int => return "SIGINT",
                () = reload() => {}
            }
        }
    }
}

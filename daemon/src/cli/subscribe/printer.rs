//! Prints received messages, and remembers where a new connection has to continue.

use std::time::Duration;

use anyhow::anyhow;
use comet_proto::{ChannelNames, Cursor, Since};

use crate::cli::output::{print, visible, warn};

/// The pause before connecting again, which doubles with each failure, and its upper limit.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The longest time that the daemon can ask this client to stay away. A daemon asks for a minute at most.
const LONGEST_ABSENCE: Duration = Duration::from_secs(300);

/// Why a connection ended.
pub(super) enum ConnectionEnd {
    /// The connection was lost. A new one can continue after the last message.
    Lost(anyhow::Error),
    /// A new connection would fail in the same server.
    Final(anyhow::Error),
}

impl ConnectionEnd {
    pub(super) fn lost(error: impl Into<anyhow::Error>) -> Self {
        Self::Lost(error.into())
    }
}

/// The subscribed channels, and the last message that was printed.
pub(super) struct Printer {
    pub(super) channels: ChannelNames,
    pub(super) cursor: Option<Since>,
    /// Whether the daemon accepted the subscription on the present connection.
    pub(super) connected: bool,
    /// The daemon ended the subscription and asked to come back after this time.
    pub(super) retry: Option<Duration>,
}

impl Printer {
    pub(super) fn message(&mut self, json: &[u8], id: u64) -> Result<(), ConnectionEnd> {
        let json = str::from_utf8(json).map_err(ConnectionEnd::lost)?;
        print(format!("{}\n", visible(json)).as_bytes()).map_err(ConnectionEnd::Final)?;
        self.cursor = Some(Since::Id(Cursor(id)));
        Ok(())
    }

    /// Handles a subscription that the daemon has ended, because the daemon stops or has new settings.
    pub(super) fn leave(&mut self, retry_ms: u64) -> ConnectionEnd {
        self.retry = Some(Duration::from_millis(retry_ms).min(LONGEST_ABSENCE));
        ConnectionEnd::Lost(anyhow!(
            "the daemon ended the subscription, because it stops or its settings have changed"
        ))
    }

    pub(super) fn gap(&self, cursor: &str) {
        warn(&format!(
            "gap: messages up to {cursor} may be missing, because the daemon no longer keeps them"
        ));
    }
}

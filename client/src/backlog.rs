//! The messages that one client has stored in the spool and the daemon has not taken yet. Later messages must not overtake these
//! messages.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    connection::{Connection, Deadline, Failure},
    error::Error,
    options::{Options, SpoolUse},
    path::socket_path,
    reply,
    spool::{Spool, SpoolError, spool_path},
};

/// After a time-out the client does not try to reach the daemon for this time, so that not every page waits for the daemon.
const PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of messages in one batch from the spool, and the number of bytes after which a batch ends.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    spool: Option<Spool>,
    /// Oldest first.
    names: VecDeque<String>,
    paused_until: Option<Instant>,
}

impl Backlog {
    /// Adds a line to the spool, after the earlier ones.
    pub(crate) fn put(&mut self, options: &Options, line: &[u8]) -> Result<(), SpoolError> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            None => self.spool.insert(open(options)?),
        };
        let name = match spool.put(line) {
            // The directory was removed with its content, as systemd does, and may exist again.
            Err(SpoolError::System { .. }) => {
                *spool = open(options)?;
                self.names.clear();
                spool.put(line)?
            }
            name => name?,
        };
        self.names.push_back(name);
        Ok(())
    }

    /// Whether messages of this client are still in the spool.
    pub(crate) fn is_waiting(&mut self) -> bool {
        let Some(spool) = &self.spool else {
            return false;
        };
        while self.names.front().is_some_and(|name| !spool.has(name)) {
            self.names.pop_front();
        }
        if self.names.is_empty() {
            self.paused_until = None;
        }
        !self.names.is_empty()
    }

    /// Records that the daemon was too slow.
    pub(crate) fn pause(&mut self, error: &Error) {
        if matches!(error, Error::Timeout { .. }) && !self.is_paused() {
            self.paused_until = Some(Instant::now() + PAUSE);
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|end| Instant::now() < end)
    }

    /// Sends all messages to the daemon, and removes published ones from the spool. The daemon may publish them from the spool at the
    /// same time; their keys prevent a repetition.
    pub(crate) fn publish(
        &mut self,
        connection: &mut Connection,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        while self.is_waiting() {
            let (count, lines) = self.next_batch();
            let sent = connection.send(&lines, deadline);
            sent.map_err(|(_, failure)| failure)?;
            for _ in 0..count {
                let reply = connection.line(deadline)?.to_vec();
                if reply::connection_refusal(&reply).is_some() {
                    return Err(Failure::Closed);
                }
                let name = self.names.pop_front();
                // A message that the daemon refuses here would be refused from the spool, too, with a line in its log.
                if let (Ok(_), Some(name), Some(spool)) =
                    (reply::published_id(&reply), name, &self.spool)
                {
                    spool.remove(&name);
                }
            }
        }
        Ok(())
    }

    /// The next batch: the number of messages, and their lines.
    fn next_batch(&mut self) -> (usize, Vec<u8>) {
        let (mut count, mut lines) = (0, Vec::new());
        while count < BATCH && lines.len() < BATCH_BYTES {
            let Some(name) = self.names.get(count) else {
                break;
            };
            match self.spool.as_ref().and_then(|spool| spool.get(name)) {
                Some(line) => {
                    lines.extend(line);
                    count += 1;
                }
                // The daemon has taken the file meanwhile.
                None => _ = self.names.remove(count),
            }
        }
        (count, lines)
    }
}

fn open(options: &Options) -> Result<Spool, SpoolError> {
    match &options.spool {
        SpoolUse::In(path) => Spool::open(path),
        _ => {
            // An invalid socket path was reported before any message could go to the spool.
            let socket = socket_path(options.socket.as_deref()).unwrap_or_default();
            Spool::open(&spool_path(None, &socket))
        }
    }
}

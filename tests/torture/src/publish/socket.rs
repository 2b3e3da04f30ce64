//! Publishes over Comet's Unix socket with the Rust client library.

use std::{path::PathBuf, time::Duration};

use comet_client::{
    Acknowledge, Client, Error, Options, SpoolUse,
    proto::{ChannelName, EventName, line},
};

use super::{Outcome, Publish};

pub struct Socket(Client);

impl Socket {
    #[must_use]
    pub fn new(path: PathBuf, timeout: Duration) -> Self {
        Self::with(path, timeout, SpoolUse::Off)
    }

    /// Writes messages into the spool while the daemon is down.
    #[must_use]
    pub fn spooling(path: PathBuf, timeout: Duration) -> Self {
        Self::with(path, timeout, SpoolUse::On)
    }

    fn with(path: PathBuf, timeout: Duration, spool: SpoolUse) -> Self {
        Self(Client::new(Options {
            socket: Some(path),
            timeout,
            spool,
            ..Options::default()
        }))
    }
}

impl Publish for Socket {
    fn publish(&mut self, channel: &str, data: &str, key: &str) -> Outcome {
        let channel = match ChannelName::parse(channel) {
            Ok(channel) => channel,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let publish = line::Publish {
            channels: channel.into(),
            name: EventName::default(),
            data: data.as_bytes().into(),
            attributes: None,
            key: Some(key.into()),
        };
        match self.0.publish(publish, Acknowledge::Each) {
            Ok(outcome) => Outcome::Taken(outcome.id()),
            Err(Error::Connect { .. }) => Outcome::Away,
            Err(Error::Timeout { pending: 0, .. } | Error::Unknown { pending: 0 }) => Outcome::Away,
            Err(Error::Timeout { .. } | Error::Unknown { .. }) => Outcome::Unknown,
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }

    fn has_keys(&self) -> bool {
        true
    }
}

//! `[compat.comet_server]`

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::{PortAddress, PortError, PortLimits};
use crate::config::{Secret, value};

/// Shortest key in bytes. Tokens of users are signed with it.
const MIN_KEY: usize = 32;

/// `[compat.comet_server]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table [compat.comet_server], with its `key`"
)]
pub struct CometServerConfig {
    /// The developer's key: the password of CometQL.
    pub key: Secret,
    /// Where pages connect, on the port of HTTP. An empty path switches this half off.
    #[serde(default = "path", deserialize_with = "value::url_path")]
    pub path: String,
    /// The address of the port of CometQL. `None`: there is no such port.
    #[serde(default, deserialize_with = "value::some_addr")]
    pub sql: Option<SocketAddr>,
    #[serde(
        default = "PortLimits::connections",
        deserialize_with = "value::count::<_, 1>"
    )]
    pub max_connections: usize,
    #[serde(
        default = "PortLimits::idle",
        deserialize_with = "value::duration::<_, 1>"
    )]
    pub idle: Duration,
}

impl CometServerConfig {
    pub(super) fn port(&self) -> Option<PortAddress> {
        self.sql.map(|address| PortAddress {
            setting: "compat.comet_server.sql",
            address,
            has_key: true,
        })
    }

    /// Checks that nobody can guess the key.
    pub(super) fn check_key(&self) -> Result<(), PortError> {
        match self.key.text().len() {
            MIN_KEY.. => Ok(()),
            bytes => Err(PortError::ShortKey {
                setting: "compat.comet_server.key",
                bytes,
                least: MIN_KEY,
            }),
        }
    }

    pub(crate) fn limits(&self) -> PortLimits {
        PortLimits {
            max_connections: self.max_connections,
            idle: self.idle,
        }
    }
}

/// The script connects to the root of its host.
fn path() -> String {
    "/".into()
}

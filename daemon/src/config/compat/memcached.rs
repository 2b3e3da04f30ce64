//! `[compat.memcached]`

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::{PortAddress, PortLimits};
use crate::config::{Secret, auth, value};

/// `[compat.memcached]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [compat.memcached]")]
pub struct MemcachedConfig {
    /// The address of the port.
    #[serde(deserialize_with = "value::addr")]
    pub listen: SocketAddr,
    /// What clients must send before any other command; `None`: clients need no key.
    #[serde(default, deserialize_with = "auth::some_secret")]
    pub key: Option<Secret>,
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

impl MemcachedConfig {
    pub(super) fn port(&self) -> PortAddress {
        PortAddress {
            setting: "compat.memcached.listen",
            address: self.listen,
            has_key: self.key.is_some(),
        }
    }

    pub(crate) fn limits(&self) -> PortLimits {
        PortLimits {
            max_connections: self.max_connections,
            idle: self.idle,
        }
    }
}

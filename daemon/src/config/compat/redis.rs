//! `[compat.redis]`

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::{PortAddress, PortLimits};
use crate::config::{Secret, auth, value};

/// `[compat.redis]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [compat.redis]")]
pub struct RedisConfig {
    /// The address of the port.
    #[serde(deserialize_with = "value::addr")]
    pub listen: SocketAddr,
    /// The password for `AUTH`; `None`: clients need none.
    #[serde(default, deserialize_with = "auth::some_secret")]
    pub key: Option<Secret>,
    /// What is removed from the beginning of channels' names.
    #[serde(default)]
    pub prefix: String,
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

impl RedisConfig {
    pub(super) fn port(&self) -> PortAddress {
        PortAddress {
            setting: "compat.redis.listen",
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

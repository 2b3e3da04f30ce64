//! `[compat.realplexor]`

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

use super::PortAddress;
use crate::config::value;

/// `[compat.realplexor]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table [compat.realplexor]"
)]
pub struct RealplexorConfig {
    /// The address of publishers.
    #[serde(deserialize_with = "value::addr")]
    pub listen_in: SocketAddr,
    /// The address of waiting clients.
    #[serde(deserialize_with = "value::addr")]
    pub listen_wait: SocketAddr,
    /// The longest wait of a client.
    #[serde(deserialize_with = "value::duration::<_, 1>")]
    pub wait: Duration,
    /// An id counts as online for this time after its last client has left.
    #[serde(deserialize_with = "value::duration::<_, 0>")]
    pub offline: Duration,
    /// The file with the logins of publishers; `None`: everyone may publish, without a login.
    #[serde(deserialize_with = "value::some_path")]
    pub logins: Option<PathBuf>,
}

impl Default for RealplexorConfig {
    fn default() -> Self {
        Self {
            listen_in: (Ipv4Addr::LOCALHOST, 10010).into(),
            listen_wait: (Ipv4Addr::LOCALHOST, 8088).into(),
            wait: Duration::from_secs(300),
            offline: Duration::from_secs(30),
            logins: None,
        }
    }
}

impl RealplexorConfig {
    pub(super) fn ports(&self) -> [PortAddress; 2] {
        let publishers = PortAddress {
            setting: "compat.realplexor.listen_in",
            address: self.listen_in,
            has_key: self.logins.is_some(),
        };
        let clients = PortAddress {
            setting: "compat.realplexor.listen_wait",
            address: self.listen_wait,
            // Clients need no key. On an address that others can reach, only channels with a rule may be read.
            has_key: true,
        };
        [publishers, clients]
    }
}

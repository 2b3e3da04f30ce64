//! What the settings of all protocols with a port of their own have in common.

use std::{net::SocketAddr, time::Duration};

use crate::config::Config;

/// An address on which another server's protocol listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortAddress {
    /// The setting with the address, such as `compat.redis.listen`.
    pub setting: &'static str,
    pub address: SocketAddr,
    /// Whether clients need a key or password.
    pub has_key: bool,
}

/// The limits of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortLimits {
    pub max_connections: usize,
    /// A client that sends nothing for this time is disconnected, unless the client has subscribed.
    pub idle: Duration,
}

impl PortLimits {
    /// The limit of connections, if the table sets none.
    pub(super) fn connections() -> usize {
        1024
    }

    /// The idle time, if the table sets none. It is long, because PHP keeps connections for later requests, and a client
    /// that publishes on a connection which the daemon has just closed can lose the message.
    pub(super) fn idle() -> Duration {
        Duration::from_secs(3600)
    }
}

/// Why the addresses of the settings cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Two settings name the same port.
    #[error(
        "{second} ({address}) is the same port as {first} ({other}): each protocol needs a port of its own"
    )]
    Taken {
        first: &'static str,
        other: SocketAddr,
        second: &'static str,
        address: SocketAddr,
    },
    /// The key could be guessed.
    #[error(
        "{setting}: a key of {bytes} bytes is too short: at least {least}, such as the 64 that `openssl rand -hex 32` prints"
    )]
    ShortKey {
        setting: &'static str,
        bytes: usize,
        least: usize,
    },
    /// Other machines can reach the address, and clients need no key.
    #[error(
        "{setting}: {address} is not a loopback address, so other machines could publish and read there without a \
         password; set a key in the same table, or listen on a loopback address, such as 127.0.0.1:{}",
        address.port()
    )]
    Open {
        setting: &'static str,
        address: SocketAddr,
    },
}

impl Config {
    /// Checks that each protocol has a port of its own, that other machines can reach a port only with a key, and that no key
    /// is too short.
    ///
    /// # Errors
    /// Names the settings.
    pub fn check_ports(&self) -> Result<(), PortError> {
        if let Some(comet_server) = &self.compat.comet_server {
            comet_server.check_key()?;
        }
        let mut known = vec![("listen", self.listen)];
        for port in self.compat.ports() {
            let PortAddress {
                setting, address, ..
            } = port;
            if let Some(&(first, other)) = known.iter().find(|(_, known)| clash(*known, address)) {
                return Err(PortError::Taken {
                    first,
                    other,
                    second: setting,
                    address,
                });
            }
            if !port.has_key && !address.ip().to_canonical().is_loopback() {
                return Err(PortError::Open { setting, address });
            }
            known.push((setting, address));
        }
        Ok(())
    }
}

/// Whether two listeners cannot have these addresses at the same time. The system chooses different ports for port 0.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let is_same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && is_same_ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ports_clash() {
        let is_clash = |a: &str, b: &str| clash(a.parse().unwrap(), b.parse().unwrap());
        assert!(is_clash("127.0.0.1:1", "127.0.0.1:1"));
        assert!(is_clash("127.0.0.1:1", "0.0.0.0:1"));
        assert!(is_clash("[::]:1", "127.0.0.1:1"));
        assert!(!is_clash("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!is_clash("127.0.0.1:1", "127.0.0.1:2"));
        assert!(!is_clash("127.0.0.1:0", "127.0.0.1:0"));
    }
}

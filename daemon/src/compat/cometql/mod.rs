//! CometQL, the protocol by which PHP used comet-server.ru: statements over the MySQL protocol, on a port of its own. The
//! tables are views of channels and users; there is no database behind them.

mod change;
pub(crate) mod error;
pub(crate) mod execute;
mod failures;
pub(crate) mod grammar;
mod lexer;
pub(crate) mod login;
mod login_phase;
pub(crate) mod packet;
pub(crate) mod reply;
mod select;
mod session;
mod show;
pub(crate) mod statement;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::port::{Port, PortContext, PortDoor};
use crate::{
    config::{CometServerConfig, PortLimits, Secret},
    connection::{Conn, Worker},
    worker::{Address, Door},
};
use error::SqlError;
use failures::FailedLogins;
use login_phase::{LOGIN_TIME, LoginPhase};
use reply::Reply;

/// The port of CometQL.
pub(crate) struct CometQl {
    listen: SocketAddr,
    limits: PortLimits,
    shared: Arc<SharedState>,
}

/// What all connections of the port share.
struct SharedState {
    key: Secret,
    failures: FailedLogins,
    /// The number of the last connection.
    last: AtomicU32,
}

impl CometQl {
    /// `None`: the settings name no address for CometQL.
    pub(crate) fn new(config: &CometServerConfig) -> Option<Self> {
        Some(Self {
            listen: config.sql?,
            limits: config.limits(),
            shared: Arc::new(SharedState {
                key: config.key.clone(),
                failures: FailedLogins::default(),
                last: AtomicU32::new(0),
            }),
        })
    }
}

impl Port for CometQl {
    fn name(&self) -> &'static str {
        "cometql"
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn door(&self, context: &Rc<PortContext>) -> Box<dyn Door<Conn>> {
        let refusal = |reason: &str| {
            let error = SqlError::Connections(reason.to_owned());
            packet::packet(0, &reply::error_payload(&error))
        };
        Box::new(CometQlDoor {
            door: PortDoor::for_greeting(self.name(), context, self.limits, refusal),
            shared: self.shared.clone(),
        })
    }
}

/// The door of the port on one thread. The server speaks first, so the door writes the greeting.
struct CometQlDoor {
    door: PortDoor<()>,
    shared: Arc<SharedState>,
}

impl Door<Conn> for CometQlDoor {
    fn open(&self, stream: TcpStream, peer: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        let connection = self.shared.last.fetch_add(1, Ordering::Relaxed) + 1;
        let nonce = login::new_nonce();
        self.door
            .admit(stream, worker, LOGIN_TIME, |client, mut stream| {
                // The greeting always fits into the buffer of a new socket. If the client is gone, the next read says so.
                let greeting = packet::packet(0, &login::greeting(&nonce, connection));
                let _ = stream.write(&greeting);
                let address = Address::of(peer);
                let shared = self.shared.clone();
                Box::new(LoginPhase::new(client, shared, address, nonce, connection))
            })
    }
}

/// An error as a packet, in reply to a packet with this sequence number.
fn error_packet(sequence: u8, error: SqlError) -> Vec<u8> {
    Reply::Error(error).packets(sequence, false)
}

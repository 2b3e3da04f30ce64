//! A connection that is refused because there is no room for it.

use std::{io::ErrorKind, rc::Rc};

use bytes::Bytes;

use crate::{
    connection::{CHUNK, Conn, Input, Protocol, Step, Then, memory},
    http::{
        Http,
        refusal::{Reason, Refusal},
        site::Site,
    },
    hub::subscriber::Feed,
};

/// Why there is no room for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Refused {
    Connections,
    Memory,
    Address,
}

impl Refused {
    /// The answer to its request.
    pub(in crate::http) fn refusal(self, site: &Site) -> Refusal {
        let (taken, bytes) = (memory::taken(&site.metrics), site.ceiling.bytes());
        let (reason, message) = match self {
            Self::Connections => {
                let max = site.max_connections;
                let message = format!("more than {max} connections are open; try again later");
                (Reason::TooManyConnections, message)
            }
            Self::Memory => {
                let message = format!(
                    "connections use {taken} of the {bytes} bytes that they may use; try again later"
                );
                (Reason::TooManyConnections, message)
            }
            Self::Address => {
                let max = site.config.max_per_address.unwrap_or_default();
                let message = format!("more than {max} connections of your address are open");
                (Reason::TooManyOfAddress, message)
            }
        };
        Refusal::new(reason, message)
    }
}

/// A connection that is refused because there is no room for it. The head of its request is read first, because the head says
/// which form of answer the client understands.
pub(in crate::http) struct Refusing {
    http: Rc<Http>,
    refused: Refused,
    head: Vec<u8>,
}

impl Refusing {
    pub(in crate::http) fn new(http: Rc<Http>, refused: Refused) -> Self {
        http.refused.set(http.refused.get() + 1);
        let head = Vec::new();
        Self {
            http,
            refused,
            head,
        }
    }

    fn refuse(&self) -> Step {
        let site = self.http.site();
        let refusal = self.refused.refusal(&site).asked_by(&site, &self.head);
        Step::Write(refusal.into_bytes(&site.origins), Then::End)
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.http.refused.set(self.http.refused.get() - 1);
    }
}

impl Protocol for Refusing {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        match input.read() {
            Ok(1..) => self.head.extend_from_slice(&input.take()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Wait(conn.due()),
            Ok(0) | Err(_) => return self.refuse(),
        }
        let is_whole = self.head.windows(4).any(|end| end == b"\r\n\r\n");
        match is_whole || self.head.len() >= CHUNK {
            true => self.refuse(),
            false => Step::Write(Bytes::new(), Then::Again),
        }
    }

    fn news(&mut self, conn: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        Step::Wait(conn.due())
    }

    /// Part of the head is enough to choose the answer.
    fn time(&mut self, _: &Rc<Conn>) -> Step {
        self.refuse()
    }

    fn farewell(&mut self, conn: &Rc<Conn>) -> Step {
        let mut chunk = [0; CHUNK];
        let read = conn.try_read(&mut chunk).unwrap_or(0);
        self.head.extend_from_slice(&chunk[..read]);
        self.refuse()
    }
}

//! A connection before its client has shown the key.

use std::{
    io::ErrorKind,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    SharedState,
    error::SqlError,
    error_packet,
    login::{Login, NONCE, auth_switch},
    packet::{Received, packet},
    reply::Reply,
    session::Session,
};
use crate::{
    compat::port::{CommandConnection, PortClient},
    connection::{Conn, Input, Protocol, Step, Then, due_in},
    hub::subscriber::Feed,
    worker::Address,
};

/// A client must log in within this time.
pub(super) const LOGIN_TIME: Duration = Duration::from_secs(10);

/// Longest packet of a login in bytes. Clients also send attributes, which are ignored.
const MAX_LOGIN: usize = 8192;

/// A connection whose client must log in.
pub(super) struct LoginPhase {
    /// `None` after the login.
    client: Option<PortClient>,
    shared: Arc<SharedState>,
    /// `None`: a loopback address.
    address: Option<Address>,
    nonce: [u8; NONCE],
    connection: u32,
    /// What has arrived and is not a complete packet yet.
    bytes: Vec<u8>,
    /// The login whose client was asked to show the key by `mysql_native_password`.
    switched: Option<Login>,
    /// The name of the site, after the login.
    site: Option<String>,
    /// The error that the client gets after the wait for its failed login.
    refusal: Option<Bytes>,
}

/// What follows a packet of the login.
enum Answer {
    Write(Vec<u8>),
    LoggedIn(Vec<u8>, String),
    Refuse(SqlError),
}

impl LoginPhase {
    pub(super) fn new(
        client: PortClient,
        shared: Arc<SharedState>,
        address: Option<Address>,
        nonce: [u8; NONCE],
        connection: u32,
    ) -> Self {
        Self {
            client: Some(client),
            shared,
            address,
            nonce,
            connection,
            bytes: Vec::new(),
            switched: None,
            site: None,
            refusal: None,
        }
    }

    /// Handles the first packet in `bytes`, if it is complete.
    fn handle(&mut self, conn: &Conn) -> Option<Step> {
        let bytes = std::mem::take(&mut self.bytes);
        let (sequence, answer, length) = match Received::parse(&bytes, MAX_LOGIN) {
            Received::Incomplete => {
                self.bytes = bytes;
                return None;
            }
            Received::TooLong { sequence, .. } => {
                let error = SqlError::Handshake("the login is too long");
                (sequence, Answer::Refuse(error), bytes.len())
            }
            Received::Packet {
                sequence,
                payload,
                length,
            } => (sequence, self.answer(sequence, payload), length),
        };
        self.bytes = bytes[length..].to_vec();
        Some(match answer {
            Answer::Write(out) => Step::Write(out.into(), Then::Again),
            Answer::LoggedIn(out, site) => {
                self.site = Some(site);
                Step::Write(out.into(), Then::Again)
            }
            // Nobody has tried a key.
            Answer::Refuse(error @ SqlError::Handshake(_)) => {
                Step::Write(error_packet(sequence, error).into(), Then::End)
            }
            Answer::Refuse(error) => {
                let wait = self.shared.failures.add(self.address, Instant::now());
                self.refusal = Some(error_packet(sequence, error).into());
                Step::Wait(due_in(conn, wait))
            }
        })
    }

    fn answer(&mut self, sequence: u8, payload: &[u8]) -> Answer {
        let login = match self.switched.take() {
            Some(login) => login.with_answer(payload),
            None => match Login::parse(payload) {
                Ok(login) if login.needs_switch() => {
                    self.switched = Some(login);
                    let ask = auth_switch(&self.nonce);
                    return Answer::Write(packet(sequence.wrapping_add(1), &ask));
                }
                Ok(login) => login,
                Err(error) => return Answer::Refuse(error),
            },
        };
        let shared = &self.shared;
        if shared.failures.is_blocked(self.address, Instant::now()) {
            let reason = ": too many failed logins from this address; try again in a minute";
            return Answer::Refuse(SqlError::Authentication(reason));
        }
        match login.check(&shared.key, &self.nonce) {
            Ok(site) => Answer::LoggedIn(Reply::OK.packets(sequence, false), site),
            Err(error) => Answer::Refuse(error),
        }
    }

    /// The connection after the login.
    fn logged_in(&mut self, conn: &Conn) -> Option<Step> {
        let site = self.site.take()?;
        let client = self.client.take()?;
        conn.leave_input(std::mem::take(&mut self.bytes).into());
        let session = Session::new(
            client,
            self.shared.clone(),
            site,
            self.nonce,
            self.connection,
        );
        Some(Step::Become(Box::new(CommandConnection::new(session))))
    }
}

impl Protocol for LoginPhase {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        if let Some(step) = self.logged_in(conn) {
            return step;
        }
        if self.refusal.is_none()
            && let Some(step) = self.handle(conn)
        {
            return step;
        }
        match input.read() {
            Ok(read @ 1..) => {
                // While the refusal waits, further bytes do not matter.
                if self.refusal.is_none() {
                    self.bytes.extend_from_slice(input.bytes());
                }
                input.consume(read);
                Step::Write(Bytes::new(), Then::Again)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Step::Wait(conn.due()),
            Ok(0) | Err(_) => Step::Close,
        }
    }

    fn news(&mut self, conn: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        Step::Wait(conn.due())
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        let late = || error_packet(0, SqlError::Handshake("the login took too long")).into();
        Step::Write(self.refusal.take().unwrap_or_else(late), Then::End)
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        Step::Write(error_packet(0, SqlError::Shutdown).into(), Then::End)
    }
}

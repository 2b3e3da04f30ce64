//! Carries a dialect over a WebSocket.
//!
//! The client decides how fast the daemon reads: while an answer does not fit into the socket, no further text is read.
//! A client that reads slowly needs no memory for messages, because its session is a cursor.

use std::{io::ErrorKind, rc::Rc};

use bytes::Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{
    Session,
    dialect::{Close, Dialect, Frames, Heard, SessionEnd},
};
use crate::{
    access::permission::Credentials,
    connection::{
        Conn, Input, Protocol, Step, Then, due_in,
        memory::{self, Hold, SMALL},
    },
    http::{due_at, route::OpenProtocol},
    hub::{
        Backlog, READ_BYTES, RightEnds,
        subscriber::{Feed, SharedBacklog},
    },
    transport::websocket::{ClientMessage, ClientMessages},
    worker::Due,
};

/// Bytes of answers after which they are written, before the client's next text is read.
const MOST_ANSWERS: usize = 16 * 1024;

/// Size in bytes of one piece of backlog for a client that has fallen behind.
const PIECE: usize = 16 * 1024;

/// A session over a WebSocket.
pub(crate) struct WebSocket<D: Dialect> {
    session: Session,
    dialect: D,
    messages: ClientMessages,
    /// The memory of a message that is not complete.
    stored: Hold,
    is_open: bool,
    heartbeat: Due,
}

impl<D: Dialect> WebSocket<D> {
    pub(crate) fn new(session: Session, dialect: D) -> Self {
        Self {
            session,
            dialect,
            messages: ClientMessages::default(),
            stored: Hold::default(),
            is_open: false,
            heartbeat: Due::NEVER,
        }
    }

    /// Handles the texts that have arrived. `None`: there are none.
    fn hear_all(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Option<Step> {
        match input.read() {
            Ok(1..) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
            Ok(0) => return Some(self.finish(SessionEnd::HalfClosed)),
            Err(_) => return Some(Step::Close),
        }
        let mut out = Frames::default();
        while out.len() < MOST_ANSWERS && !input.bytes().is_empty() {
            let (used, message) = match self.messages.next(input.bytes()) {
                Ok(read) => read,
                Err(code) => return Some(self.fail(code, out)),
            };
            input.consume(used);
            match message.map(|message| self.hear(message, &mut out)) {
                None | Some(HeardFrame::GoOn) => {}
                Some(HeardFrame::End) => return Some(Step::Write(bytes(out), Then::End)),
                Some(HeardFrame::Task(step)) => return Some(step),
            }
        }
        if let Some(step) = self.count_stored(conn) {
            return Some(step);
        }
        Some(self.write(conn, out, Then::Again))
    }

    /// Handles one message of the client.
    fn hear(&mut self, message: ClientMessage, out: &mut Frames) -> HeardFrame {
        let heard = match message {
            ClientMessage::Ping(payload) => {
                out.pong(&payload);
                return HeardFrame::GoOn;
            }
            ClientMessage::Close(payload) => {
                if self.dialect.kind().sends_close {
                    out.return_close(&payload);
                }
                return HeardFrame::End;
            }
            ClientMessage::Text(text) => self.dialect.hear(&text, &mut self.session, out),
        };
        match heard {
            Ok(Heard::Done) => HeardFrame::GoOn,
            Ok(Heard::Published(receipt, acknowledge)) => match receipt.now() {
                Some(outcome) => {
                    acknowledge(outcome, out);
                    HeardFrame::GoOn
                }
                None => {
                    let mut out = std::mem::take(out);
                    HeardFrame::Task(Step::Task(Box::pin(async move {
                        acknowledge(receipt.outcome().await, &mut out);
                        Step::Write(bytes(out), Then::Again)
                    })))
                }
            },
            Err(close) => {
                out.close(&close);
                HeardFrame::End
            }
        }
    }

    /// Counts the memory of a message that is not complete. Ends the connection if there is no memory for it.
    fn count_stored(&mut self, conn: &Conn) -> Option<Step> {
        let stored = self.messages.stored();
        if stored <= SMALL {
            self.stored = Hold::default();
            return None;
        }
        self.stored.grow_to(stored);
        let is_full = conn.worker().context.is_full();
        is_full.then(|| self.fail(CloseCode::Again, Frames::default()))
    }

    /// Ends the connection because of what the client has sent.
    fn fail(&self, code: CloseCode, out: Frames) -> Step {
        let end = match self.dialect.kind().sends_close {
            true => Close::code(code),
            false => Close::NoFrame,
        };
        close(&end, out)
    }

    /// Sends what has come for the client, or waits.
    fn go_on(&mut self, conn: &Rc<Conn>) -> Step {
        if self.session.has_ended() {
            return self.end_rights();
        }
        if conn.worker().is_stopping() {
            return self.say_farewell();
        }
        let mut out = Frames::default();
        if let Some(backlog) = self.take_news(PIECE) {
            self.tell(&backlog, &mut out);
            if let Some(end) = self.dialect.ends_at(&backlog) {
                return close(&end, out);
            }
        }
        match out.len() {
            0 => Step::Wait(self.due(conn)),
            _ => self.write(conn, out, Then::Again),
        }
    }

    fn take_news(&mut self, bytes: usize) -> Option<Backlog> {
        let mut backlog = self.session.take_news(bytes)?;
        self.withhold(&mut backlog);
        Some(backlog)
    }

    /// Removes the messages that this client must not get.
    fn withhold(&self, backlog: &mut Backlog) {
        backlog
            .messages
            .retain(|message| !self.dialect.withholds(message));
    }

    fn tell(&self, backlog: &Backlog, out: &mut Frames) {
        self.count(backlog);
        self.dialect.tell(backlog, out);
    }

    fn count(&self, backlog: &Backlog) {
        let site = self.session.http().site();
        site.metrics.delivered.add(backlog.messages.len() as u64);
    }

    fn write(&mut self, conn: &Conn, out: Frames, then: Then) -> Step {
        if out.len() > 0 {
            self.set_heartbeat(conn);
        }
        Step::Write(bytes(out), then)
    }

    fn set_heartbeat(&mut self, conn: &Conn) {
        let interval = self.session.http().site().config.heartbeat;
        self.heartbeat = due_in(conn, interval);
    }

    /// When the next heartbeat is due, or a right ends.
    fn due(&self, conn: &Conn) -> Due {
        self.heartbeat.min(self.end_due(conn))
    }

    fn end_due(&self, conn: &Conn) -> Due {
        match self.session.ends() {
            RightEnds::Never => Due::NEVER,
            RightEnds::At(second) => due_at(&conn.worker().timers, second),
            RightEnds::Revoked => Due::NOW,
        }
    }

    fn end_rights(&mut self) -> Step {
        let end = match self.session.ends() {
            RightEnds::Revoked => SessionEnd::Reconnect(self.session.http().retry_of_revoked()),
            RightEnds::At(_) | RightEnds::Never => SessionEnd::Expired,
        };
        self.last_words(end, Frames::default())
    }

    fn say_farewell(&mut self) -> Step {
        let retry = self.session.http().site().drain.retry();
        self.finish(SessionEnd::Reconnect(retry))
    }

    /// Sends the rest of the messages and ends the session.
    fn finish(&mut self, end: SessionEnd) -> Step {
        let mut out = Frames::default();
        if let Some(backlog) = self.take_news(READ_BYTES) {
            self.tell(&backlog, &mut out);
        }
        self.last_words(end, out)
    }

    fn last_words(&self, end: SessionEnd, mut out: Frames) -> Step {
        let end = self.dialect.end(end, &self.session, &mut out);
        close(&end, out)
    }
}

/// The protocol for [`Upgrade`](crate::http::route::Upgrade): a session with these credentials that speaks this dialect.
pub(crate) fn open_session<D: Dialect>(credentials: Credentials, dialect: D) -> OpenProtocol {
    Box::new(|http, conn| {
        let session = Session::new(http, conn.clone(), credentials);
        Box::new(WebSocket::new(session, dialect))
    })
}

/// What follows after a message of the client.
enum HeardFrame {
    GoOn,
    /// The connection ends after the answers.
    End,
    Task(Step),
}

fn close(close: &Close, mut out: Frames) -> Step {
    out.close(close);
    Step::Write(bytes(out), Then::End)
}

fn end_after(piece: &[u8], end: &Close) -> Step {
    let mut out = Frames::from(piece.to_vec());
    out.close(end);
    Step::Write(bytes(out), Then::End)
}

fn bytes(out: Frames) -> Bytes {
    memory::keep(out.into_bytes())
}

impl<D: Dialect> Drop for WebSocket<D> {
    fn drop(&mut self) {
        self.dialect.closed(&self.session);
    }
}

impl<D: Dialect> Protocol for WebSocket<D> {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        if !std::mem::replace(&mut self.is_open, true) {
            let mut out = Frames::default();
            self.set_heartbeat(conn);
            return match self.dialect.open(&mut self.session, &mut out) {
                Ok(()) => Step::Write(bytes(out), Then::Again),
                Err(end) => close(&end, out),
            };
        }
        match self.hear_all(conn, input) {
            Some(step) => step,
            None => self.go_on(conn),
        }
    }

    fn news(&mut self, conn: &Rc<Conn>, feed: &mut Feed<'_>) -> Step {
        let Some(mut shared) = self.session.take_shared_news(feed) else {
            return Step::Wait(conn.due());
        };
        let mut messages = shared.backlog().messages.iter();
        if messages.any(|message| self.dialect.withholds(message)) {
            let mut own = shared.backlog().clone();
            self.withhold(&mut own);
            shared = Rc::new(SharedBacklog::new(own));
        }
        let render = |backlog: &Backlog| {
            let mut out = Frames::default();
            self.dialect.tell(backlog, &mut out);
            bytes(out)
        };
        let piece = match self.dialect.kind().form {
            Some(form) => shared.form(form.number(), render),
            None => render(shared.backlog()),
        };
        self.count(shared.backlog());
        if let Some(end) = self.dialect.ends_at(shared.backlog()) {
            return end_after(&piece, &end);
        }
        self.set_heartbeat(conn);
        match shared.backlog().more {
            true => Step::Write(piece, Then::Again),
            false => Step::Write(piece, Then::Wait(self.due(conn))),
        }
    }

    fn time(&mut self, conn: &Rc<Conn>) -> Step {
        if self.session.has_ended() {
            return self.end_rights();
        }
        let mut out = Frames::default();
        self.dialect.heartbeat(&mut out);
        self.set_heartbeat(conn);
        Step::Write(bytes(out), Then::Wait(self.due(conn)))
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        self.say_farewell()
    }

    fn changed(&mut self, conn: &Conn) -> Option<Due> {
        self.session.check_rights();
        Some(conn.due().min(self.end_due(conn)))
    }
}

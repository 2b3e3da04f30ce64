//! The publisher: one connection that comes back by itself, and an honest answer about every message.

use std::{process, time::Duration};

use comet_proto::line::{Publish, Receipt, write_publish};
use nix::errno::Errno;

use crate::{
    Error, Options,
    connection::{Connection, Deadline, Failure},
    key::Keys,
    socket_path,
};

/// Buffered messages are sent when they are as many bytes as this.
const BUFFER: usize = 64 << 10;

/// Replies to messages nobody waits for are taken from the socket each time as many are due.
const DUE: usize = 64;

/// When [`Client::publish`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// When the daemon has published the message and kept it as configured.
    Each,
    /// When the message is handed to the system; [`Client::flush`] says whether all went well.
    Later,
    /// At once: the message is sent with others, at the latest by [`Client::flush`].
    Buffered,
}

/// A publisher. Connects when it has something to send, and again when the connection was lost. No call takes
/// longer than [`Options::timeout`]. After `fork` the child has a connection of its own, and what the parent
/// had not sent or not heard of is the parent's.
///
/// A dropped client sends what it has buffered, without telling whether that went well: call
/// [`Client::flush`] to know.
#[derive(Debug)]
pub struct Client {
    options: Options,
    process: u32,
    keys: Option<Keys>,
    connection: Option<Connection>,
    /// Lines that were not sent, how many they are, and whether sending them twice publishes them once.
    lines: Vec<u8>,
    queued: usize,
    repeatable: bool,
    /// Lines that were sent and have no reply yet.
    due: usize,
    /// Time that the caller took off the next call's timeout.
    spent: Duration,
    /// What went wrong with messages that nobody waited for; the first is told by `flush`.
    untold: Option<Error>,
}

impl Client {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            keys: options.key.as_deref().map(Keys::new),
            options,
            process: process::id(),
            connection: None,
            lines: Vec::new(),
            queued: 0,
            repeatable: true,
            due: 0,
            spent: Duration::ZERO,
            untold: None,
        }
    }

    /// How it publishes.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Takes what the caller has waited already off the timeout of the next call.
    pub fn spent(&mut self, waited: Duration) {
        self.spent = waited;
    }

    /// Publishes one message, after all that were published before. With [`Acknowledge::Each`] returns its id.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::Unknown`] leave open whether the message was published, unless it has an
    /// idempotency key and is published again with it. When this sends buffered messages too, the error is about
    /// all of them, and none is kept.
    pub fn publish(
        &mut self,
        mut publish: Publish<'_>,
        acknowledge: Acknowledge,
    ) -> Result<Option<u64>, Error> {
        self.notice_fork();
        if publish.key.is_none() {
            publish.key = self.keys.as_ref().map(|keys| keys.next().into());
        }
        self.repeatable &= publish.key.is_some();
        write_publish(&publish, &mut self.lines);
        self.queued += 1;
        match acknowledge {
            Acknowledge::Buffered if self.lines.len() < BUFFER => Ok(None),
            Acknowledge::Buffered | Acknowledge::Later => {
                let deadline = self.deadline();
                self.send(deadline)?;
                if self.due >= DUE {
                    self.take_replies();
                }
                Ok(None)
            }
            Acknowledge::Each => self.publish_now().map(Some),
        }
    }

    /// Sends what is buffered and waits until all that was published is acknowledged.
    ///
    /// # Errors
    /// The first thing that went wrong since the last flush, other than what calls have told already.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.notice_fork();
        if self.queued + self.due > 0
            && let Err(error) = self.publish_now()
        {
            self.untold.get_or_insert(error);
        }
        self.untold.take().map_or(Ok(()), Err)
    }

    /// Sends one line and returns the daemon's reply to it, both without line end.
    ///
    /// # Errors
    /// As [`Client::publish`]; an error in the reply is the caller's to read.
    pub fn request(&mut self, line: &str) -> Result<String, Error> {
        self.notice_fork();
        if line.contains('\n') {
            return Err(Error::Line);
        }
        self.lines.extend_from_slice(line.as_bytes());
        self.lines.push(b'\n');
        self.queued += 1;
        self.repeatable = false;
        String::from_utf8(self.ask()?).map_err(|e| protocol(e.as_bytes()))
    }

    fn deadline(&mut self) -> Deadline {
        let spent = std::mem::take(&mut self.spent);
        Deadline::after(self.options.timeout.saturating_sub(spent))
    }

    /// The child of a `fork` shares the parent's socket: what either wrote or read there would be the other's.
    fn notice_fork(&mut self) {
        if self.process != process::id() {
            *self = Self::new(self.options.clone());
        }
    }

    /// Publishes what is queued, and returns the id of the last message that was sent.
    fn publish_now(&mut self) -> Result<u64, Error> {
        let id = published(&self.ask()?);
        self.part_after(id.is_err());
        id
    }

    /// A refusal may be the daemon's last word on this connection, as after a line over its limit: it would not
    /// read what is sent next.
    fn part_after(&mut self, refusal: bool) {
        if refusal && self.due == 0 {
            self.connection = None;
        }
    }

    /// Sends what is queued, and returns the reply to the last line that was sent.
    fn ask(&mut self) -> Result<Vec<u8>, Error> {
        let deadline = self.deadline();
        let queued = self.queued;
        let again = (self.repeatable && queued > 0).then(|| self.lines.clone());
        let reply = self.send(deadline).and_then(|()| self.receive(deadline));
        match (reply, again) {
            (Err(Error::Unknown { pending }), Some(lines)) => {
                // What was sent before without waiting is not at hand any more, to be sent again.
                if pending > queued {
                    let pending = pending - queued;
                    self.untold.get_or_insert(Error::Unknown { pending });
                }
                (self.lines, self.queued) = (lines, queued);
                self.send(deadline)?;
                self.receive(deadline)
            }
            (reply, _) => reply,
        }
    }

    /// Sends what is queued. Whatever happens, nothing is queued afterwards.
    fn send(&mut self, deadline: Deadline) -> Result<(), Error> {
        let mut lines = std::mem::take(&mut self.lines);
        let queued = std::mem::take(&mut self.queued);
        self.repeatable = true;
        if queued == 0 {
            return Ok(());
        }
        if let Some(connection) = &mut self.connection {
            match connection.send(&lines, deadline) {
                // The daemon left since the last call. None of this reached it, so it can go to the next one.
                Err((0, Failure::Closed)) => {
                    self.take_replies();
                    let waited_for = self.due > 0;
                    let lost = self.lose(Failure::Closed);
                    if waited_for {
                        self.untold.get_or_insert(lost);
                    }
                }
                result => self.sent(result, queued)?,
            }
        }
        if self.connection.is_none() {
            let result = self.connect(deadline)?.send(&lines, deadline);
            self.sent(result, queued)?;
        }
        // Its memory serves the next message, unless this one was unusually large.
        lines.clear();
        lines.shrink_to(2 * BUFFER);
        self.lines = lines;
        Ok(())
    }

    /// Notes what became of the sending of `queued` lines.
    fn sent(&mut self, result: Result<(), (usize, Failure)>, queued: usize) -> Result<(), Error> {
        match result {
            // When the daemon closed, its last words, such as that a line is too long, are still to be read.
            Ok(()) | Err((_, Failure::Closed)) => {
                self.due += queued;
                Ok(())
            }
            Err((sent, failure)) => {
                self.due += if sent > 0 { queued } else { 0 };
                Err(self.lose(failure))
            }
        }
    }

    fn connect(&mut self, deadline: Deadline) -> Result<&mut Connection, Error> {
        let path = socket_path(self.options.socket.as_deref())?;
        let connection = Connection::open(&path, deadline).map_err(|source| match source {
            Errno::EAGAIN => self.timeout(0),
            source => Error::Connect { path, source },
        })?;
        Ok(self.connection.insert(connection))
    }

    /// Waits for all replies that are due, and returns the last.
    fn receive(&mut self, deadline: Deadline) -> Result<Vec<u8>, Error> {
        while let Some(connection) = &mut self.connection {
            match connection.line(deadline) {
                Ok(line) => {
                    let line = line.to_vec();
                    self.due -= 1;
                    if self.due == 0 {
                        return Ok(line);
                    }
                    self.note(&line);
                }
                Err(failure) => return Err(self.lose(failure)),
            }
        }
        Err(Error::Unknown { pending: 0 })
    }

    /// Takes the replies that have come, without waiting.
    fn take_replies(&mut self) {
        while self.due > 0
            && let Some(connection) = &mut self.connection
            && let Ok(Some(line)) = connection.line_at_hand()
        {
            let line = line.to_vec();
            self.due -= 1;
            self.note(&line);
        }
    }

    /// Keeps the first bad reply to a message that nobody waited for.
    fn note(&mut self, reply: &[u8]) {
        let id = published(reply);
        self.part_after(id.is_err());
        if let Err(error) = id {
            self.untold.get_or_insert(error);
        }
    }

    /// Drops the connection: a late reply must never answer a later message.
    fn lose(&mut self, failure: Failure) -> Error {
        self.connection = None;
        let pending = std::mem::take(&mut self.due);
        match failure {
            Failure::Timeout => self.timeout(pending),
            Failure::Closed => Error::Unknown { pending },
            Failure::TooLong => protocol(b"a line without end"),
        }
    }

    fn timeout(&self, pending: usize) -> Error {
        let after = self.options.timeout;
        Error::Timeout { after, pending }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // After a panic what is queued may be half a line.
        if !std::thread::panicking() && self.queued > 0 && self.process == process::id() {
            // Nobody is left to hear of an error.
            let _ = self.flush();
        }
    }
}

/// The id in a reply to a publish.
fn published(reply: &[u8]) -> Result<u64, Error> {
    match Receipt::parse(reply) {
        Ok(Receipt::Id(id)) => Ok(id),
        Ok(Receipt::Refused { code, message }) => Err(Error::Refused { code, message }),
        Err(_) => Err(protocol(reply)),
    }
}

fn protocol(reply: &[u8]) -> Error {
    let start = &reply[..reply.len().min(80)];
    Error::Protocol(String::from_utf8_lossy(start).into_owned())
}

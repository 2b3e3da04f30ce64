//! The publisher: one connection, which is opened again when it is lost, and a definite result for every message.

use std::{process, time::Duration};

use comet_proto::{
    ChannelNames, Cursor,
    line::{Publish, write_history, write_publish},
};
use nix::errno::Errno;

use crate::{
    backlog::Backlog,
    connection::{Connection, Deadline, Failure, MAX_LINE},
    error::Error,
    key::Keys,
    options::Options,
    outbox::{AfterLoss, Outbox},
    path::socket_path,
    reply,
};

/// Buffered messages are sent when they reach this many bytes.
const BUFFER: usize = 64 << 10;

/// Replies that no call waits for are read from the socket after this many messages, or after messages of this many
/// bytes.
const DUE: usize = 64;
const DUE_BYTES: usize = 256 << 10;

/// The default prefix of keys.
const KEY: &str = "comet";

/// When [`Client::publish`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// When the daemon has published the message and kept it as configured.
    Each,
    /// When the message is handed to the operating system; [`Client::flush`] reports errors.
    Later,
    /// At once; the message is sent in a batch, at the latest by [`Client::flush`].
    Buffered,
}

/// What happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Published, under this id.
    Published(u64),
    /// Sent or buffered, without waiting for the acknowledgement.
    OnItsWay,
    /// The message is in the spool, behind earlier messages without an acknowledgement. The next daemon publishes them in
    /// this order.
    Spooled,
}

impl Outcome {
    /// The message's id, if it is known.
    #[must_use]
    pub fn id(self) -> Option<u64> {
        match self {
            Self::Published(id) => Some(id),
            Self::OnItsWay | Self::Spooled => None,
        }
    }
}

/// A publisher. It connects when it has a message to send, and again after the connection was lost. No call takes
/// longer than [`Options::timeout`]. After `fork` the child opens its own connection, and unsent or unacknowledged messages
/// stay with the parent.
///
/// Messages are published in the order of the calls, also those that went to the spool.
///
/// A dropped client sends its buffered messages without reporting errors: call [`Client::flush`] before.
#[derive(Debug)]
pub struct Client {
    options: Options,
    process: u32,
    keys: Option<Keys>,
    connection: Option<Connection>,
    outbox: Outbox,
    backlog: Backlog,
    /// The number of unacknowledged lines of a lost connection that cannot be sent again.
    doubtful: usize,
    /// Time that is subtracted from the next call's time-out.
    spent: Duration,
    /// The first error of messages that no call waited for; `flush` returns it.
    unreported: Option<Error>,
    /// The number of messages that no call waited for and that went to the spool; `flush` returns it.
    unreported_spooled: usize,
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
            outbox: Outbox::default(),
            backlog: Backlog::default(),
            doubtful: 0,
            spent: Duration::ZERO,
            unreported: None,
            unreported_spooled: 0,
        }
    }

    /// The options of this client.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Subtracts the time that the caller has already waited from the time-out of the next call.
    pub fn spent(&mut self, waited: Duration) {
        self.spent = waited;
    }

    /// Publishes one message, after all earlier ones. With [`Acknowledge::Each`] waits for its id.
    ///
    /// # Errors
    /// After [`Error::Timeout`] and [`Error::Unknown`] the message may or may not have been published; with an idempotency key it
    /// can be repeated safely. When this call also sends buffered messages, the error is about all of them, and the buffer is
    /// empty afterwards.
    pub fn publish(
        &mut self,
        publish: Publish<'_>,
        acknowledge: Acknowledge,
    ) -> Result<Outcome, Error> {
        self.put(publish, acknowledge, false)
    }

    /// Like [`Client::publish`], but stores the message in the spool if the daemon cannot be reached, unless the options
    /// forbid this. A message without a key gets a key, so that the message is published once even if the daemon already
    /// has it.
    ///
    /// # Errors
    /// As [`Client::publish`]. If the daemon cannot be reached, only if the spool does not accept the message either.
    pub fn publish_or_spool(
        &mut self,
        publish: Publish<'_>,
        acknowledge: Acknowledge,
    ) -> Result<Outcome, Error> {
        self.put(publish, acknowledge, true)
    }

    /// Sends buffered messages, and waits until all messages are acknowledged or in the spool. Returns the number of
    /// messages that went to the spool since the last flush and that no call has reported yet.
    ///
    /// # Errors
    /// The first error since the last flush that no call has returned yet.
    pub fn flush(&mut self) -> Result<usize, Error> {
        self.notice_fork();
        if !self.outbox.is_empty() {
            let result = self.publish_now().map(Outcome::Published);
            match self.spool_or_fail(result) {
                Ok(Outcome::Spooled) => self.unreported_spooled += 1,
                Ok(_) => {}
                Err(error) => _ = self.unreported.get_or_insert(error),
            }
        }
        let spooled = std::mem::take(&mut self.unreported_spooled);
        self.unreported.take().map_or(Ok(spooled), Err)
    }

    /// Sends one line and returns the daemon's reply. Both are without a line end.
    ///
    /// # Errors
    /// As [`Client::publish`]. The caller must check the reply for an error.
    pub fn request(&mut self, line: &str) -> Result<String, Error> {
        self.notice_fork();
        if line.contains('\n') {
            return Err(Error::Line);
        }
        let reply = self.exchange(AfterLoss::Drop, |out| {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        })?;
        String::from_utf8(reply).map_err(|e| reply::unexpected(e.as_bytes()))
    }

    /// The id of the newest message of all channels. A page that reads its state after this call, and subscribes
    /// from this cursor, misses no message. Buffered messages are published first.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub fn cursor(&mut self) -> Result<Cursor, Error> {
        self.notice_fork();
        let reply = self.read(|out| out.extend_from_slice(b"{\"op\":\"cursor\"}\n"))?;
        reply::cursor(&reply)
    }

    /// The messages of `channels` after `since` that the daemon still keeps, as the daemon's line
    /// `{"ok":true,"cursor":"…","gap":false,"messages":[…]}` (`docs/protocol.md`, "Socket"). Buffered messages are
    /// published first.
    ///
    /// # Errors
    /// As [`Client::publish`], and [`Error::TooLong`] when the history is too long.
    pub fn history(&mut self, channels: &ChannelNames, since: Cursor) -> Result<Vec<u8>, Error> {
        self.notice_fork();
        let reply = self.read(|out| write_history(channels, since, out))?;
        reply::cursor(&reply)?; // fails if the reply is a refusal
        Ok(reply)
    }

    /// Sends a line that publishes nothing, and returns the reply. If the connection breaks, sends the line again. Errors do not
    /// count the line as a message that may have been published.
    fn read(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, Error> {
        let mut reply = self.exchange(AfterLoss::Repeat, write);
        if let Err(Error::Timeout { pending, .. } | Error::Unknown { pending }) = &mut reply {
            *pending = pending.saturating_sub(1);
        }
        reply
    }

    /// Sends one line, and returns the reply.
    fn exchange(
        &mut self,
        after_loss: AfterLoss,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<u8>, Error> {
        self.outbox.push(after_loss, write);
        self.ask().map_err(|error| {
            self.spool_or_fail(Err(error))
                .expect_err("nothing was published")
        })
    }

    /// Stores a message in the spool, if the options allow this. For a caller whose time is over before it could use the client.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the spool is not allowed, [`Error::Spool`] if the spool does not accept the message.
    pub fn give_up(&mut self, publish: Publish<'_>, spool: bool) -> Result<Outcome, Error> {
        self.push(publish, self.options.spools(spool));
        self.spool_or_fail(Err(timed_out(&self.options, 0)))
    }

    fn put(
        &mut self,
        publish: Publish<'_>,
        acknowledge: Acknowledge,
        asked: bool,
    ) -> Result<Outcome, Error> {
        self.notice_fork();
        self.push(publish, self.options.spools(asked));
        let result = self.send_as(acknowledge);
        self.spool_or_fail(result)
    }

    fn push(&mut self, mut publish: Publish<'_>, spool: bool) {
        if spool && self.keys.is_none() {
            self.keys = Some(Keys::new(KEY));
        }
        if publish.key.is_none() && (spool || self.options.key.is_some()) {
            publish.key = self.keys.as_ref().map(|keys| keys.next().into());
        }
        let after_loss = match publish.key {
            _ if spool => AfterLoss::Spool,
            Some(_) => AfterLoss::Repeat,
            None => AfterLoss::Drop,
        };
        self.outbox
            .push(after_loss, |out| write_publish(&publish, out));
    }

    fn send_as(&mut self, acknowledge: Acknowledge) -> Result<Outcome, Error> {
        match acknowledge {
            Acknowledge::Buffered if self.outbox.unsent().len() < BUFFER => Ok(Outcome::OnItsWay),
            Acknowledge::Buffered | Acknowledge::Later => {
                let deadline = self.deadline();
                self.send(deadline)?;
                if self.outbox.due() >= DUE || self.outbox.due_bytes() >= DUE_BYTES {
                    self.take_replies();
                }
                Ok(Outcome::OnItsWay)
            }
            Acknowledge::Each => self.publish_now().map(Outcome::Published),
        }
    }

    /// Ends a call. If the daemon cannot be reached, messages go to the spool if the options allow this. Other failed messages
    /// are removed from the queue.
    fn spool_or_fail(&mut self, result: Result<Outcome, Error>) -> Result<Outcome, Error> {
        let Err(error) = result else { return result };
        let doubtful = std::mem::take(&mut self.doubtful);
        if self.outbox.due() > 0 {
            self.connection = None; // otherwise late replies could count for later messages
        }
        if !self.outbox.spools() || !error.is_away() {
            self.outbox.take();
            return Err(error);
        }
        self.backlog.pause(&error);
        let told = self.outbox.last() == AfterLoss::Spool;
        let lines = self.outbox.take();
        let (spooled, others): (Vec<_>, Vec<_>) = lines
            .into_iter()
            .partition(|(after_loss, _)| *after_loss == AfterLoss::Spool);
        for (done, (_, line)) in spooled.iter().enumerate() {
            if let Err(cause) = self.backlog.put(&self.options, line) {
                self.unreported_spooled += done;
                let (away, lost) = (Box::new(error), spooled.len() - done);
                return Err(Error::Spool { away, cause, lost });
            }
        }
        self.unreported_spooled += spooled.len() - usize::from(told);
        if !told {
            return Err(error);
        }
        if doubtful + others.len() > 0 {
            self.unreported.get_or_insert(error);
        }
        Ok(Outcome::Spooled)
    }

    fn deadline(&mut self) -> Deadline {
        let spent = std::mem::take(&mut self.spent);
        let time = self.options.time_for_daemon(self.outbox.spools());
        Deadline::after(time.saturating_sub(spent))
    }

    /// Drops the connection in the child of a `fork`, because both processes would write to and read from the same socket.
    fn notice_fork(&mut self) {
        if self.process != process::id() {
            *self = Self::new(self.options.clone());
        }
    }

    /// Publishes the queued messages, and returns the id of the last one.
    fn publish_now(&mut self) -> Result<u64, Error> {
        let id = reply::published_id(&self.ask()?);
        self.disconnect_after(id.is_err());
        id
    }

    /// Ends the connection after a refusal. After some refusals, such as that of a line over its limit, the daemon does not
    /// read the next lines.
    fn disconnect_after(&mut self, refusal: bool) {
        if refusal && self.outbox.due() == 0 {
            self.connection = None;
        }
    }

    /// Sends the queued lines, and returns the reply to the last one.
    fn ask(&mut self) -> Result<Vec<u8>, Error> {
        let deadline = self.deadline();
        let repeatable = self.outbox.last() > AfterLoss::Drop;
        let reply = self.send(deadline).and_then(|()| self.receive(deadline));
        match reply {
            // Messages with a key count as unsent again.
            Err(Error::Unknown { .. }) if repeatable => {
                self.note_doubtful();
                self.send(deadline)?;
                self.receive(deadline)
            }
            reply => reply,
        }
    }

    fn send(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.publish_spooled(deadline)?;
        if self.outbox.unsent().is_empty() {
            return Ok(());
        }
        if let Some(connection) = &mut self.connection {
            match connection.send(self.outbox.unsent(), deadline) {
                // The daemon has closed the connection since the last call. It got none of these lines, so they can be sent again.
                Err((0, Failure::Closed)) => {
                    self.take_replies();
                    self.drop_connection(Failure::Closed);
                    self.note_doubtful();
                }
                result => return self.sent(result),
            }
        }
        let connection = connect(&mut self.connection, &self.options, deadline)?;
        let result = connection.send(self.outbox.unsent(), deadline);
        self.sent(result)
    }

    /// Records the result of sending.
    fn sent(&mut self, result: Result<(), (usize, Failure)>) -> Result<(), Error> {
        match result {
            // If the daemon closed the connection, its last line, such as an error about a too long line, can still be read.
            Ok(()) | Err((_, Failure::Closed)) => {
                self.outbox.mark_sent();
                Ok(())
            }
            Err((sent, failure)) => {
                if sent > 0 {
                    self.outbox.mark_sent();
                }
                Err(self.drop_connection(failure))
            }
        }
    }

    /// Publishes the messages that this client has stored in the spool, so that later messages do not overtake them.
    fn publish_spooled(&mut self, deadline: Deadline) -> Result<(), Error> {
        if !self.backlog.is_waiting() {
            return Ok(());
        }
        if self.backlog.is_paused() {
            return Err(timed_out(&self.options, 0));
        }
        let connection = connect(&mut self.connection, &self.options, deadline)?;
        let published = self.backlog.publish(connection, deadline);
        published.map_err(|failure| self.drop_connection(failure))
    }

    /// Waits for all outstanding replies, and returns the last.
    fn receive(&mut self, deadline: Deadline) -> Result<Vec<u8>, Error> {
        while let Some(connection) = &mut self.connection {
            match connection.line(deadline) {
                Ok(line) => {
                    let line = line.to_vec();
                    if let Some(refusal) = reply::connection_refusal(&line) {
                        self.drop_connection(Failure::Closed);
                        return Err(refusal);
                    }
                    self.outbox.replied();
                    if self.outbox.due() == 0 {
                        return Ok(line);
                    }
                    self.note(&line);
                }
                Err(failure) => return Err(self.drop_connection(failure)),
            }
        }
        Err(Error::Unknown { pending: 0 })
    }

    /// Reads the replies that have already arrived, without waiting.
    fn take_replies(&mut self) {
        while self.outbox.due() > 0
            && let Some(connection) = &mut self.connection
            && let Ok(Some(line)) = connection.line_at_hand()
        {
            let line = line.to_vec();
            if let Some(refusal) = reply::connection_refusal(&line) {
                self.drop_connection(Failure::Closed);
                self.unreported.get_or_insert(refusal);
                return;
            }
            self.outbox.replied();
            self.note(&line);
        }
    }

    /// Stores the first error reply to a message that no call waited for.
    fn note(&mut self, reply: &[u8]) {
        let id = reply::published_id(reply);
        self.disconnect_after(id.is_err());
        if let Err(error) = id {
            self.unreported.get_or_insert(error);
        }
    }

    /// Records the messages that were lost with the last connection, for `flush`.
    fn note_doubtful(&mut self) {
        let pending = std::mem::take(&mut self.doubtful);
        if pending > 0 {
            self.unreported.get_or_insert(Error::Unknown { pending });
        }
    }

    /// Drops the connection, because a late reply must never count for a later message.
    fn drop_connection(&mut self, failure: Failure) -> Error {
        self.connection = None;
        let lost = self.outbox.connection_lost();
        self.doubtful += lost.doubtful;
        let pending = lost.pending;
        match failure {
            Failure::Timeout => timed_out(&self.options, pending),
            Failure::Closed => Error::Unknown { pending },
            Failure::TooLong => Error::TooLong(MAX_LINE),
        }
    }
}

/// The error of a call that took too long. `pending`: messages that were sent and not acknowledged.
fn timed_out(options: &Options, pending: usize) -> Error {
    Error::Timeout {
        after: options.timeout,
        pending,
    }
}

fn connect<'a>(
    connection: &'a mut Option<Connection>,
    options: &Options,
    deadline: Deadline,
) -> Result<&'a mut Connection, Error> {
    if connection.is_none() {
        let path = socket_path(options.socket.as_deref())?;
        let opened = Connection::open(&path, deadline).map_err(|source| match source {
            Errno::EAGAIN => timed_out(options, 0),
            source => Error::Connect { path, source },
        })?;
        *connection = Some(opened);
    }
    Ok(connection.as_mut().expect("it was opened"))
}

impl Drop for Client {
    fn drop(&mut self) {
        // After a panic the queue may end with half a line. Sent lines need no second attempt, unless lines that the daemon
        // did not acknowledge belong into the spool.
        let left = !self.outbox.unsent().is_empty() || self.outbox.spools();
        if !std::thread::panicking() && left && self.process == process::id() {
            // The error cannot be reported any more.
            let _ = self.flush();
        }
    }
}

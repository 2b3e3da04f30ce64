//! What a protocol on a connection provides: it gets bytes, news and time, and says what to do next.

use std::{io, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;

use super::{CHUNK, Conn, memory};
use crate::{hub::subscriber::Feed, worker::Due};

/// The protocol that is spoken on a connection. Each method returns the next [`Step`] at once: nothing here waits.
pub(crate) trait Protocol {
    /// Goes on: the client has sent bytes or has closed its sending side, or an earlier step asked to go on.
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step;

    /// A channel to which the connection listens has new messages.
    fn news(&mut self, conn: &Rc<Conn>, feed: &mut Feed<'_>) -> Step;

    /// The time has passed for which the last step asked.
    fn time(&mut self, conn: &Rc<Conn>) -> Step;

    /// The daemon stops: the last bytes for the client.
    fn farewell(&mut self, conn: &Rc<Conn>) -> Step;

    /// The settings or the system clock have changed. Returns the moment of the next [`Protocol::time`] if it may have
    /// changed with them.
    fn changed(&mut self, _conn: &Conn) -> Option<Due> {
        None
    }
}

/// What a connection does next.
pub(crate) enum Step {
    /// Waits for input, news, or this moment.
    Wait(Due),
    /// Writes the bytes. Bytes that the client does not take at once wait in the connection.
    Write(Bytes, Then),
    /// Runs a future, which may use the connection's socket. This is the only place where a task begins. Meanwhile the
    /// protocol is not called.
    Task(Pin<Box<dyn Future<Output = Step>>>),
    /// Speaks another protocol from here on, which goes on with [`Protocol::input`].
    Become(Box<dyn Protocol>),
    /// Closes the connection so that the client can read what was written, even if it is still sending.
    End,
    /// Closes the connection at once.
    Close,
}

/// What follows after the bytes of [`Step::Write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Waits, like [`Step::Wait`]. If the bytes did not fit into the socket, this is the same as `Again`.
    Wait(Due),
    /// Calls [`Protocol::input`]: there may be more input, or more to write.
    Again,
    /// Like [`Step::End`].
    End,
}

/// How many steps in a row a connection may go on without waiting, before others get their turn.
pub(super) const MOST_STEPS: usize = 16;

/// The next bytes of the client. They are read when the protocol asks for them, so a protocol can leave them in the
/// socket.
pub(crate) struct Input<'a> {
    conn: &'a Conn,
    /// Bytes that were left from an earlier call.
    before: Bytes,
    chunk: &'a mut [u8; CHUNK],
    /// The part of `chunk` that was read and not used yet.
    start: usize,
    end: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(conn: &'a Conn, before: Bytes, chunk: &'a mut [u8; CHUNK]) -> Self {
        let (start, end) = (0, 0);
        Self {
            conn,
            before,
            chunk,
            start,
            end,
        }
    }

    /// The bytes that were read and not used yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self.before.is_empty() {
            true => &self.chunk[self.start..self.end],
            false => &self.before,
        }
    }

    /// Reads from the socket, if all bytes are used. `Ok(0)`: the client sends nothing more.
    ///
    /// # Errors
    /// `WouldBlock`: nothing has arrived. Other errors: the connection is broken.
    pub(crate) fn read(&mut self) -> io::Result<usize> {
        if !self.bytes().is_empty() {
            return Ok(self.bytes().len());
        }
        (self.start, self.end) = (0, 0);
        if !self.conn.has_unread() {
            return Err(io::ErrorKind::WouldBlock.into()); // saves a system call
        }
        self.end = self.conn.try_read(self.chunk)?;
        Ok(self.end)
    }

    /// Sets the next bytes. All earlier ones must be used.
    pub(super) fn put(&mut self, bytes: Bytes) {
        self.before = bytes;
    }

    /// Uses up the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        match self.before.is_empty() {
            true => self.start += count,
            false => self.before = self.before.slice(count..),
        }
    }

    /// Uses up all bytes, and returns them.
    pub(crate) fn take(&mut self) -> Bytes {
        if !self.before.is_empty() {
            return std::mem::take(&mut self.before);
        }
        let taken = self.chunk[self.start..self.end].to_vec();
        (self.start, self.end) = (0, 0);
        memory::keep(taken)
    }
}

/// The moment in `time` from now at which [`Protocol::time`] is called.
pub(crate) fn due_in(conn: &Conn, time: Duration) -> Due {
    conn.worker().timers.after(time)
}

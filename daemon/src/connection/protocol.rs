//! The interface between a connection and the protocol that is spoken on it.

use std::{io, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;

use super::{CHUNK, Conn, memory};
use crate::{hub::subscriber::Feed, worker::Due};

/// The protocol that is spoken on a connection. Each method returns the next [`Step`] without waiting.
pub(crate) trait Protocol {
    /// Handles input. Called when the client has sent bytes, when the client has closed its sending side, or when the
    /// last step asks for this call ([`Then::Again`], [`Step::Become`]).
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step;

    /// Handles new messages of a channel to which this connection has subscribed.
    fn news(&mut self, conn: &Rc<Conn>, feed: &mut Feed<'_>) -> Step;

    /// Handles the time-out: the moment that the last step asked for has come.
    fn time(&mut self, conn: &Rc<Conn>) -> Step;

    /// Called when the daemon stops. The step should write the last bytes for the client and end the connection.
    fn farewell(&mut self, conn: &Rc<Conn>) -> Step;

    /// Called when the settings or the system clock have changed. Returns the new moment for [`Protocol::time`], if that
    /// moment depends on them.
    fn changed(&mut self, _conn: &Conn) -> Option<Due> {
        None
    }
}

/// What a connection does next.
pub(crate) enum Step {
    /// Waits for input, for new messages, or until this moment.
    Wait(Due),
    /// Writes the bytes. Bytes that do not fit into the socket are stored in the connection and written later.
    Write(Bytes, Then),
    /// Runs a future, in a task if the future has to wait. The future may use the connection's socket. The protocol is
    /// not called before the future has returned its step.
    Task(Pin<Box<dyn Future<Output = Step>>>),
    /// Replaces the protocol by another one, and calls the new protocol's [`Protocol::input`].
    Become(Box<dyn Protocol>),
    /// Closes the connection so that the client can read what was written, even if it is still sending.
    End,
    /// Closes the connection at once.
    Close,
}

/// What follows after the bytes of [`Step::Write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Waits, like [`Step::Wait`]. If the bytes do not fit into the socket, this is the same as `Again`.
    Wait(Due),
    /// Calls [`Protocol::input`], because there may be more input, or more bytes to write.
    Again,
    /// Like [`Step::End`].
    End,
}

/// Number of steps that a connection may do in a row before other connections are served.
pub(super) const MOST_STEPS: usize = 16;

/// The next bytes from the client. The socket is read only when the protocol calls [`Input::read`], so that a protocol
/// can leave bytes in the socket.
pub(crate) struct Input<'a> {
    conn: &'a Conn,
    /// Bytes that were read earlier and not used yet. They come before the bytes in `chunk`.
    before: Bytes,
    chunk: &'a mut [u8; CHUNK],
    /// `chunk[start..end]` was read and not used yet.
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

    /// Returns the number of unused bytes. If there are none, reads from the socket first. `Ok(0)`: the client has
    /// closed its sending side.
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

    /// Sets the next bytes. All earlier bytes must have been used.
    pub(super) fn put(&mut self, bytes: Bytes) {
        self.before = bytes;
    }

    /// Removes the first `count` bytes, which were used.
    pub(crate) fn consume(&mut self, count: usize) {
        match self.before.is_empty() {
            true => self.start += count,
            false => self.before = self.before.slice(count..),
        }
    }

    /// Removes all unused bytes and returns them.
    pub(crate) fn take(&mut self) -> Bytes {
        if !self.before.is_empty() {
            return std::mem::take(&mut self.before);
        }
        let taken = self.chunk[self.start..self.end].to_vec();
        (self.start, self.end) = (0, 0);
        memory::keep(taken)
    }
}

/// The moment after this time from now, for [`Step::Wait`].
pub(crate) fn due_in(conn: &Conn, time: Duration) -> Due {
    conn.worker().timers.after(time)
}

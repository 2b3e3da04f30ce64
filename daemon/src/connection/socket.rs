//! The socket of a connection. epoll watches the socket edge-triggered: each change is reported once. So the connection
//! remembers reports that were not used yet (`unread`, `ended`).

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::task::coop;

use super::Conn;
use crate::worker::Due;

/// The result of a write.
pub(super) enum WriteResult {
    All,
    /// The rest did not fit into the socket.
    Part(Bytes),
    Failed,
}

impl Conn {
    /// Reads what has arrived, and remembers whether there may be more.
    ///
    /// # Errors
    /// `WouldBlock`: nothing has arrived. Other errors: the connection is broken.
    pub(crate) fn try_read(&self, chunk: &mut [u8]) -> io::Result<usize> {
        let read = uninterrupted(|| (&self.stream).read(chunk));
        // epoll reports whatever arrives after this read.
        self.unread.set(matches!(read, Ok(n) if n == chunk.len()));
        read
    }

    /// Looks at the next bytes or the end without removing them from the socket, and remembers whether there are bytes.
    ///
    /// # Errors
    /// As [`Conn::try_read`].
    pub(crate) fn peek(&self, chunk: &mut [u8]) -> io::Result<usize> {
        let read = uninterrupted(|| self.stream.peek(chunk));
        self.unread.set(matches!(read, Ok(1..)));
        read
    }

    /// The address of the client, or of a proxy in between.
    pub(crate) fn peer_ip(&self) -> Option<IpAddr> {
        let peer = self.stream.peer_addr().ok()?;
        Some(peer.ip().to_canonical())
    }

    /// Whether the client has closed its sending side.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| (&self.stream).write(bytes))
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Writes as many bytes as the socket takes.
    pub(super) fn write_now(&self, mut bytes: Bytes) -> WriteResult {
        let mut written = 0;
        while written < bytes.len() {
            match self.try_write(&bytes[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return WriteResult::Part(bytes.split_off(written));
                }
                Err(_) => return WriteResult::Failed,
            }
        }
        WriteResult::All
    }

    /// For a task: reads what arrives next.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, || self.try_read(chunk))
    }

    /// For a task: writes some of the bytes. The connection is cut if the client reads nothing for too long.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.poll_io(cx, || self.try_write(bytes));
        if written.is_ready() {
            self.set_due(Due::NEVER);
            return written;
        }
        self.watch_writes()?;
        if self.due() == Due::NEVER {
            let write_time = self.worker.context.write_time.get();
            self.set_due(self.worker.timers.after(write_time));
        }
        Poll::Pending
    }

    /// Makes epoll also report when the socket can be written again.
    pub(super) fn watch_writes(&self) -> io::Result<()> {
        if self.watches_writes.replace(true) {
            return Ok(());
        }
        let place = self.place.get().ok_or(ErrorKind::NotConnected)?;
        self.worker.watch_writes(&self.stream, place)
    }

    /// Tries the operation. If the socket is not ready, an event of the socket wakes the task later. The budget keeps a
    /// peer that never stops from occupying the thread.
    fn poll_io(
        &self,
        cx: &mut Context<'_>,
        io: impl FnOnce() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        self.keep_waker(cx);
        let budget = &self.worker.context.budget;
        match budget.get() {
            // The work goes on in a task, which runs at once and needs no wake-up.
            Some(0) => return Poll::Pending,
            left => budget.set(left.map(|left| left - 1)),
        }
        let progress = ready!(coop::poll_proceed(cx));
        match io() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
            done => {
                progress.made_progress();
                Poll::Ready(done)
            }
        }
    }
}

fn uninterrupted<T>(mut io: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match io() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

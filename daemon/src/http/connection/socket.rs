//! The socket of a connection. The socket is watched edge-triggered: epoll reports each change once. What was reported
//! and not used yet is remembered in the connection (`unread`, `ended`).

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::task::coop;

use super::{Conn, State};
use crate::worker::Due;

impl Conn {
    /// Reads what has arrived, and remembers whether there may be more.
    pub(in crate::http) fn try_read(&self, chunk: &mut [u8]) -> io::Result<usize> {
        let read = uninterrupted(|| (&self.stream).read(chunk));
        // epoll reports whatever arrives after this read.
        self.unread.set(matches!(read, Ok(n) if n == chunk.len()));
        read
    }

    /// Looks at the next bytes or the end without removing them from the socket.
    pub(in crate::http) fn peek(&self, chunk: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.stream.peek(chunk))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| (&self.stream).write(bytes))
    }

    pub(in crate::http) fn shutdown(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    pub(in crate::http) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, || self.try_read(chunk))
    }

    pub(in crate::http) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_io(cx, || self.try_write(bytes));
        if written.is_pending() && !self.watches_writes.replace(true) {
            self.watch_writes()?;
        }
        written
    }

    fn watch_writes(&self) -> io::Result<()> {
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
        self.keep_waker(cx);
        match self.worker.context.credit.get() {
            // The work goes on in a task, which runs at once and needs no wake-up.
            Some(0) => return Poll::Pending,
            credit => self
                .worker
                .context
                .credit
                .set(credit.map(|credit| credit - 1)),
        }
        let turn = ready!(coop::poll_proceed(cx));
        match io() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
            done => {
                turn.made_progress();
                Poll::Ready(done)
            }
        }
    }

    /// Like [`Conn::poll_write`], for hyper. `expire` closes the connection if the client reads nothing for too long.
    pub(in crate::http) fn poll_write_busy(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.state.get() == State::Closing {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        let written = self.poll_write(cx, bytes);
        if written.is_ready() {
            self.set_busy();
        } else if self.due() == Due::NEVER {
            self.set(State::Busy, self.worker.context.site().config.write_time);
        }
        written
    }

    /// Writes as many bytes as the socket takes. False: not everything was written; a task writes the rest, or the
    /// connection is closed.
    pub(in crate::http) fn write_now(&self, bytes: impl AsRef<[u8]> + Into<Bytes>) -> bool {
        let mut written = 0;
        while written < bytes.as_ref().len() {
            match self.try_write(&bytes.as_ref()[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.write_soon(bytes.into().split_off(written));
                    return false;
                }
                Err(_) => {
                    self.close();
                    return false;
                }
            }
        }
        true
    }

    fn keep_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
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

//! A connection as hyper sees it while it serves one request.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::{connection::Conn, service::Phase};

/// Reads what was read before it, then the socket; tells the phase, of HTTP/1, what hyper has written.
pub(super) struct ParkIo {
    pub(super) conn: Rc<Conn>,
    pub(super) before: Bytes,
    pub(super) phase: Option<Rc<Phase>>,
}

impl Read for ParkIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let n = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before[..n]);
            self.before.advance(n);
            return Poll::Ready(Ok(()));
        }
        // hyper's buffer is not initialised, and filling it without a copy needs unsafe code. Requests are small.
        let mut chunk = [0; 4096];
        let room = buf.remaining().min(chunk.len());
        let read = std::task::ready!(self.conn.poll_read(cx, &mut chunk[..room]))?;
        buf.put_slice(&chunk[..read]);
        Poll::Ready(Ok(()))
    }
}

impl Write for ParkIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(phase) = &self.phase {
            if phase.is_silent() {
                phase.refuse(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            phase.clean.set(false);
        }
        self.conn.poll_write_busy(cx, bytes)
    }

    /// hyper flushes only when its own buffer is empty, and a socket has none.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(phase) = &self.phase {
            phase.clean.set(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.conn.shutdown())
    }
}

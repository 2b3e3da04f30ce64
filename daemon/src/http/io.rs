//! The connection as hyper sees it while hyper serves a request.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::{
    h1::{framing::Framing, hyper::HyperProgress},
    h2::streams::Activity,
};
use crate::connection::Conn;

/// Size in bytes of one read from the socket.
const CHUNK: usize = 4096;

/// Reads the bytes that were read before, then the socket. With HTTP/1 hyper gets one request and nothing after it, and
/// the progress learns what hyper has written.
pub(super) struct ParkIo {
    pub(super) conn: Rc<Conn>,
    pub(super) before: Bytes,
    pub(super) framing: Option<Framing>,
    pub(super) progress: Option<Rc<HyperProgress>>,
    /// Only with HTTP/2.
    pub(super) activity: Option<Rc<Activity>>,
}

impl ParkIo {
    /// How many of these bytes, the next ones of the connection, are for hyper.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(framing) = &mut self.framing else {
            return Ok(bytes.len());
        };
        let taken = framing.take(bytes);
        taken.map_err(|malformed| io::Error::new(ErrorKind::InvalidData, malformed))
    }
}

impl Read for ParkIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let room = match &me.framing {
            // The progress ends before hyper needs more bytes.
            Some(framing) if framing.is_over() => return Poll::Pending,
            Some(framing) => framing.room(CHUNK),
            None => CHUNK,
        };
        if !me.before.is_empty() {
            let before = me.before.slice(..me.before.len().min(buf.remaining()));
            let taken = me.take(&before)?;
            buf.put_slice(&before[..taken]);
            me.before.advance(taken);
            return Poll::Ready(Ok(()));
        }
        // Filling hyper's uninitialised buffer without a copy would need unsafe code. Requests are small, so the copy
        // is cheap.
        let mut chunk = [0; CHUNK];
        let room = room.min(buf.remaining());
        let read = std::task::ready!(me.conn.poll_read(cx, &mut chunk[..room]))?;
        if let Some(activity) = &me.activity {
            activity.note_bytes(read)?;
        }
        let taken = me.take(&chunk[..read])?;
        buf.put_slice(&chunk[..taken]);
        me.before = Bytes::copy_from_slice(&chunk[taken..read]);
        Poll::Ready(Ok(()))
    }
}

impl Write for ParkIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(progress) = &self.progress {
            if progress.is_silent() {
                progress.refuse(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            progress.clean.set(false);
        }
        self.conn.poll_write(cx, bytes)
    }

    /// Notes that hyper has written everything. hyper flushes only when its own buffer is empty, and a socket has no
    /// buffer to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(progress) = &self.progress {
            progress.clean.set(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.conn.shutdown())
    }
}

//! A connection as hyper sees it while it serves one request.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::{connection::Conn, framing::Framing, h2::streams::Activity, service::Phase};

/// What is read from the socket at once.
const CHUNK: usize = 4096;

/// Reads what was read before it, then the socket: of HTTP/1 one request, and nothing behind it. Tells the phase, of
/// HTTP/1, what hyper has written.
pub(super) struct ParkIo {
    pub(super) conn: Rc<Conn>,
    pub(super) before: Bytes,
    pub(super) framing: Option<Framing>,
    pub(super) phase: Option<Rc<Phase>>,
    /// Of HTTP/2.
    pub(super) activity: Option<Rc<Activity>>,
}

impl ParkIo {
    /// How many of these bytes, which come next, are for hyper.
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
            // The phase ends before hyper misses more.
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
        // hyper's buffer is not initialised, and filling it without a copy needs unsafe code. Requests are small.
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

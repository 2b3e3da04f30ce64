//! Reads the bytes of a connection and splits them into lines.

use std::io::{self, BufRead, ErrorKind};

use interprocess::os::unix::uds_local_socket::tokio::Stream;

/// Size in bytes of one read, and about the size of one write.
pub(super) const CHUNK: usize = 64 * 1024;

/// The buffer that a connection keeps when no long line is half read, in bytes: two reads, and the growth by doubling.
const SMALL: usize = 4 * CHUNK;

/// The bytes that were read and not answered yet.
#[derive(Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// The bytes before this index are answered.
    start: usize,
    /// There is no line end between `start` and this index.
    searched: usize,
}

/// A line is longer than the limit.
pub(super) struct TooLong;

impl LineBuffer {
    /// Reads the bytes that have arrived, or waits for some. 0: the peer sends no more.
    pub(super) async fn read(&mut self, stream: &Stream) -> io::Result<usize> {
        loop {
            match self.try_read(stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.bytes.is_empty() {
                self.bytes = Vec::new(); // a silent connection holds no buffer
            }
            stream.inner().readable().await?;
        }
    }

    /// Reads the bytes that have arrived. 0: the peer sends no more.
    pub(super) fn try_read(&mut self, stream: &Stream) -> io::Result<usize> {
        self.forget_answered();
        self.bytes.reserve(CHUNK);
        match stream.inner().try_read_buf(&mut self.bytes) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            done => done,
        }
    }

    /// Number of bytes that were read and not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether more bytes are half read than each connection may have without asking.
    pub(super) fn is_long(&self) -> bool {
        self.unanswered() >= CHUNK
    }

    /// Frees the memory of long lines that are answered.
    pub(super) fn free_room(&mut self) {
        if self.bytes.capacity() > SMALL {
            self.forget_answered();
            self.bytes.shrink_to(CHUNK);
        }
    }

    fn forget_answered(&mut self) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
    }

    /// Returns the next complete line without its line end. With its line end it has at most `max` bytes.
    pub(super) fn next_line(&mut self, max: usize) -> Result<Option<&[u8]>, TooLong> {
        let mut unsearched = &self.bytes[self.searched..];
        // `skip_until` is the fastest search for a byte in the standard library. Reading from a slice gives no errors.
        self.searched += unsearched.skip_until(b'\n').unwrap_or_default();
        let line = &self.bytes[self.start..self.searched];
        match line.split_last() {
            _ if line.len() > max => Err(TooLong),
            Some((b'\n', line)) => {
                self.start = self.searched;
                Ok(Some(line))
            }
            // The line end would not fit into the limit.
            _ if line.len() == max => Err(TooLong),
            _ => Ok(None),
        }
    }

    /// Takes the remaining bytes: a last line without a line end.
    pub(super) fn rest(&mut self) -> &[u8] {
        let rest = &self.bytes[self.start..];
        self.start = self.bytes.len();
        self.searched = self.start;
        rest
    }
}

/// Splits a stream that is read in these pieces. Returns its lines and the rest. The rest is `None` after a line that
/// is too long.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn lines<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    max: usize,
) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let (mut input, mut lines) = (LineBuffer::default(), Vec::new());
    for piece in pieces {
        input.forget_answered();
        input.bytes.extend_from_slice(piece);
        loop {
            match input.next_line(max) {
                Ok(Some(line)) => lines.push(line.to_vec()),
                Ok(None) => break,
                Err(TooLong) => return (lines, None),
            }
        }
    }
    (lines, Some(input.rest().to_vec()))
}

//! The lines of a connection, cut from what was read.

use std::io::{self, BufRead, ErrorKind};

use interprocess::os::unix::uds_local_socket::tokio::Stream;

/// Bytes that one read asks for, and about the bytes that one write hands over.
pub(super) const CHUNK: usize = 64 * 1024;

/// What a connection keeps of its buffer while nothing long is half read: two reads, and what doubling adds.
const SMALL: usize = 4 * CHUNK;

/// What was read and not answered yet.
#[derive(Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Answered up to here.
    start: usize,
    /// No line end between `start` and here.
    searched: usize,
}

/// A line is over the limit.
pub(super) struct TooLong;

impl Input {
    /// Reads what is there, or waits until something is. 0: the peer sends no more.
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

    /// Reads what is there. 0: the peer sends no more.
    pub(super) fn try_read(&mut self, stream: &Stream) -> io::Result<usize> {
        self.forget_answered();
        self.bytes.reserve(CHUNK);
        match stream.inner().try_read_buf(&mut self.bytes) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            done => done,
        }
    }

    /// Bytes that were read and not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// More is half read than every connection may have.
    pub(super) fn is_long(&self) -> bool {
        self.unanswered() >= CHUNK
    }

    /// Frees the room of long lines that were answered.
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

    /// The next complete line of at most `max` bytes, both with its line end; returned without it.
    pub(super) fn next_line(&mut self, max: usize) -> Result<Option<&[u8]>, TooLong> {
        let mut unsearched = &self.bytes[self.searched..];
        // The standard library's fastest search for a byte; a slice gives no errors.
        self.searched += unsearched.skip_until(b'\n').unwrap_or_default();
        let line = &self.bytes[self.start..self.searched];
        match line.split_last() {
            _ if line.len() > max => Err(TooLong),
            Some((b'\n', line)) => {
                self.start = self.searched;
                Ok(Some(line))
            }
            // No room for its line end.
            _ if line.len() == max => Err(TooLong),
            _ => Ok(None),
        }
    }

    /// Takes what is left, a last line without its line end.
    pub(super) fn rest(&mut self) -> &[u8] {
        let rest = &self.bytes[self.start..];
        self.start = self.bytes.len();
        self.searched = self.start;
        rest
    }
}

/// The lines of a stream that is read in such pieces, and what is left; nothing is after a line that is too long.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn lines<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    max: usize,
) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let (mut input, mut lines) = (Input::default(), Vec::new());
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

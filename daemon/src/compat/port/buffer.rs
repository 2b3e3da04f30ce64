//! The bytes of a client that are not a complete command yet.

use crate::connection::memory::{Hold, SMALL};

/// Bytes that were read and not used yet. Large buffers count towards the memory of connections.
#[derive(Default)]
pub(crate) struct CommandBuffer {
    bytes: Vec<u8>,
    /// The number of bytes that will come and must be discarded: the data of a refused command.
    skip: usize,
    hold: Hold,
}

impl CommandBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the client is in the middle of a command.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.skip == 0
    }

    /// Whether the buffer is large enough to count.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes.capacity() > SMALL
    }

    /// Appends bytes that were read.
    pub(crate) fn push(&mut self, read: &[u8]) {
        let skipped = self.skip.min(read.len());
        self.skip -= skipped;
        self.bytes.extend_from_slice(&read[skipped..]);
        if self.is_large() {
            self.hold.grow_to(self.bytes.capacity());
        }
    }

    /// Removes the first `count` bytes. If there are fewer, the rest is discarded when it comes.
    pub(crate) fn consume(&mut self, count: usize) {
        match count.checked_sub(self.bytes.len()) {
            None => drop(self.bytes.drain(..count)),
            // A new buffer, so that an idle connection needs no memory for it.
            Some(rest) => {
                *self = Self {
                    skip: self.skip + rest,
                    ..Self::default()
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_the_rest_of_a_command_when_it_comes() {
        let mut buffer = CommandBuffer::default();
        buffer.push(b"abc");
        buffer.consume(1);
        assert_eq!(buffer.bytes(), b"bc");
        buffer.consume(5);
        assert!(buffer.bytes().is_empty() && !buffer.is_empty());
        buffer.consume(0);
        buffer.push(b"12");
        buffer.push(b"3next");
        assert_eq!(buffer.bytes(), b"next");
        buffer.consume(4);
        assert!(buffer.is_empty());
    }
}

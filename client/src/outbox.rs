//! Lines for the daemon: collected, then sent, then acknowledged. A line that may be sent again is kept until
//! its reply has come.

use std::collections::VecDeque;

/// What to do with a line when its connection is lost before the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AfterLoss {
    /// Drop it: without a key, a repetition could publish the message twice.
    Drop,
    /// Send it again: it has a key.
    Repeat,
    /// Send it again, or leave it in the spool: it has a key.
    Spool,
}

/// The lines that were lost with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Lines that were sent and got no reply.
    pub(crate) pending: usize,
    /// Lines of these that cannot be sent again.
    pub(crate) doubtful: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Bytes before `start` are acknowledged, bytes before `sent` are sent.
    start: usize,
    sent: usize,
    /// The length of each line from `start` on, and what to do with it after a lost connection. The first `due` were sent.
    lines: VecDeque<(usize, AfterLoss)>,
    due: usize,
    /// Whether any line may go to the spool.
    spools: bool,
}

/// The buffer's capacity, in bytes, that is kept after an unusually large message.
const KEEP: usize = 128 << 10;

impl Outbox {
    /// Appends the line that `write` writes.
    pub(crate) fn push(&mut self, after_loss: AfterLoss, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.lines
            .push_back((self.bytes.len() - before, after_loss));
        self.spools |= after_loss == AfterLoss::Spool;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Lines that were sent and have no reply.
    pub(crate) fn due(&self) -> usize {
        self.due
    }

    /// The bytes of these lines.
    pub(crate) fn due_bytes(&self) -> usize {
        self.sent - self.start
    }

    pub(crate) fn spools(&self) -> bool {
        self.spools
    }

    /// Sets what to do with the last line if its connection is lost.
    pub(crate) fn last(&self) -> AfterLoss {
        self.lines
            .back()
            .map_or(AfterLoss::Drop, |(_, after_loss)| *after_loss)
    }

    /// Records that all lines were sent, at least in part.
    pub(crate) fn mark_sent(&mut self) {
        self.sent = self.bytes.len();
        self.due = self.lines.len();
    }

    /// Removes the first line, whose reply has come.
    pub(crate) fn replied(&mut self) {
        if let Some((length, _)) = self.lines.pop_front() {
            self.start += length;
            self.due -= 1;
        }
        if self.lines.is_empty() {
            self.clear();
        } else if self.start > KEEP {
            self.bytes.drain(..self.start);
            self.sent -= self.start;
            self.start = 0;
        }
    }

    /// Handles a lost connection: lines with a key will be sent again, others are removed.
    pub(crate) fn connection_lost(&mut self) -> Lost {
        let pending = std::mem::take(&mut self.due);
        let all = std::mem::take(&mut self.lines);
        let (mut from, mut to, mut doubtful) = (self.start, 0, 0);
        for (number, (length, after_loss)) in all.into_iter().enumerate() {
            if number < pending && after_loss == AfterLoss::Drop {
                doubtful += 1;
            } else {
                self.bytes.copy_within(from..from + length, to);
                self.lines.push_back((length, after_loss));
                to += length;
            }
            from += length;
        }
        self.bytes.truncate(to);
        (self.start, self.sent) = (0, 0);
        Lost { pending, doubtful }
    }

    /// Takes all lines, in order.
    pub(crate) fn take(&mut self) -> Vec<(AfterLoss, Vec<u8>)> {
        let mut from = self.start;
        let lines = self.lines.drain(..).map(|(length, after_loss)| {
            from += length;
            (after_loss, self.bytes[from - length..from].to_vec())
        });
        let lines = lines.collect();
        self.clear();
        lines
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
        self.lines.clear();
        (self.start, self.sent, self.due, self.spools) = (0, 0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::{AfterLoss::*, *};

    fn push(outbox: &mut Outbox, after_loss: AfterLoss, line: &str) {
        outbox.push(after_loss, |out| out.extend_from_slice(line.as_bytes()));
    }

    #[test]
    fn after_a_lost_connection_lines_with_a_key_are_sent_again_in_order() {
        let mut outbox = Outbox::default();
        for (after_loss, line) in [(Repeat, "a\n"), (Drop, "bb\n"), (Spool, "c\n")] {
            push(&mut outbox, after_loss, line);
        }
        assert_eq!(outbox.unsent(), b"a\nbb\nc\n");
        outbox.mark_sent();
        outbox.replied();
        push(&mut outbox, Drop, "d\n");
        assert_eq!((outbox.unsent(), outbox.due()), (&b"d\n"[..], 2));
        let lost = Lost {
            pending: 2,
            doubtful: 1,
        };
        assert_eq!(outbox.connection_lost(), lost);
        assert_eq!((outbox.unsent(), outbox.due()), (&b"c\nd\n"[..], 0));
        let left = [(Spool, b"c\n".to_vec()), (Drop, b"d\n".to_vec())];
        assert_eq!(outbox.take(), left);
        assert!(outbox.is_empty() && !outbox.spools() && outbox.unsent().is_empty());
    }

    #[test]
    fn acknowledged_lines_take_no_memory() {
        let mut outbox = Outbox::default();
        for _ in 0..4096 {
            push(&mut outbox, Repeat, &("x".repeat(1023) + "\n"));
            outbox.mark_sent();
            if outbox.due() > 64 {
                outbox.replied();
            }
        }
        assert!(outbox.bytes.len() < 4 * KEEP && outbox.due_bytes() == 64 << 10);
        for _ in 0..64 {
            outbox.replied();
        }
        assert!(outbox.is_empty() && outbox.bytes.capacity() <= KEEP);
    }
}

//! The message format for streams: `RUN:SEQ:SENT:....`, a hundred bytes without any character that JSON has to escape.

use std::{fmt, sync::OnceLock, time::Instant};

pub(crate) const LENGTH: usize = 100;

const PADDING: &[u8; LENGTH] = &[b'.'; LENGTH];

/// One message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamedMessage {
    pub(crate) run: u32,
    /// Number in the run, beginning at 0.
    pub(crate) seq: u32,
    /// Time of the publish, from `now`.
    pub(crate) sent: u64,
}

/// Nanoseconds since the first call. The publishing and the reading thread share this clock.
pub(crate) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl fmt::Display for StreamedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, seq, sent } = self;
        let text = format!("{run}:{seq}:{sent}:");
        write!(f, "{text:.<LENGTH$}")
    }
}

impl StreamedMessage {
    /// Parses a message. `None`: the data is not a message of the bench.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        if data.len() != LENGTH {
            return None;
        }
        let (run, rest) = number(data)?;
        let (seq, rest) = number(rest)?;
        let (sent, rest) = number(rest)?;
        let (run, seq) = (run.try_into().ok()?, seq.try_into().ok()?);
        (rest == &PADDING[..rest.len()]).then_some(Self { run, seq, sent })
    }
}

/// Reads digits up to a colon. Returns the number and the rest.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                value = value.checked_mul(10)?.checked_add(digit)?;
            }
            b':' if i > 0 => return Some((value, &bytes[i + 1..])),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for (run, seq, sent) in [(0, 0, 0), (7, 1999, 12_345), (u32::MAX, u32::MAX, u64::MAX)] {
            let message = StreamedMessage { run, seq, sent };
            let data = message.to_string();
            assert_eq!(data.len(), LENGTH);
            assert_eq!(StreamedMessage::read(data.as_bytes()), Some(message));
        }
    }

    #[test]
    fn a_changed_message_is_not_ours() {
        let (run, seq, sent) = (1, 2, 3);
        let data = StreamedMessage { run, seq, sent }.to_string().into_bytes();
        for i in 0..LENGTH {
            let mut changed = data.clone();
            changed[i] = b'x';
            assert_eq!(StreamedMessage::read(&changed), None, "at {i}");
        }
        assert_eq!(StreamedMessage::read(&data[..LENGTH - 1]), None);
        assert_eq!(StreamedMessage::read(&[&data[..], b"."].concat()), None);
        assert_eq!(StreamedMessage::read(b""), None);
    }
}

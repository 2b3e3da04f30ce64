//! The published text. It names its publisher and its number, and has a checksum over all of it. So it can be found
//! again in any format that a server uses around it.

use std::fmt::Write;

use crate::random::hash;

/// The beginning of a message. No character of it needs escaping in JSON, HTML or a line of an event stream.
const MARK: &str = "[dc ";

/// Identifies a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The run of the checker.
    pub run: u64,
    pub publisher: u16,
    /// Number of the message. Each publisher counts from 0.
    pub number: u32,
}

/// Why data is not a valid message of the checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The data has no beginning of a message.
    Foreign,
    /// The message is cut or changed.
    Changed,
}

impl Stamp {
    /// Returns the text of the message, with at least `length` bytes.
    #[must_use]
    pub fn text(self, length: usize) -> String {
        let Self {
            run,
            publisher,
            number,
        } = self;
        // The letters differ from message to message. So a mix of two messages has a wrong checksum.
        let letter = |i: usize| char::from(b'a' + ((number as usize + i) % 26) as u8);
        let head = format!("{run:x} {publisher} {number} ");
        let room = length.saturating_sub(MARK.len() + head.len() + 19);
        let filling: String = (0..room).map(letter).collect();
        let sum = hash(format!("{head}{filling}").as_bytes());
        let mut text = String::with_capacity(length + 40);
        let _ = write!(text, "{MARK}{head}{room} {sum:016x}]{filling}");
        text
    }

    /// Finds a message in the data that a server delivered.
    ///
    /// # Errors
    /// When there is no message, or only a part of one.
    pub fn read(data: &str) -> Result<Self, Damage> {
        let start = data.find(MARK).ok_or(Damage::Foreign)? + MARK.len();
        Self::parse(&data[start..]).ok_or(Damage::Changed)
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.split_once(']')?;
        let mut parts = head.split(' ');
        let stamp = Self {
            run: u64::from_str_radix(parts.next()?, 16).ok()?,
            publisher: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        let room: usize = parts.next()?.parse().ok()?;
        let sum = parts.next()?;
        let filling = rest.get(..room)?;
        let Self {
            run,
            publisher,
            number,
        } = stamp;
        let of = format!("{run:x} {publisher} {number} {filling}");
        (sum == format!("{:016x}", hash(of.as_bytes())) && parts.next().is_none()).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0xabc,
        publisher: 3,
        number: 17,
    };

    #[test]
    fn it_is_found_in_any_wrapping() {
        for length in [0, 100, 5000] {
            let text = STAMP.text(length);
            assert!(text.len() >= length);
            assert_eq!(Stamp::read(&text), Ok(STAMP));
            assert_eq!(Stamp::read(&format!("{{\"data\":\"{text}\"}}")), Ok(STAMP));
        }
        assert_eq!(Stamp::read("hello"), Err(Damage::Foreign));
    }

    #[test]
    fn each_change_is_seen() {
        let text = STAMP.text(100);
        for i in 0..text.len() {
            assert!(Stamp::read(&text[..i]).is_err(), "cut at {i}");
            let mut changed = text.clone().into_bytes();
            changed[i] = if changed[i] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Stamp::read(&changed).is_err(), "changed at {i}");
        }
    }
}

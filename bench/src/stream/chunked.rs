//! Decodes the chunked transfer coding (RFC 9112, section 7.1) in place. The input may be cut anywhere.

use anyhow::{Result, bail};

/// The position in the coding at which the last read ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Chunked {
    /// Before a chunk.
    #[default]
    Start,
    /// In the digits of a chunk's size.
    Size(usize),
    /// After the digits: in an extension or before the line's end.
    SizeEnd(usize),
    /// In a chunk with this many bytes left.
    Data(usize),
    /// In the line end after a chunk. True: its first byte has been read.
    DataEnd(bool),
    /// The last chunk has been read. Trailers are ignored.
    Over,
}

impl Chunked {
    /// Moves the content to the front of `bytes`. Returns the length of the content.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() && *self != Self::Over {
            if let Self::Data(left) = *self {
                let part = left.min(bytes.len() - from);
                bytes.copy_within(from..from + part, to);
                from += part;
                to += part;
                *self = match left - part {
                    0 => Self::DataEnd(false),
                    left => Self::Data(left),
                };
            } else {
                self.step(bytes[from])?;
                from += 1;
            }
        }
        Ok(to)
    }

    fn step(&mut self, byte: u8) -> Result<()> {
        let digit = char::from(byte).to_digit(16).map(|digit| digit as usize);
        *self = match (*self, byte, digit) {
            (Self::Start, _, Some(digit)) => Self::Size(digit),
            (Self::Size(size), _, Some(digit)) if size < 1 << 28 => Self::Size(size << 4 | digit),
            (Self::Size(size), b'\r' | b';' | b' ' | b'\t', _) => Self::SizeEnd(size),
            (Self::SizeEnd(0), b'\n', _) => Self::Over,
            (Self::SizeEnd(size), b'\n', _) => Self::Data(size),
            (Self::SizeEnd(size), ..) => Self::SizeEnd(size),
            (Self::DataEnd(false), b'\r', _) => Self::DataEnd(true),
            (Self::DataEnd(true), b'\n', _) => Self::Start,
            (place, ..) => bail!("not chunked: the byte {byte:#04x} at {place:?}"),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_wherever_it_was_cut() {
        let coded = b"5\r\nhello\r\n1;x=y\r\n \r\n00B\r\nworld\r\nsaid\r\n0\r\n\r\n";
        for cut in 0..=coded.len() {
            let (mut place, mut content) = (Chunked::default(), Vec::new());
            let (first, second) = coded.split_at(cut);
            for part in [first, second] {
                let mut part = part.to_vec();
                let length = place.decode(&mut part).unwrap();
                content.extend_from_slice(&part[..length]);
            }
            assert_eq!(content, b"hello world\r\nsaid", "cut at {cut}");
            assert_eq!(place, Chunked::Over);
        }
    }

    #[test]
    fn what_is_not_chunked_is_refused() {
        for bytes in [
            &b"x"[..],
            b"\r\n",
            b"5x",
            b"1\r\nab",
            b"1\r\na\r\r",
            b"fffffffff\r\n",
        ] {
            let refused = Chunked::default().decode(&mut bytes.to_vec());
            assert!(refused.is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}

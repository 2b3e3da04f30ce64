//! The frames of a client that only listens (RFC 6455, sections 5 to 7): its data is checked and discarded, its control
//! frames are answered.

use tungstenite::protocol::frame::coding::CloseCode;

use super::super::frames::{
    BINARY, CLOSE, CONTINUATION, Header, TEXT, answer_control, unmask, write_close,
};

/// What is kept of a client's frames between two reads.
#[derive(Default)]
pub(crate) struct ClientFrames {
    /// An incomplete header, or an incomplete control frame: at most 130 bytes.
    partial: Vec<u8>,
    data: DataFrame,
    message: DataMessage,
}

/// The data frame that is being read.
#[derive(Default)]
struct DataFrame {
    /// Number of payload bytes that are still to come.
    missing: u32,
    /// The mask, rotated so that its first byte is for the next payload byte.
    mask: [u8; 4],
    is_final: bool,
}

/// The data message that is being read. It may consist of several frames (section 5.4).
#[derive(Default)]
enum DataMessage {
    #[default]
    None,
    Binary,
    Text(Utf8),
}

/// Checks UTF-8 (RFC 3629) byte by byte. The fields say which next byte is valid.
#[derive(Default)]
struct Utf8 {
    /// Number of bytes that are missing of the current character.
    missing: u8,
    /// Least and greatest valid value of the next byte.
    low: u8,
    high: u8,
}

impl ClientFrames {
    /// Reads frames and appends the answers to them. Returns false if the connection ends after these answers.
    pub(crate) fn answer(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        self.take(bytes, out).unwrap_or_else(|code| {
            write_close(code, out);
            false
        })
    }

    /// Reads frames and appends the answers to pings and to a close. `Ok(false)`: the client has closed. `Err`: the
    /// connection fails with this close code (section 7.1.7).
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, CloseCode> {
        let mut joined = std::mem::take(&mut self.partial);
        let mut rest = bytes;
        if !joined.is_empty() {
            joined.extend_from_slice(bytes);
            rest = &joined;
        }
        loop {
            rest = self.take_data(rest)?;
            let Some((header, payload)) = Header::read(rest)? else {
                break;
            };
            self.check_order(&header)?;
            if header.opcode < CLOSE {
                self.begin_data(&header)?;
                rest = payload;
                continue;
            }
            let Some((payload, after)) = payload.split_at_checked(header.length as usize) else {
                break;
            };
            rest = after;
            if !answer_control(&header, payload, out)? {
                return Ok(false);
            }
        }
        // Most clients never send anything, and an empty vector takes no memory.
        self.partial = rest.to_vec();
        Ok(true)
    }

    /// Checks the order of frames. A continuation needs a message that has begun. A new message may begin only after
    /// the previous one has ended.
    fn check_order(&self, header: &Header) -> Result<(), CloseCode> {
        let has_begun = !matches!(self.message, DataMessage::None);
        match header.opcode {
            CONTINUATION if !has_begun => Err(CloseCode::Protocol),
            TEXT | BINARY if has_begun => Err(CloseCode::Protocol),
            _ => Ok(()),
        }
    }

    fn begin_data(&mut self, header: &Header) -> Result<(), CloseCode> {
        match header.opcode {
            TEXT => self.message = DataMessage::Text(Utf8::default()),
            BINARY => self.message = DataMessage::Binary,
            _ => {}
        }
        self.data = DataFrame {
            missing: header.length,
            mask: header.mask,
            is_final: header.is_final,
        };
        self.end_data()
    }

    /// Reads payload of the current data frame, and returns the bytes after it.
    fn take_data<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], CloseCode> {
        if self.data.missing == 0 {
            return Ok(bytes);
        }
        let count = bytes.len().min(self.data.missing as usize);
        let (payload, rest) = bytes.split_at(count);
        if let DataMessage::Text(utf8) = &mut self.message
            && !unmask(payload, self.data.mask).all(|byte| utf8.take(byte))
        {
            return Err(CloseCode::Invalid);
        }
        self.data.missing -= u32::try_from(count).unwrap_or(u32::MAX);
        self.data.mask.rotate_left(count % 4);
        self.end_data()?;
        Ok(rest)
    }

    /// Ends the message with the last byte of its last frame.
    fn end_data(&mut self) -> Result<(), CloseCode> {
        if self.data.missing > 0 || !self.data.is_final {
            return Ok(());
        }
        match std::mem::take(&mut self.message) {
            DataMessage::Text(utf8) if utf8.missing > 0 => Err(CloseCode::Invalid),
            _ => Ok(()),
        }
    }
}

impl Utf8 {
    /// Checks the next byte. False: the byte is not valid here.
    fn take(&mut self, byte: u8) -> bool {
        if self.missing > 0 {
            let fits = (self.low..=self.high).contains(&byte);
            *self = Self::expect(self.missing - 1, 0x80, 0xbf);
            return fits;
        }
        // The narrower ranges exclude overlong forms, surrogates, and values above U+10FFFF.
        *self = match byte {
            0x00..=0x7f => return true,
            0xc2..=0xdf => Self::expect(1, 0x80, 0xbf),
            0xe0 => Self::expect(2, 0xa0, 0xbf),
            0xed => Self::expect(2, 0x80, 0x9f),
            0xe1..=0xef => Self::expect(2, 0x80, 0xbf),
            0xf0 => Self::expect(3, 0x90, 0xbf),
            0xf1..=0xf3 => Self::expect(3, 0x80, 0xbf),
            0xf4 => Self::expect(3, 0x80, 0x8f),
            _ => return false,
        };
        true
    }

    fn expect(missing: u8, low: u8, high: u8) -> Self {
        Self { missing, low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![first, 0x80 | length, 1, 2, 3, 4];
        frame.extend(unmask(payload, mask));
        frame
    }

    fn read(chunks: &[&[u8]]) -> (Result<bool, CloseCode>, Vec<u8>) {
        let (mut frames, mut out) = (ClientFrames::default(), Vec::new());
        let mut last = Ok(true);
        for chunk in chunks {
            last = frames.take(chunk, &mut out);
            if last != Ok(true) {
                break;
            }
        }
        (last, out)
    }

    #[test]
    fn a_waiting_client_takes_little() {
        assert!(
            size_of::<ClientFrames>() <= 40,
            "{}",
            size_of::<ClientFrames>()
        );
    }

    #[test]
    fn answers_control_frames_between_data_however_they_are_cut() {
        let mut bytes = masked(0x01, "h\u{e9}".as_bytes().split_last().unwrap().1);
        bytes.extend(masked(0x89, b"ping"));
        bytes.extend(masked(0x80, &"\u{e9}llo".as_bytes()[1..]));
        bytes.extend(masked(0x82, &[0xff; 100]));
        bytes.extend(masked(0x88, &[3, 232]));
        let expected = b"\x8a\x04ping\x88\x02\x03\xe8".to_vec();
        assert_eq!(read(&[&bytes]), (Ok(false), expected.clone()));
        for size in [1, 2, 3, 5, 7] {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(read(&chunks), (Ok(false), expected.clone()), "{size}");
        }
    }

    #[test]
    fn nothing_is_kept_of_data() {
        let mut frames = ClientFrames::default();
        let frame = masked(0x01, &[b'x'; 100]);
        frames.take(&frame[..50], &mut Vec::new()).unwrap();
        assert_eq!(frames.partial.capacity(), 0);
    }

    /// For all these byte sequences, valid or not, the result is that of the standard library.
    #[test]
    fn text_is_what_the_standard_library_takes() {
        let is_text = |bytes: &[u8]| {
            let mut utf8 = Utf8::default();
            bytes.iter().all(|byte| utf8.take(*byte)) && utf8.missing == 0
        };
        for first in 0..=255 {
            for second in 0..=255 {
                for rest in [&b""[..], b"\x80", b"\xbf\xbf", b"\x80\x80\x80", b"a"] {
                    let bytes = [&[first, second], rest].concat();
                    let expected = std::str::from_utf8(&bytes).is_ok();
                    assert_eq!(is_text(&bytes), expected, "{bytes:?}");
                }
            }
        }
    }
}

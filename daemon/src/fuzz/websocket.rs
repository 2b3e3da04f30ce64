//! WebSocket frames of a client: the answer is that of RFC 6455, however the bytes are cut into reads.

use crate::transport::websocket::ClientFrames;

/// First bytes of a server's unfragmented frames without extensions.
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// Close codes (section 7.4.1).
const PROTOCOL: u16 = 1002;
const NO_TEXT: u16 = 1007;
const SIZE: u16 = 1009;

/// The first byte says into which pieces the rest is cut.
pub(super) fn check(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let mut frames = ClientFrames::default();
    let (mut out, mut goes_on) = (Vec::new(), true);
    for chunk in stream.chunks(usize::from(cut) + 1) {
        goes_on = frames.answer(chunk, &mut out);
        if !goes_on {
            break;
        }
    }
    let answers = server_frames(&out);
    assert_eq!(
        goes_on,
        answers.last().is_none_or(|(first, _)| *first != CLOSE)
    );
    assert_eq!(answers, expected(stream));
}

/// The frames that a client reads: the first byte and the payload of each.
pub(super) fn server_frames(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut frames, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let frame = Frame::read(rest).expect("a whole header");
        assert_eq!(frame.mask, None);
        let (payload, after) = frame.rest.split_at(frame.length as usize);
        frames.push((frame.first, payload.to_vec()));
        rest = after;
    }
    frames
}

/// The expected answers: those of a simple server that keeps the whole message and checks it after each frame. They end with
/// the close frame, if there is one.
fn expected(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut answers, mut rest, mut message) = (Vec::new(), stream, None);
    loop {
        let fault = fault_of_header(rest, message.is_some());
        let frame = Frame::read(rest);
        let answer = match (fault, &frame) {
            (Some(code), _) => close(code),
            (None, Some(frame)) if frame.opcode() >= 8 => frame.control(),
            (None, Some(frame)) => frame.data(&mut message),
            (None, None) => ExpectedAnswer::Wait,
        };
        match answer {
            ExpectedAnswer::Nothing => {}
            ExpectedAnswer::Wait => return answers,
            ExpectedAnswer::Frame(first, payload) => answers.push((first, payload)),
        }
        if answers.last().is_some_and(|(first, _)| *first == CLOSE) {
            return answers;
        }
        let Some(frame) = frame else { return answers };
        rest = frame.rest.get(frame.length as usize..).unwrap_or_default();
    }
}

/// The frames of a message before its last frame.
struct PartialMessage {
    is_text: bool,
    bytes: Vec<u8>,
}

/// The close code for the first rule that the received part of the header breaks. `in_message`: a message has begun.
fn fault_of_header(stream: &[u8], in_message: bool) -> Option<u16> {
    let first = *stream.first()?;
    let (is_final, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0xf);
    if reserved != 0 || !matches!(opcode, 0..=2 | 8..=10) || (opcode >= 8 && !is_final) {
        return Some(PROTOCOL);
    }
    let second = *stream.get(1)?;
    if second & 0x80 == 0 || (opcode >= 8 && second & 0x7f > 125) {
        return Some(PROTOCOL);
    }
    let (length, least) = match (second & 0x7f, stream.get(2..)?) {
        (126, rest) => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 126),
        (127, rest) => (u64::from_be_bytes(*rest.first_chunk()?), 65_536),
        (length, _) => (u64::from(length), 0),
    };
    if length < least || length >= 1 << 63 {
        return Some(PROTOCOL);
    }
    if length > 64 * 1024 {
        return Some(SIZE);
    }
    Frame::read(stream)?;
    let continues = opcode == 0;
    (opcode < 8 && continues != in_message).then_some(PROTOCOL)
}

fn close(code: u16) -> ExpectedAnswer {
    ExpectedAnswer::Frame(CLOSE, code.to_be_bytes().into())
}

/// A frame (section 5.2).
struct Frame<'a> {
    first: u8,
    mask: Option<[u8; 4]>,
    length: u64,
    /// The bytes after the header.
    rest: &'a [u8],
}

enum ExpectedAnswer {
    Nothing,
    /// The frame is not complete.
    Wait,
    Frame(u8, Vec<u8>),
}

impl<'a> Frame<'a> {
    /// `None`: the header is not complete.
    fn read(stream: &'a [u8]) -> Option<Self> {
        let (&[first, second], rest) = stream.split_first_chunk()?;
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u16::from_be_bytes(*length).into(), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            length => (length.into(), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let (mask, rest) = rest.split_first_chunk()?;
            (Some(*mask), rest)
        };
        Some(Self {
            first,
            mask,
            length,
            rest,
        })
    }

    fn opcode(&self) -> u8 {
        self.first & 0xf
    }

    /// The received part of the payload, and whether it is complete.
    fn payload(&self) -> (Vec<u8>, bool) {
        let masked = self.rest.get(..self.length as usize);
        let mask = self.mask.expect("a client's frame").into_iter().cycle();
        let bytes = masked.unwrap_or(self.rest).iter().zip(mask);
        (
            bytes.map(|(byte, mask)| byte ^ mask).collect(),
            masked.is_some(),
        )
    }

    fn control(&self) -> ExpectedAnswer {
        let (payload, true) = self.payload() else {
            return ExpectedAnswer::Wait;
        };
        match (self.opcode(), &*payload) {
            (9, _) => ExpectedAnswer::Frame(PONG, payload),
            (10, _) => ExpectedAnswer::Nothing,
            (_, []) => ExpectedAnswer::Frame(CLOSE, payload),
            (_, [high, low, reason @ ..]) => match u16::from_be_bytes([*high, *low]) {
                0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => close(PROTOCOL),
                _ if std::str::from_utf8(reason).is_err() => close(NO_TEXT),
                _ => ExpectedAnswer::Frame(CLOSE, payload),
            },
            (_, [_]) => close(PROTOCOL),
        }
    }

    fn data(&self, message: &mut Option<PartialMessage>) -> ExpectedAnswer {
        let (payload, is_whole) = self.payload();
        let is_text = self.opcode() == 1;
        let bytes = Vec::new();
        let begun = message.get_or_insert(PartialMessage { is_text, bytes });
        begun.bytes.extend(payload);
        let is_over = is_whole && self.first & 0x80 != 0;
        let is_broken = match std::str::from_utf8(&begun.bytes) {
            Ok(_) => false,
            Err(error) => is_over || error.error_len().is_some(),
        };
        if begun.is_text && is_broken {
            return close(NO_TEXT);
        }
        if is_over {
            *message = None;
        }
        match is_whole {
            true => ExpectedAnswer::Nothing,
            false => ExpectedAnswer::Wait,
        }
    }
}

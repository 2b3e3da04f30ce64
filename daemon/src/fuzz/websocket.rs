//! WebSocket frames of a client: however they are cut, the answer is that of RFC 6455.

use crate::transport::websocket::ClientFrames;

/// First bytes of a server's frames, whole and without extensions.
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// Close codes (section 7.4.1).
const PROTOCOL: u16 = 1002;
const NO_TEXT: u16 = 1007;
const SIZE: u16 = 1009;

/// The first byte says how the rest is cut.
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

/// What a client reads: the first byte of each frame, and its payload.
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

/// What a server answers that keeps each message whole and looks at it after each frame; up to its close, if there is
/// one.
fn expected(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut answers, mut rest, mut message) = (Vec::new(), stream, None);
    loop {
        let fault = fault_of_header(rest, message.is_some());
        let frame = Frame::read(rest);
        let answer = match (fault, &frame) {
            (Some(code), _) => close(code),
            (None, Some(frame)) if frame.opcode() >= 8 => frame.control(),
            (None, Some(frame)) => frame.data(&mut message),
            (None, None) => Answer::Wait,
        };
        match answer {
            Answer::Nothing => {}
            Answer::Wait => return answers,
            Answer::Frame(first, payload) => answers.push((first, payload)),
        }
        if answers.last().is_some_and(|(first, _)| *first == CLOSE) {
            return answers;
        }
        let Some(frame) = frame else { return answers };
        rest = frame.rest.get(frame.length as usize..).unwrap_or_default();
    }
}

/// A message that has begun.
struct Message {
    is_text: bool,
    bytes: Vec<u8>,
}

/// The first rule that the header breaks, as far as it has come; `in_message`: a message has begun.
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

fn close(code: u16) -> Answer {
    Answer::Frame(CLOSE, code.to_be_bytes().into())
}

/// Section 5.2.
struct Frame<'a> {
    first: u8,
    mask: Option<[u8; 4]>,
    length: u64,
    /// What follows the header.
    rest: &'a [u8],
}

enum Answer {
    Nothing,
    /// It is not whole.
    Wait,
    Frame(u8, Vec<u8>),
}

impl<'a> Frame<'a> {
    /// `None`: the header is not whole.
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

    /// The payload as far as it has come, and whether it is whole.
    fn payload(&self) -> (Vec<u8>, bool) {
        let masked = self.rest.get(..self.length as usize);
        let mask = self.mask.expect("a client's frame").into_iter().cycle();
        let bytes = masked.unwrap_or(self.rest).iter().zip(mask);
        (
            bytes.map(|(byte, mask)| byte ^ mask).collect(),
            masked.is_some(),
        )
    }

    fn control(&self) -> Answer {
        let (payload, true) = self.payload() else {
            return Answer::Wait;
        };
        match (self.opcode(), &*payload) {
            (9, _) => Answer::Frame(PONG, payload),
            (10, _) => Answer::Nothing,
            (_, []) => Answer::Frame(CLOSE, payload),
            (_, [high, low, reason @ ..]) => match u16::from_be_bytes([*high, *low]) {
                0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => close(PROTOCOL),
                _ if std::str::from_utf8(reason).is_err() => close(NO_TEXT),
                _ => Answer::Frame(CLOSE, payload),
            },
            (_, [_]) => close(PROTOCOL),
        }
    }

    fn data(&self, message: &mut Option<Message>) -> Answer {
        let (payload, is_whole) = self.payload();
        let is_text = self.opcode() == 1;
        let bytes = Vec::new();
        let begun = message.get_or_insert(Message { is_text, bytes });
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
            true => Answer::Nothing,
            false => Answer::Wait,
        }
    }
}

//! WebSocket frames of a client: however they are cut, the answer is that of RFC 6455.

use std::time::Duration;

use hyper::{Request, header};

use crate::transport::{Format, websocket::WebSocket};

/// First bytes of a server's frames, whole and without extensions.
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// Close codes (section 7.4.1).
const PROTOCOL: u16 = 1002;
const SIZE: u16 = 1009;

/// The first byte says how the rest is cut.
pub(super) fn check(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let connection = accepted();
    let (mut out, mut goes_on) = (Vec::new(), true);
    for chunk in stream.chunks(usize::from(cut) + 1) {
        goes_on = connection.input(chunk, &mut out);
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

/// After a handshake.
pub(super) fn accepted() -> WebSocket {
    let request = Request::builder()
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    let (head, ()) = request.body(()).expect("a request").into_parts();
    WebSocket::accept(&head, Duration::from_secs(15)).expect("a handshake")
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

/// What a server answers that listens for control frames alone; up to its close, if there is one.
fn expected(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut answers, mut rest) = (Vec::new(), stream);
    while let Some(frame) = Frame::read(rest) {
        match frame.answer() {
            Answer::Nothing => {}
            Answer::Wait => break,
            Answer::Frame(first, payload) => answers.push((first, payload)),
        }
        if answers.last().is_some_and(|(first, _)| *first == CLOSE) {
            break;
        }
        rest = frame.rest.get(frame.length as usize..).unwrap_or_default();
    }
    answers
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

    fn answer(&self) -> Answer {
        let close = |code: u16| Answer::Frame(CLOSE, code.to_be_bytes().into());
        let (is_final, reserved, opcode) =
            (self.first & 0x80 != 0, self.first & 0x70, self.first & 0xf);
        let Some(mask) = self.mask.filter(|_| reserved == 0) else {
            return close(PROTOCOL);
        };
        match opcode {
            0..=2 if self.length > 64 * 1024 => close(SIZE),
            0..=2 => Answer::Nothing,
            8..=10 if is_final && self.length <= 125 => {
                let Some(payload) = self.rest.get(..self.length as usize) else {
                    return Answer::Wait;
                };
                let payload = payload
                    .iter()
                    .zip(mask.iter().cycle())
                    .map(|(byte, mask)| byte ^ mask);
                match opcode {
                    8 => Answer::Frame(CLOSE, payload.collect()),
                    9 => Answer::Frame(PONG, payload.collect()),
                    _ => Answer::Nothing,
                }
            }
            _ => close(PROTOCOL),
        }
    }
}

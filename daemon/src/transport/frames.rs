//! WebSocket frames (RFC 6455, section 5): reads the header of a client's frame, answers control frames, and writes the
//! server's frames. This module does not use connections and has no state.

use tungstenite::protocol::frame::coding::CloseCode;

/// Maximum length in bytes of a client's data frame. A message of several frames may be longer, because no part of the message
/// is stored.
const MAX_FRAME: u32 = 64 * 1024;

/// Longest payload of a control frame in bytes (section 5.5).
const MAX_CONTROL: u8 = 125;

/// Opcodes (section 11.8).
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The header of a client's frame (section 5.2). It has passed all checks that need no payload.
pub(crate) struct Header {
    pub(crate) is_final: bool,
    pub(crate) opcode: u8,
    pub(crate) length: u32,
    pub(crate) mask: [u8; 4],
}

impl Header {
    /// Reads and checks a header. `None`: the header is incomplete. Each error is found with the first byte that shows it.
    /// Returns the header and the bytes after it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Self, &[u8])>, CloseCode> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        // The reserved bits must be zero, because no extension was negotiated.
        let is_known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        let is_control = opcode >= CLOSE;
        if first & 0x70 != 0 || !is_known || (is_control && !is_final) {
            return Err(CloseCode::Protocol);
        }
        let Some((&second, rest)) = bytes[1..].split_first() else {
            return Ok(None);
        };
        let short = second & 0x7f;
        let is_masked = second & 0x80 != 0;
        if !is_masked || (is_control && short > MAX_CONTROL) {
            return Err(CloseCode::Protocol);
        }
        let Some((length, rest)) = read_length(short, rest)? else {
            return Ok(None);
        };
        let header = |(mask, rest): (&[u8; 4], _)| {
            let header = Self {
                is_final,
                opcode,
                length,
                mask: *mask,
            };
            (header, rest)
        };
        Ok(rest.split_first_chunk().map(header))
    }
}

/// Reads the payload's length, which must be written in the shortest form (section 5.2).
fn read_length(short: u8, bytes: &[u8]) -> Result<Option<(u32, &[u8])>, CloseCode> {
    let (length, least, rest) = match short {
        126 => match bytes.split_first_chunk() {
            Some((length, rest)) => (u16::from_be_bytes(*length).into(), 126, rest),
            None => return Ok(None),
        },
        127 => match bytes.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), 1 << 16, rest),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, bytes),
    };
    let has_top_bit = length >> 63 == 1;
    if length < least || has_top_bit {
        return Err(CloseCode::Protocol);
    }
    match u32::try_from(length) {
        Ok(length @ ..=MAX_FRAME) => Ok(Some((length, rest))),
        _ => Err(CloseCode::Size),
    }
}

/// Appends the answer to a control frame. `Ok(false)`: the frame was a close.
pub(crate) fn answer_control(
    header: &Header,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, CloseCode> {
    let payload: Vec<u8> = unmask(payload, header.mask).collect();
    match header.opcode {
        PING => write(PONG, &payload, out),
        CLOSE => {
            check_close(&payload)?;
            write(CLOSE, &payload, out);
            return Ok(false);
        }
        _ => {} // a pong needs no answer (section 5.5.3)
    }
    Ok(true)
}

/// Checks the payload of a close. It may be empty. Otherwise it has a code that may be sent, and a reason in UTF-8
/// (sections 5.5.1 and 7.4).
pub(crate) fn check_close(payload: &[u8]) -> Result<(), CloseCode> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(()),
            _ => Err(CloseCode::Protocol),
        };
    };
    // 1004 is reserved; 1005, 1006 and 1015 are never sent. 1012 to 1014 were registered after the RFC.
    if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseCode::Protocol);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(()),
        Err(_) => Err(CloseCode::Invalid),
    }
}

/// Removes the mask (section 5.3).
pub(crate) fn unmask(payload: &[u8], mask: [u8; 4]) -> impl Iterator<Item = u8> {
    payload
        .iter()
        .zip(mask.into_iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
}

/// Appends a close frame.
pub(crate) fn write_close(code: CloseCode, out: &mut Vec<u8>) {
    write(CLOSE, &u16::from(code).to_be_bytes(), out);
}

/// Appends a whole frame of the server, which has no mask (section 5.1).
pub(crate) fn write(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_written_in_the_shortest_form() {
        let cases: [(usize, &[u8]); 6] = [
            (0, &[0]),
            (125, &[125]),
            (126, &[126, 0, 126]),
            (65_535, &[126, 0xff, 0xff]),
            (65_536, &[127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (70_000, &[127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
        ];
        for (length, expected) in cases {
            let mut out = Vec::new();
            write(TEXT, &vec![b'x'; length], &mut out);
            assert_eq!(out[0], 0x81);
            assert_eq!(&out[1..=expected.len()], expected, "{length}");
            assert_eq!(out.len(), 1 + expected.len() + length);
        }
    }
}

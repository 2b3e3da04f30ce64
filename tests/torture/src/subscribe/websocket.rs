//! The client side of WebSocket (RFC 6455). A frame has Comet's JSON object, or nchan's message with an id before it.

use std::io::Read;

use super::{Cursor, Reader, Session, nonsense, refused};
use crate::{
    http::{Body, Head, Trouble},
    target::{Kind, Transport},
};

/// The example of RFC 6455, section 1.3. Any key is valid, and the server's answer to this key is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Maximum length of a frame in bytes.
const LONGEST: u64 = 16 << 20;

pub(super) fn listen(reader: &mut Reader, session: &mut Session<'_>) -> Result<(), Trouble> {
    let mut fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    if session.target.kind == Kind::Nchan {
        fields.push_str("Sec-WebSocket-Protocol: ws+meta.nchan\r\n");
    }
    session.send(reader, Transport::Websocket, &fields)?;
    let head = Head::read(reader)?;
    if head.status != 101 || head.field("sec-websocket-accept") != Some(ACCEPT) {
        let body = Body::new(&head, reader)?.text()?;
        return Err(refused(head.status, &body));
    }
    loop {
        let (first, payload) = frame(reader)?;
        match first {
            0x81 => text(&payload, session)?,
            0x88 => return Ok(()),
            // The mask of this pong is 0.
            0x89 => {
                let mut pong = vec![0x8a, 0x80 | payload.len().min(125) as u8, 0, 0, 0, 0];
                pong.extend_from_slice(&payload[..payload.len().min(125)]);
                reader.get_mut().send(&pong)?;
            }
            0x8a => {}
            _ => return Err(nonsense(&format!("a frame that begins with {first:#04x}"))),
        }
    }
}

fn frame(reader: &mut Reader) -> Result<(u8, Vec<u8>), Trouble> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length)?;
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            reader.read_exact(&mut length)?;
            u64::from_be_bytes(length)
        }
        length => u64::from(length),
    };
    if head[1] >= 128 || length > LONGEST {
        return Err(nonsense("a frame that is masked or too long"));
    }
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload)?;
    Ok((head[0], payload))
}

fn text(payload: &[u8], session: &mut Session<'_>) -> Result<(), Trouble> {
    let text = str::from_utf8(payload).map_err(|_| nonsense("a frame that is no text"))?;
    if session.target.kind == Kind::Comet {
        return session.json(text);
    }
    // The format is `id: 1795227450:0`, an optional `content-type: …`, an empty line, and the message.
    let (lines, data) = text.split_once("\n\n").ok_or_else(|| nonsense(text))?;
    let id = lines.lines().find_map(|line| line.strip_prefix("id: "));
    let id = id.ok_or_else(|| nonsense(text))?.to_owned();
    session.data(None, data, None);
    *session.cursor = Cursor::Id(id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{
        News,
        tests::{json, message, stamp, told},
    };
    use super::*;

    #[test]
    fn whole_frames_are_told_and_a_cut_one_is_not() {
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        let mut stream = head.into_bytes();
        for text in [
            json(7, 0),
            r#"{"gap":true,"cursor":"8"}"#.into(),
            json(9, 1),
        ] {
            let length = text.len() as u8;
            match length {
                0..126 => stream.extend_from_slice(&[0x81, length]),
                _ => stream.extend_from_slice(&[0x81, 126, 0, length]),
            }
            stream.extend_from_slice(text.as_bytes());
        }
        stream.pop();
        let at = Cursor::Id("4".into());
        let (news, cursor, request) = told(Kind::Comet, Transport::Websocket, at, &stream);
        assert!(request.contains("since=4 "), "{request}");
        assert_eq!(news, [message(Some(7), 0), News::Gap]);
        assert_eq!(cursor, Cursor::Id("8".into()));
    }

    #[test]
    fn nchans_frames_begin_with_their_id() {
        let (mut cursor, mut news) = (Cursor::None, Vec::new());
        let target = crate::target::Target::new(Kind::Nchan, ([127, 0, 0, 1], 1).into());
        let mut session = Session {
            target: &target,
            channels: &[],
            cursor: &mut cursor,
            tell: &mut |told| news.push(told),
        };
        let frame = format!(
            "id: 17:0\ncontent-type: text/plain\n\n{}",
            stamp(4).text(50)
        );
        text(frame.as_bytes(), &mut session).unwrap();
        assert!(text(b"hello", &mut session).is_err());
        assert_eq!(news, [message(None, 4)]);
        assert_eq!(cursor, Cursor::Id("17:0".into()));
    }
}

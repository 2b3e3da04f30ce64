//! The client side of WebSocket (RFC 6455), as far as it is needed to receive messages.

use anyhow::{Result, bail};

use super::event::Event;

/// The example of RFC 6455, section 1.3. Any key is valid, and the server's answer to this key is known.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Passes on the complete frames at the front of `bytes`. Returns their length in bytes.
pub(super) fn frames(bytes: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<usize> {
    let mut taken = 0;
    while let Some((start, end)) = bounds(&bytes[taken..])? {
        let frame = &bytes[taken..];
        if frame.len() < end {
            break;
        }
        let payload = &frame[start..end];
        match frame[0] {
            0x81 => each(Event::Message(payload)),
            0x88 => each(Event::Close),
            0x89 => each(Event::Ping(payload)),
            0x8a => {}
            first => bail!("a WebSocket frame that begins with {first:#04x}"),
        }
        taken += end;
    }
    Ok(taken)
}

/// Start and end of the first frame's payload. `None`: the frame's head is not complete.
fn bounds(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let bounds = match bytes {
        [_, 128..=255, ..] => bail!("a masked frame from the server"),
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [_, 127, rest @ ..] => {
            let Some(length) = rest.first_chunk() else {
                return Ok(None);
            };
            // A larger frame does not fit into the buffer and is refused there.
            let length = u64::from_be_bytes(*length).min(u64::from(u32::MAX));
            (10, length as usize)
        }
        [_, length @ 0..=125, ..] => (2, usize::from(*length)),
        _ => return Ok(None),
    };
    Ok(Some((bounds.0, bounds.0 + bounds.1)))
}

/// Writes the answer to a ping. The mask is 0, which leaves the payload unchanged.
pub(super) fn pong(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x8a, 0x80 | payload.len().min(125) as u8, 0, 0, 0, 0]);
    out.extend_from_slice(&payload[..payload.len().min(125)]);
}

/// A text frame with a mask of 0.
pub(super) fn text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).unwrap_or(u16::MAX) {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0xfe);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(Vec<String>, usize)> {
        let mut events = Vec::new();
        let taken = frames(bytes, &mut |event| events.push(format!("{event:?}")))?;
        Ok((events, taken))
    }

    #[test]
    fn lengths_of_all_three_forms_are_understood() {
        for (head, length) in [
            (&[0x81, 5][..], 5),
            (&[0x81, 126, 0x01, 0x00], 256),
            (&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
        ] {
            let payload = vec![b'x'; length];
            let mut bytes = [head, &payload].concat();
            let expected = format!("{:?}", Event::Message(&payload));
            let (events, taken) = read(&bytes).unwrap();
            assert_eq!((events, taken), (vec![expected], bytes.len()));
            bytes.pop();
            for cut in [0, 1, 2, head.len() - 1, head.len(), bytes.len()] {
                assert_eq!(read(&bytes[..cut]).unwrap(), (vec![], 0), "cut at {cut}");
            }
        }
    }

    #[test]
    fn control_frames_are_told_apart() {
        let (events, _) = read(&[0x89, 1, b'p', 0x8a, 0, 0x88, 2, 3, 233]).unwrap();
        let expected = [Event::Ping(b"p"), Event::Close].map(|event| format!("{event:?}"));
        assert_eq!(events, expected);
    }

    #[test]
    fn frames_that_nobody_may_send_are_refused() {
        for bytes in [
            &[0x81, 0x80, 0, 0, 0, 0][..],
            &[0x01, 0],
            &[0x82, 0],
            &[0xc1, 0],
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}

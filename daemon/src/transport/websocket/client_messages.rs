//! The messages of a client that talks to the daemon (RFC 6455, sections 5 to 7): joins the frames of a message, and
//! returns the control frames between them.

use tungstenite::protocol::frame::coding::CloseCode;

use super::super::frames::{
    BINARY, CLOSE, CONTINUATION, Header, PING, PONG, TEXT, check_close, unmask,
};

/// Maximum length in bytes of one message, all its frames together.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientMessage {
    Text(String),
    /// A ping with this payload, which the pong must repeat.
    Ping(Vec<u8>),
    /// A close frame with this payload, which was checked.
    Close(Vec<u8>),
}

/// Reads the messages of one client. Between two messages nothing is stored.
#[derive(Default)]
pub(crate) struct ClientMessages(Option<Box<Partial>>);

/// What is stored of a message that is not complete.
#[derive(Default)]
struct Partial {
    /// The bytes of a frame that is not complete, with its header.
    frame: Vec<u8>,
    /// The payload of the message's frames so far. `None`: no message has begun.
    message: Option<Vec<u8>>,
}

/// What the client has sent, or the close code with which the connection fails (section 7.1.7).
type Read<T> = Result<T, CloseCode>;

impl ClientMessages {
    /// Reads from the start of `bytes` to the end of the next message. Returns how many bytes were used, and the message if
    /// it is complete.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Read<(usize, Option<ClientMessage>)> {
        let mut partial = self
            .0
            .take()
            .map_or_else(Partial::default, |stored| *stored);
        let read = partial.next(bytes);
        if !partial.frame.is_empty() || partial.message.is_some() {
            self.0 = Some(Box::new(partial));
        }
        read
    }

    /// The number of bytes that are stored.
    pub(crate) fn stored(&self) -> usize {
        self.0.as_ref().map_or(0, |partial| {
            partial.frame.capacity() + partial.message.as_ref().map_or(0, Vec::capacity)
        })
    }
}

impl Partial {
    fn next(&mut self, bytes: &[u8]) -> Read<(usize, Option<ClientMessage>)> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let (taken, message) = match self.frame.is_empty() {
                true => self.next_frame(rest)?,
                false => self.rest_of_frame(rest)?,
            };
            used += taken;
            if message.is_some() {
                return Ok((used, message));
            }
        }
        Ok((used, None))
    }

    /// Reads a frame that begins here. A frame that is not complete is stored.
    fn next_frame(&mut self, bytes: &[u8]) -> Read<(usize, Option<ClientMessage>)> {
        if let Some((header, after)) = self.header(bytes)?
            && let Some(payload) = after.get(..header.length as usize)
        {
            let length = bytes.len() - after.len() + payload.len();
            return Ok((length, self.end_frame(&header, payload)?));
        }
        self.frame.extend_from_slice(bytes);
        Ok((bytes.len(), None))
    }

    /// Reads on in a frame whose beginning is stored.
    fn rest_of_frame(&mut self, bytes: &[u8]) -> Read<(usize, Option<ClientMessage>)> {
        let stored = std::mem::take(&mut self.frame);
        let missing = match self.header(&stored)? {
            Some((header, after)) => header.length as usize - after.len(),
            None => 1,
        };
        let taken = missing.min(bytes.len());
        self.frame = stored;
        self.frame.extend_from_slice(&bytes[..taken]);
        let frame = std::mem::take(&mut self.frame);
        if let Some((header, payload)) = self.header(&frame)?
            && payload.len() == header.length as usize
        {
            return Ok((taken, self.end_frame(&header, payload)?));
        }
        self.frame = frame;
        Ok((taken, None))
    }

    /// Reads a header, and checks that the frame is allowed here and that the message does not become too long.
    fn header<'a>(&self, bytes: &'a [u8]) -> Read<Option<(Header, &'a [u8])>> {
        let Some((header, payload)) = Header::read(bytes)? else {
            return Ok(None);
        };
        let before = self.message.as_ref().map(Vec::len);
        match (header.opcode, before) {
            (BINARY, _) => Err(CloseCode::Unsupported),
            (CONTINUATION, None) | (TEXT, Some(_)) => Err(CloseCode::Protocol),
            (CONTINUATION | TEXT, before)
                if before.unwrap_or(0) + header.length as usize > MAX_MESSAGE =>
            {
                Err(CloseCode::Size)
            }
            _ => Ok(Some((header, payload))),
        }
    }

    /// Handles a whole frame.
    fn end_frame(&mut self, header: &Header, payload: &[u8]) -> Read<Option<ClientMessage>> {
        let payload = unmask(payload, header.mask);
        match header.opcode {
            PING => return Ok(Some(ClientMessage::Ping(payload.collect()))),
            PONG => return Ok(None),
            CLOSE => {
                let payload: Vec<u8> = payload.collect();
                check_close(&payload)?;
                return Ok(Some(ClientMessage::Close(payload)));
            }
            _ => {}
        }
        let message = self.message.get_or_insert_default();
        message.extend(payload);
        if !header.is_final {
            return Ok(None);
        }
        let message = self.message.take().unwrap_or_default();
        let text = String::from_utf8(message).map_err(|_| CloseCode::Invalid)?;
        Ok(Some(ClientMessage::Text(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length => {
                let long = u16::try_from(length);
                frame.push(if long.is_ok() { 0xfe } else { 0xff });
                match long {
                    Ok(length) => frame.extend(length.to_be_bytes()),
                    Err(_) => frame.extend((length as u64).to_be_bytes()),
                }
            }
        }
        let mask = [1, 2, 3, 4];
        frame.extend(mask);
        frame.extend(unmask(payload, mask));
        frame
    }

    /// All messages of these chunks, and the close code that ended the reading.
    fn read(chunks: &[&[u8]]) -> (Vec<ClientMessage>, Option<CloseCode>) {
        let (mut messages, mut found) = (ClientMessages::default(), Vec::new());
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                match messages.next(rest) {
                    Ok((used, message)) => {
                        assert!(used > 0);
                        rest = &rest[used..];
                        found.extend(message);
                    }
                    Err(code) => return (found, Some(code)),
                }
            }
        }
        assert_eq!(messages.stored(), 0);
        (found, None)
    }

    #[test]
    fn joins_frames_however_they_are_cut() {
        let text = "h\u{e9}llo";
        let mut bytes = frame(0x01, &text.as_bytes()[..2]);
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x8a, b"pong"));
        bytes.extend(frame(0x80, &text.as_bytes()[2..]));
        bytes.extend(frame(0x81, b""));
        bytes.extend(frame(0x88, &[3, 232]));
        let expected = [
            ClientMessage::Ping(b"ping".into()),
            ClientMessage::Text(text.into()),
            ClientMessage::Text(String::new()),
            ClientMessage::Close(vec![3, 232]),
        ];
        for size in [1, 2, 3, 5, 7, 1000] {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            let (found, end) = read(&chunks);
            assert_eq!(found, expected, "{size}");
            assert_eq!(end, None);
        }
    }

    #[test]
    fn refuses_what_is_too_long_before_it_arrives() {
        let half = frame(0x01, &[b'x'; MAX_MESSAGE / 2 + 1]);
        let rest = frame(0x80, &[b'x'; MAX_MESSAGE / 2]);
        let (found, end) = read(&[&half, &rest[..8]]);
        assert_eq!((found.len(), end), (0, Some(CloseCode::Size)));
        let whole = frame(0x81, &[b'x'; MAX_MESSAGE]);
        assert_eq!(read(&[&whole]).0.len(), 1);
    }

    #[test]
    fn refuses_frames_in_the_wrong_order_binary_data_and_bad_text() {
        let text = frame(0x01, b"a");
        for (bytes, code) in [
            (frame(0x80, b"a"), CloseCode::Protocol),
            ([text.clone(), text].concat(), CloseCode::Protocol),
            (frame(0x82, b"a"), CloseCode::Unsupported),
            (frame(0x81, b"\xff"), CloseCode::Invalid),
            (frame(0x88, b"\0"), CloseCode::Protocol),
            (vec![0x81, 0x01, b'x'], CloseCode::Protocol),
        ] {
            assert_eq!(read(&[&bytes]), (vec![], Some(code)));
        }
    }

    #[test]
    fn a_client_that_waits_needs_one_pointer() {
        assert_eq!(size_of::<ClientMessages>(), 8);
    }
}

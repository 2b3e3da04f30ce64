//! Parses the bytes of one connection: response head, transfer coding and events.
//!
//! All parsing happens in a buffer that all connections share. A connection keeps only the event that was cut.

use anyhow::{Context, Result, bail};

use super::{chunked::Chunked, event::Event, sse, target::Transport, websocket};

#[derive(Default)]
pub(super) struct Reader {
    phase: Phase,
    /// The beginning of a head or an event, with the transfer coding already decoded.
    partial: Vec<u8>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Head,
    Plain,
    Chunked(Chunked),
}

impl Reader {
    pub(super) fn has_head(&self) -> bool {
        !matches!(self.phase, Phase::Head)
    }

    /// Copies the kept bytes to the front of `buffer` and returns their length. New bytes are read behind them.
    pub(super) fn restore(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let kept = self.partial.len();
        if kept > buffer.len() / 2 {
            bail!("an event of over {kept} bytes");
        }
        buffer[..kept].copy_from_slice(&self.partial);
        Ok(kept)
    }

    /// Passes on the events in `buffer`. The bytes after the first `kept` were read just now. Returns false if the
    /// stream has ended.
    pub(super) fn take(
        &mut self,
        buffer: &mut [u8],
        kept: usize,
        transport: Transport,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<bool> {
        let (start, raw) = match self.phase {
            Phase::Plain | Phase::Chunked(_) => (0, kept),
            Phase::Head => match head(buffer, transport)? {
                Some((length, phase)) => {
                    self.phase = phase;
                    (length, length)
                }
                None => {
                    self.keep(buffer);
                    return Ok(true);
                }
            },
        };
        let end = match &mut self.phase {
            Phase::Chunked(place) => raw + place.decode(&mut buffer[raw..])?,
            Phase::Plain | Phase::Head => buffer.len(),
        };
        let body = &buffer[start..end];
        let taken = match transport {
            Transport::Sse => sse::events(body, each),
            Transport::WebSocket | Transport::Session => websocket::frames(body, each)?,
        };
        self.keep(&body[taken..]);
        Ok(!matches!(self.phase, Phase::Chunked(Chunked::Over)))
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.partial.clear();
        self.partial.extend_from_slice(bytes);
    }
}

/// The length of the head, and the phase that follows. `None`: the head is not complete.
fn head(bytes: &[u8], transport: Transport) -> Result<Option<(usize, Phase)>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = str::from_utf8(&bytes[..end]).context("a head that is no text")?;
    let status = match transport {
        Transport::Sse => "HTTP/1.1 200 ",
        Transport::WebSocket | Transport::Session => "HTTP/1.1 101 ",
    };
    if !text.starts_with(status) {
        bail!("no stream: {:?}", String::from_utf8_lossy(bytes));
    }
    let header = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        let field = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.map_or("", |(_, value)| value.trim())
    };
    if transport.is_websocket() && header("sec-websocket-accept") != websocket::ACCEPT {
        bail!("a wrong Sec-WebSocket-Accept: {text:?}");
    }
    let chunked = header("transfer-encoding").eq_ignore_ascii_case("chunked");
    let phase = match chunked {
        true => Phase::Chunked(Chunked::default()),
        false => Phase::Plain,
    };
    Ok(Some((end + 4, phase)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    /// Returns the events that result when `parts` are read one after the other.
    fn read(parts: &[&[u8]], transport: Transport) -> Result<Vec<String>> {
        let (mut reader, mut buffer) = (Reader::default(), [0; 4096]);
        let mut events = Vec::new();
        for part in parts {
            let kept = reader.restore(&mut buffer)?;
            let end = kept + part.len();
            buffer[kept..end].copy_from_slice(part);
            reader.take(&mut buffer[..end], kept, transport, &mut |event| {
                events.push(format!("{event:?}"));
            })?;
        }
        Ok(events)
    }

    fn cut_everywhere(bytes: &[u8], transport: Transport, expected: &[Event<'_>]) {
        let expected: Vec<String> = expected.iter().map(|event| format!("{event:?}")).collect();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let events = read(&parts, transport).unwrap();
                assert_eq!(events, expected, "cut at {first} and {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single, transport).unwrap(), expected);
    }

    const BODY: &str = ": hi\n\nid: 1\ndata: one\n\nid: 2\ndata: two\n\n";

    #[test]
    fn plain_events_are_the_same_wherever_they_are_cut() {
        let stream = format!("{SSE}\r\n{BODY}");
        let expected = [Event::Message(b"one"), Event::Message(b"two")];
        cut_everywhere(stream.as_bytes(), Transport::Sse, &expected);
    }

    #[test]
    fn chunk_boundaries_may_be_anywhere() {
        let expected: Vec<String> = [Event::Message(b"one"), Event::Message(b"two")]
            .map(|event| format!("{event:?}"))
            .into();
        for cut in 1..BODY.len() {
            let (first, second) = BODY.split_at(cut);
            let stream = format!(
                "{SSE}transfer-encoding: Chunked\r\n\r\n{:x}\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\n\r\n",
                first.len(),
                second.len()
            );
            for read_cut in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(read_cut);
                let events = read(&[first, second], Transport::Sse).unwrap();
                assert_eq!(events, expected, "chunks at {cut}, read at {read_cut}");
            }
        }
    }

    #[test]
    fn frames_are_the_same_wherever_they_are_cut() {
        let mut stream = UPGRADED.as_bytes().to_vec();
        stream.extend_from_slice(b"\x81\x03one\x89\x00\x81\x7e\x00\x03two\x88\x00");
        let (one, two) = (Event::Message(b"one"), Event::Message(b"two"));
        let expected = [one, Event::Ping(b""), two, Event::Close];
        cut_everywhere(&stream, Transport::WebSocket, &expected);
    }

    #[test]
    fn a_refusal_is_an_error() {
        let wrong_key = UPGRADED.replace("s3p", "s4p");
        for (head, transport) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Transport::Sse),
            ("HTTP/1.1 200 OK\r\n\r\n", Transport::WebSocket),
            (&wrong_key, Transport::WebSocket),
        ] {
            assert!(read(&[head.as_bytes()], transport).is_err(), "{head}");
        }
    }

    #[test]
    fn an_event_that_never_ends_is_an_error() {
        let part = format!("{SSE}\r\ndata: {:2000}", "");
        assert!(read(&[part.as_bytes(), &[b'x'; 1000], b"x"], Transport::Sse).is_err());
    }
}

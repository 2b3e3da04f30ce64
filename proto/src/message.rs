//! A message, and its JSON.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{ChannelName, EventName};

/// What one publish contains. A message never changes after the hub has given it an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel to which it was published.
    pub channel: ChannelName,
    /// The id: microseconds since the Unix epoch, strictly increasing over all channels.
    pub id: u64,
    /// The label, usually empty.
    pub name: EventName,
    /// The content: any bytes.
    pub data: Box<[u8]>,
}

impl Message {
    /// Appends the message as one JSON object:
    /// `{"channel":"news","id":1763690000123456,"name":"","data":"…"}`. Data that is not UTF-8 is base64 and
    /// `"encoding":"base64"` follows it.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_json_head(out);
        match str::from_utf8(&self.data) {
            Ok(text) => write_json_string(text, out),
            Err(_) => {
                write_json_string(&STANDARD.encode(&self.data), out);
                out.extend_from_slice(b",\"encoding\":\"base64\"");
            }
        }
        out.push(b'}');
    }

    /// Appends the fields before the data.
    fn write_json_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"channel\":");
        write_json_string(&self.channel, out);
        out.extend_from_slice(format!(",\"id\":{},\"name\":", self.id).as_bytes());
        write_json_string(self.name.as_str(), out);
        out.extend_from_slice(b",\"data\":");
    }
}

/// The most bytes of a message's data in one piece.
const PIECE: usize = 16 * 1024;

/// Writes the same JSON as [`Message::write_json`], but in pieces, so that a connection to a slow client buffers only one
/// piece. Escaping makes a piece at most six times as large.
#[derive(Debug)]
pub struct JsonPieces {
    message: Arc<Message>,
    is_text: bool,
    /// The end of the data that is already written.
    written: usize,
}

impl JsonPieces {
    /// Starts to write a message.
    #[must_use]
    pub fn new(message: Arc<Message>) -> Self {
        let is_text = message.data.len() > PIECE && str::from_utf8(&message.data).is_ok();
        Self {
            message,
            is_text,
            written: 0,
        }
    }

    /// Appends the next piece. Returns true when the message is complete.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let data = &self.message.data;
        if data.len() <= PIECE {
            self.message.write_json(out);
            return true;
        }
        if self.written == 0 {
            self.message.write_json_head(out);
            out.push(b'"');
        }
        let piece = &data[self.written..self.end()];
        let text = match str::from_utf8(piece) {
            Ok(text) if self.is_text => serde_json::to_string(text),
            _ => serde_json::to_string(&STANDARD.encode(piece)),
        };
        let text = text.expect("a string has a JSON form");
        out.extend_from_slice(&text.as_bytes()[1..text.len() - 1]); // without its quotes
        self.written += piece.len();
        if self.written < data.len() {
            return false;
        }
        let end: &[u8] = match self.is_text {
            true => b"\"}",
            false => b"\",\"encoding\":\"base64\"}",
        };
        out.extend_from_slice(end);
        true
    }

    /// The end of the next piece: between two characters, or between two groups of base64.
    fn end(&self) -> usize {
        let data = &self.message.data;
        let end = self.written + PIECE / 3 * 3;
        if end >= data.len() {
            return data.len();
        }
        let is_inside = |at: &usize| self.is_text && data[*at] & 0xc0 == 0x80;
        (0..=end).rev().find(|at| !is_inside(at)).unwrap_or(end)
    }
}

fn write_json_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string has a JSON form and a Vec takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(data: &[u8]) -> String {
        let message = Message {
            channel: ChannelName::parse("news").unwrap(),
            id: 1_763_690_000_123_456,
            name: EventName::parse("a\"b").unwrap(),
            data: data.into(),
        };
        let mut out = Vec::new();
        message.write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_text_as_a_string() {
        assert_eq!(
            json("hé\n".as_bytes()),
            r#"{"channel":"news","id":1763690000123456,"name":"a\"b","data":"hé\n"}"#
        );
    }

    #[test]
    fn pieces_are_together_what_is_written_at_once() {
        let data: [Vec<u8>; 6] = [
            b"small".to_vec(),
            b"\x01\"\\".repeat(20_000),
            "aäö€😀".repeat(9_999).into_bytes(),
            vec![0xff; 3 * PIECE + 1],
            ["é".repeat(PIECE).into_bytes(), vec![0xff]].concat(),
            vec![b'x'; PIECE / 3 * 3 * 2],
        ];
        for data in data {
            let message = Arc::new(Message {
                channel: ChannelName::parse("news").unwrap(),
                id: 7,
                name: EventName::default(),
                data: data.into(),
            });
            let (mut whole, mut pieces) = (Vec::new(), Vec::new());
            message.write_json(&mut whole);
            let mut writing = JsonPieces::new(message);
            loop {
                let before = pieces.len();
                let complete = writing.write_next(&mut pieces);
                assert!(pieces.len() - before <= 6 * PIECE + 100);
                if complete {
                    break;
                }
            }
            assert!(whole == pieces);
        }
    }

    #[test]
    fn writes_other_bytes_as_base64() {
        assert_eq!(
            json(b"\xff\x00"),
            r#"{"channel":"news","id":1763690000123456,"name":"a\"b","data":"/wA=","encoding":"base64"}"#
        );
    }
}

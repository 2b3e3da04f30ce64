//! A message, and its JSON.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{Attributes, ChannelName, ChannelNames, EventName};

/// The content of one publish. A message does not change after the hub has assigned its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channels to which it was published, nearly always one.
    pub channels: ChannelNames,
    /// The id: microseconds since the Unix epoch, strictly increasing over all channels.
    pub id: u64,
    /// The label, usually empty.
    pub name: EventName,
    /// The content: any bytes.
    pub data: Box<[u8]>,
    /// Further pairs of a key and a text, nearly always none.
    pub attributes: Option<Box<Attributes>>,
}

impl Message {
    /// The channels of the message that a reader of the channels `readable` may see. Only readers of its channel get a message of
    /// one channel, so in this case `readable` is not searched.
    pub fn visible<'a>(
        &'a self,
        readable: &'a [ChannelName],
    ) -> impl Iterator<Item = &'a ChannelName> {
        let is_single = self.channels.len() == 1;
        let channels = self.channels.iter();
        channels.filter(move |channel| is_single || readable.contains(channel))
    }

    /// Appends the message as one JSON object:
    /// `{"channel":"news","id":1763690000123456,"name":"","data":"…"}`. Data that is not UTF-8 is base64 and
    /// `"encoding":"base64"` follows it. `readable` has the reader's channels: see [`Message::visible`]. If several are visible,
    /// the field `channels` lists them. Attributes, if there are any, are the field `attributes`.
    ///
    /// A message of a channel's presence is `{"presence":{…},"id":1763690000123456}`: its data is that object.
    pub fn write_json(&self, readable: &[ChannelName], out: &mut Vec<u8>) {
        if self.channels[0].presence_of().is_some() {
            return self.write_presence(out);
        }
        self.write_json_head(readable, out);
        match str::from_utf8(&self.data) {
            Ok(text) => write_json(text, out),
            Err(_) => {
                write_json(&STANDARD.encode(&self.data), out);
                out.extend_from_slice(b",\"encoding\":\"base64\"");
            }
        }
        out.push(b'}');
    }

    fn write_presence(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"presence\":");
        out.extend_from_slice(&self.data);
        out.extend_from_slice(format!(",\"id\":{}}}", self.id).as_bytes());
    }

    /// Appends the fields before the data.
    fn write_json_head(&self, readable: &[ChannelName], out: &mut Vec<u8>) {
        let mut visible = self.visible(readable);
        out.extend_from_slice(b"{\"channel\":");
        write_json(visible.next().map_or("", ChannelName::as_str), out);
        if visible.next().is_some() {
            let names: Vec<&str> = self.visible(readable).map(|name| &**name).collect();
            out.extend_from_slice(b",\"channels\":");
            write_json(&names, out);
        }
        out.extend_from_slice(format!(",\"id\":{},\"name\":", self.id).as_bytes());
        write_json(self.name.as_str(), out);
        if let Some(attributes) = &self.attributes {
            out.extend_from_slice(b",\"attributes\":");
            write_json(attributes, out);
        }
        out.extend_from_slice(b",\"data\":");
    }
}

/// Maximum number of bytes of a message's data in one piece.
const PIECE: usize = 16 * 1024;

/// Writes the same JSON as [`Message::write_json`], but in pieces, so that a connection to a slow client buffers only one
/// piece. Escaping makes a piece at most six times as large.
#[derive(Debug)]
pub struct JsonPieces {
    message: Arc<Message>,
    /// The channels that the reader is told of, if the message has several.
    visible: Box<[ChannelName]>,
    is_text: bool,
    /// The end of the data that is already written.
    written: usize,
}

impl JsonPieces {
    /// Starts to write a message for a reader of the channels `readable`.
    #[must_use]
    pub fn new(message: Arc<Message>, readable: &[ChannelName]) -> Self {
        let visible = match message.channels.len() {
            1 => Box::default(),
            _ => message.visible(readable).cloned().collect(),
        };
        let is_text = message.data.len() > PIECE && str::from_utf8(&message.data).is_ok();
        Self {
            message,
            visible,
            is_text,
            written: 0,
        }
    }

    /// Appends the next piece. Returns true when the message is complete.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let data = &self.message.data;
        if data.len() <= PIECE {
            self.message.write_json(&self.visible, out);
            return true;
        }
        if self.written == 0 {
            self.message.write_json_head(&self.visible, out);
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

fn write_json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("strings have a JSON form and a Vec takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> ChannelNames {
        ChannelNames::parse(names.iter().copied()).unwrap()
    }

    fn message(channels: &[&str], data: &[u8]) -> Message {
        Message {
            channels: names(channels),
            id: 1_763_690_000_123_456,
            name: EventName::parse("a\"b").unwrap(),
            data: data.into(),
            attributes: None,
        }
    }

    fn json(data: &[u8]) -> String {
        written(&message(&["news"], data), &["news"])
    }

    fn written(message: &Message, readable: &[&str]) -> String {
        let mut out = Vec::new();
        message.write_json(&names(readable), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn attributes_cost_one_pointer_and_a_list_of_channels_nothing() {
        let pointer = size_of::<usize>();
        let others = size_of::<(ChannelName, u64, EventName, Box<[u8]>)>();
        assert_eq!(size_of::<Message>(), others + pointer);
    }

    #[test]
    fn a_reader_is_told_of_no_channel_but_its_own() {
        let message = message(&["b", "a", "c"], b"x");
        let rest = r#""id":1763690000123456,"name":"a\"b","data":"x"}"#;
        let cases = [
            (&["a"][..], r#""channel":"a","#),
            (&["c", "other"], r#""channel":"c","#),
            (&["a", "b"], r#""channel":"b","channels":["b","a"],"#),
        ];
        for (readable, channels) in cases {
            assert_eq!(written(&message, readable), format!("{{{channels}{rest}"));
        }
    }

    #[test]
    fn attributes_are_written_where_there_are_some() {
        let attributes = Attributes::parse(&[("b", "\"é\n"), ("a", "")]).unwrap();
        let message = Message {
            attributes,
            ..message(&["news"], b"x")
        };
        assert_eq!(
            written(&message, &["news"]),
            r#"{"channel":"news","id":1763690000123456,"name":"a\"b","attributes":{"a":"","b":"\"é\n"},"data":"x"}"#
        );
    }

    #[test]
    fn a_presence_message_is_written_as_an_object() {
        let presence = ChannelName::parse("news").unwrap().presence().unwrap();
        let message = Message {
            channels: presence.into(),
            ..message(&["news"], br#"{"channel":"news","count":3}"#)
        };
        assert_eq!(
            written(&message, &["news"]),
            r#"{"presence":{"channel":"news","count":3},"id":1763690000123456}"#
        );
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
                attributes: Attributes::parse(&[("k", "v")]).unwrap(),
                ..message(&["news", "secret", "also"], &data)
            });
            let readable = names(&["also", "news"]);
            let (mut whole, mut pieces) = (Vec::new(), Vec::new());
            message.write_json(&readable, &mut whole);
            let mut writing = JsonPieces::new(message, &readable);
            loop {
                let before = pieces.len();
                let complete = writing.write_next(&mut pieces);
                assert!(pieces.len() - before <= 6 * PIECE + 200);
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

//! What was published once, and its JSON.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{ChannelName, EventName};

/// What was published once. Never changed after the hub has numbered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub channel: ChannelName,
    /// Its number: microseconds since the Unix epoch, strictly increasing over all channels.
    pub id: u64,
    /// Its label, usually empty.
    pub name: EventName,
    /// Its content: any bytes.
    pub data: Box<[u8]>,
}

impl Message {
    /// Appends the message as one JSON object:
    /// `{"channel":"news","id":1763690000123456,"name":"","data":"…"}`. Data that is not UTF-8 is base64 and
    /// `"encoding":"base64"` follows it.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"channel\":");
        write_json_string(&self.channel, out);
        out.extend_from_slice(format!(",\"id\":{},\"name\":", self.id).as_bytes());
        write_json_string(self.name.as_str(), out);
        out.extend_from_slice(b",\"data\":");
        match str::from_utf8(&self.data) {
            Ok(text) => write_json_string(text, out),
            Err(_) => {
                write_json_string(&STANDARD.encode(&self.data), out);
                out.extend_from_slice(b",\"encoding\":\"base64\"");
            }
        }
        out.push(b'}');
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
    fn writes_other_bytes_as_base64() {
        assert_eq!(
            json(b"\xff\x00"),
            r#"{"channel":"news","id":1763690000123456,"name":"a\"b","data":"/wA=","encoding":"base64"}"#
        );
    }
}

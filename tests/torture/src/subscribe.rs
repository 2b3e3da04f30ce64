//! One connection of a subscriber: it asks for messages after its cursor, and reports each message and gap as it
//! arrives.
//!
//! Only reported messages move the cursor. So messages that a cut took away have to be delivered again.

mod iframe;
mod poll;
mod sse;
mod websocket;

use std::io::BufReader;

use serde_json::Value;

use crate::{
    http::Trouble,
    stamp::Stamp,
    target::{Kind, Target, Transport},
    wire::Wire,
};

/// The position of the last message that a client saw, in the server's own format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cursor {
    /// The client has seen nothing yet.
    #[default]
    None,
    /// An id.
    Id(String),
    /// HTTP validators: the `Last-Modified` date and the `ETag`.
    Validators { modified: String, tag: String },
}

/// What a server reported to a subscriber.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Message {
        id: Option<u64>,
        stamp: Stamp,
    },
    /// Messages may be missing at this place.
    Gap,
    /// The message was not published by the checker, or was changed.
    Damaged(String),
}

/// The data that a connection of a subscriber needs.
pub struct Session<'a> {
    pub target: &'a Target,
    pub channels: &'a [String],
    pub cursor: &'a mut Cursor,
    pub tell: &'a mut dyn FnMut(News),
}

type Reader = BufReader<Wire>;

/// Listens until the connection ends for any reason.
pub fn listen(transport: Transport, wire: Wire, session: &mut Session<'_>) -> Result<(), Trouble> {
    let mut reader = BufReader::new(wire);
    match transport {
        Transport::Poll => poll::listen(&mut reader, session),
        Transport::Sse => sse::listen(&mut reader, session),
        Transport::Websocket => websocket::listen(&mut reader, session),
        Transport::Iframe => iframe::listen(&mut reader, session),
    }
}

impl Session<'_> {
    /// The cursor as a query parameter, for transports that have no header for it.
    fn query(&self) -> String {
        match (self.target.kind, &*self.cursor) {
            (Kind::Comet, Cursor::Id(id)) => format!("since={id}"),
            (_, Cursor::Id(id)) => format!("last_event_id={id}"),
            _ => String::new(),
        }
    }

    fn send(&self, reader: &mut Reader, transport: Transport, fields: &str) -> Result<(), Trouble> {
        let query = match transport {
            Transport::Sse => String::new(),
            _ => self.query(),
        };
        let request = self.target.get(transport, self.channels, &query, fields);
        Ok(reader.get_mut().send(request.as_bytes())?)
    }

    /// Reports one message in Comet's JSON format. Returns its id.
    fn message(&mut self, json: &Value) -> Option<u64> {
        let id = json["id"].as_u64();
        let data = json["data"].as_str().unwrap_or_default();
        self.data(id, data, json["channel"].as_str());
        id
    }

    /// Reports the message in `data`.
    fn data(&mut self, id: Option<u64>, data: &str, channel: Option<&str>) {
        let ours = channel.is_none_or(|channel| self.channels.iter().any(|c| c == channel));
        let news = match Stamp::read(data) {
            Ok(stamp) if ours => News::Message { id, stamp },
            _ => News::Damaged(data.chars().take(200).collect()),
        };
        (self.tell)(news);
    }

    /// Reads one JSON text of Comet's streams: a message or a gap.
    fn json(&mut self, text: &str) -> Result<(), Trouble> {
        let json: Value = serde_json::from_str(text).map_err(|_| nonsense(text))?;
        if json["gap"] == true {
            (self.tell)(News::Gap);
            let cursor = json["cursor"].as_str().ok_or_else(|| nonsense(text))?;
            *self.cursor = Cursor::Id(cursor.into());
        } else if json["id"].is_null() && json["retry"].is_u64() {
            // The daemon stops, and asks clients to come back after some time. This client comes back at once.
        } else {
            let id = self.message(&json).ok_or_else(|| nonsense(text))?;
            *self.cursor = Cursor::Id(id.to_string());
        }
        Ok(())
    }
}

fn nonsense(text: &str) -> Trouble {
    Trouble::Nonsense(text.chars().take(200).collect())
}

/// The error for a refused request.
fn refused(status: u16, text: &str) -> Trouble {
    Trouble::Refused(status, text.chars().take(200).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpListener},
        sync::Arc,
        thread,
    };

    use super::*;
    use crate::{random::Random, stage::Stage};

    /// Runs a client against a server that gives this response. Returns what the client reported, its cursor, and its
    /// first request.
    pub(crate) fn told(
        kind: Kind,
        transport: Transport,
        cursor: Cursor,
        answer: impl AsRef<[u8]>,
    ) -> (Vec<News>, Cursor, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let answer = answer.as_ref().to_owned();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(&answer).unwrap();
            String::from_utf8(request).unwrap()
        });
        let (mut cursor, mut news) = (cursor, Vec::new());
        let wire = Wire::connect(addr, Arc::new(Stage::default()), Random::new(1, "")).unwrap();
        let mut session = Session {
            target: &Target::new(kind, addr),
            channels: &["news".to_owned()],
            cursor: &mut cursor,
            tell: &mut |told| news.push(told),
        };
        let _ = listen(transport, wire, &mut session);
        (news, cursor, server.join().unwrap())
    }

    pub(crate) fn stamp(number: u32) -> Stamp {
        Stamp {
            run: 1,
            publisher: 2,
            number,
        }
    }

    /// A message in Comet's JSON format.
    pub(crate) fn json(id: u64, number: u32) -> String {
        let data = stamp(number).text(50);
        format!(r#"{{"channel":"news","id":{id},"name":"","data":"{data}"}}"#)
    }

    pub(crate) fn message(id: Option<u64>, number: u32) -> News {
        let stamp = stamp(number);
        News::Message { id, stamp }
    }
}

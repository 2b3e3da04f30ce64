//! Where a stream is requested, and the format in which its messages arrive.

use std::net::SocketAddr;

use super::{message::StreamedMessage, websocket};
use crate::kind::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Sse,
    WebSocket,
    /// Comet's session: a WebSocket whose client subscribes after the handshake.
    Session,
}

impl Transport {
    /// The name in the table.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Sse => "SSE",
            Self::WebSocket => "WebSocket",
            Self::Session => "session",
        }
    }

    pub(super) fn is_websocket(self) -> bool {
        self != Self::Sse
    }
}

/// One channel of one server.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) transport: Transport,
    /// New streams that may wait for their response heads at the same time.
    pub(super) at_once: usize,
    /// The path of the URL, up to the first channel.
    path: String,
    channel: String,
    query: &'static str,
    /// The number of channels that each stream has for itself, beside the one that all streams have.
    own_channels: usize,
    /// The number of further channels that all streams have.
    shared_channels: usize,
    /// The beginning of the JSON object that Comet puts around the data, up to the id. `None`: the data arrives without
    /// an object.
    envelope: Option<String>,
}

/// The meaning of an event's data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Message(StreamedMessage),
    Gap,
    Foreign,
}

/// Headers that a browser sends beside the request line and `Host`. Only their size matters here.
const HEADERS: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept-Language: en-GB,en;q=0.8,de;q=0.5,fr;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Cookie: session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=necessary\r\nDNT: 1\r\n\
    Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n";

impl Target {
    pub(crate) fn new(kind: Kind, addr: SocketAddr, channel: &str, transport: Transport) -> Self {
        let (path, query) = match (kind, transport) {
            (Kind::Comet | Kind::Floor, Transport::Sse) => (format!("/ch/{channel}"), "?as=sse"),
            (Kind::Comet | Kind::Floor, Transport::WebSocket) => (format!("/ch/{channel}"), ""),
            (_, Transport::Session) => ("/session".to_owned(), ""),
            (_, Transport::Sse) => (format!("/sse/{channel}"), ""),
            (_, Transport::WebSocket) => (format!("/ws/{channel}"), ""),
        };
        let wraps = matches!(kind, Kind::Comet | Kind::Floor);
        Self {
            addr,
            transport,
            at_once: match kind {
                // Pushpin asks its origin about each stream, which takes 2 ms of CPU, and refuses some of many
                // simultaneous streams.
                Kind::Pushpin => 8,
                // Fewer than the backlog of any server's listener.
                _ => 256,
            },
            path,
            channel: channel.to_owned(),
            query,
            own_channels: 0,
            shared_channels: 0,
            envelope: wraps.then(|| format!("{{\"channel\":\"{channel}\",\"id\":")),
        }
    }

    /// Gives each stream so many channels of its own. Nothing is published in them.
    pub(crate) fn with_own_channels(mut self, count: usize) -> Self {
        self.own_channels = count;
        self
    }

    /// Gives all streams so many further channels. Nothing is published in them.
    pub(crate) fn with_shared_channels(mut self, count: usize) -> Self {
        self.shared_channels = count;
        self
    }

    /// The channels of a stream beside the one in which messages are published.
    fn other_channels(&self, number: usize) -> impl Iterator<Item = String> {
        let shared = (0..self.shared_channels).map(|channel| format!("shared:{channel}"));
        let own = (0..self.own_channels).map(move |channel| format!("stream:{number}:{channel}"));
        shared.chain(own)
    }

    /// What the stream with this number sends when it has the response head: a session's frame that subscribes.
    pub(super) fn subscribe(&self, number: usize) -> Option<Vec<u8>> {
        let names: Vec<String> = std::iter::once(self.channel.clone())
            .chain(self.other_channels(number))
            .collect();
        let text = serde_json::json!({"op": "subscribe", "channels": names}).to_string();
        (self.transport == Transport::Session).then(|| websocket::text(&text))
    }

    /// Whether this is the answer to [`Target::subscribe`].
    pub(super) fn is_subscribed(&self, data: &[u8]) -> bool {
        self.transport == Transport::Session && data == b"{\"ok\":true}"
    }

    /// The request of the stream with this number.
    pub(super) fn request(&self, number: usize) -> String {
        let special = match self.transport {
            Transport::Sse => "Accept: text/event-stream\r\nConnection: keep-alive\r\n".into(),
            Transport::WebSocket | Transport::Session => format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
                websocket::KEY
            ),
        };
        let mut path = self.path.clone();
        if self.transport != Transport::Session {
            path.extend(self.other_channels(number).map(|name| format!(",{name}")));
        }
        path += self.query;
        let addr = self.addr;
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n{special}{HEADERS}\r\n")
    }

    pub(super) fn read(&self, data: &[u8]) -> Content {
        let message = match &self.envelope {
            None => StreamedMessage::read(data),
            Some(_) if data.starts_with(b"{\"gap\":true") => return Content::Gap,
            Some(envelope) => unwrap(data, envelope).and_then(StreamedMessage::read),
        };
        message.map_or(Content::Foreign, Content::Message)
    }
}

/// Takes the data out of Comet's JSON object. `None`: the object is not as expected.
fn unwrap<'a>(json: &'a [u8], envelope: &str) -> Option<&'a [u8]> {
    let id = json.strip_prefix(envelope.as_bytes())?;
    let digits = id.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let data = id[digits..].strip_prefix(b",\"name\":\"\",\"data\":\"")?;
    data.strip_suffix(b"\"}").filter(|_| digits > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_asks_for_its_own_channels() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let target = Target::new(Kind::Comet, addr, "news", Transport::Sse);
        let line = |target: &Target| target.request(7).split_once("\r\n").unwrap().0.to_owned();
        assert_eq!(line(&target), "GET /ch/news?as=sse HTTP/1.1");
        let target = target.with_own_channels(2);
        let expected = "GET /ch/news,stream:7:0,stream:7:1?as=sse HTTP/1.1";
        assert_eq!(line(&target), expected);
    }

    #[test]
    fn a_session_subscribes_after_its_handshake() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let target = Target::new(Kind::Comet, addr, "news", Transport::Session);
        let target = target.with_shared_channels(1).with_own_channels(1);
        assert!(target.request(7).starts_with("GET /session HTTP/1.1\r\n"));
        let frame = target.subscribe(7).unwrap();
        let text = br#"{"channels":["news","shared:0","stream:7:0"],"op":"subscribe"}"#;
        assert!(
            frame.ends_with(text),
            "{:?}",
            String::from_utf8_lossy(&frame)
        );
        let stream = Target::new(Kind::Comet, addr, "news", Transport::WebSocket);
        assert_eq!(stream.subscribe(7), None);
    }

    #[test]
    fn the_data_is_found_in_its_envelope_and_nowhere_else() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let (run, seq, sent) = (3, 5, 7);
        let message = StreamedMessage { run, seq, sent };
        let data = message.to_string();
        let bare = Target::new(Kind::Nchan, addr, "news", Transport::Sse);
        assert_eq!(bare.read(data.as_bytes()), Content::Message(message));

        let comet = Target::new(Kind::Comet, addr, "news", Transport::Sse);
        let json = |channel, id, name| {
            format!(
                "{{\"channel\":\"{channel}\",\"id\":{id},\"name\":\"{name}\",\"data\":\"{data}\"}}"
            )
        };
        let read = |json: &str| comet.read(json.as_bytes());
        assert_eq!(read(&json("news", "17", "")), Content::Message(message));
        for foreign in [
            json("new", "17", ""),
            json("news", "", ""),
            json("news", "1", "x"),
            data.clone(),
        ] {
            assert_eq!(read(&foreign), Content::Foreign, "{foreign}");
        }
        assert_eq!(read("{\"gap\":true,\"cursor\":\"1\"}"), Content::Gap);
    }
}

//! The server under test, its protocol, and the paths of its channels.

use std::{fmt, net::SocketAddr, path::PathBuf};

use clap::ValueEnum;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Comet's HTTP: docs/protocol.md
    Comet,
    /// nchan's long-poll (Last-Modified and Etag), SSE, and WebSocket with ws+meta.nchan
    Nchan,
    /// Any server of event streams that resumes by Last-Event-ID, and is published to by POST
    Sse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Transport {
    Poll,
    Sse,
    Websocket,
    Iframe,
}

impl Kind {
    #[must_use]
    pub fn transports(self) -> &'static [Transport] {
        use Transport::{Iframe, Poll, Sse, Websocket};
        match self {
            Self::Comet => &[Poll, Sse, Websocket, Iframe],
            Self::Nchan => &[Poll, Sse, Websocket],
            Self::Sse => &[Sse],
        }
    }

    /// Whether one connection may listen to several channels.
    #[must_use]
    pub fn many_channels(self) -> bool {
        self == Self::Comet
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Comet => "Comet",
            Self::Nchan => "nchan",
            Self::Sse => "SSE",
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Poll => "long-poll",
            Self::Sse => "SSE",
            Self::Websocket => "WebSocket",
            Self::Iframe => "iframe",
        })
    }
}

/// One server. `{}` in a path stands for the channel.
#[derive(Debug, Clone)]
pub struct Target {
    pub kind: Kind,
    pub addr: SocketAddr,
    pub poll: String,
    pub sse: String,
    pub websocket: String,
    pub iframe: String,
    pub publish: String,
    /// Header lines for every request, each with its line end.
    pub fields: String,
    /// Path of Comet's Unix socket.
    pub socket: Option<PathBuf>,
}

impl Target {
    /// Creates a target with the usual paths of this kind of server.
    #[must_use]
    pub fn new(kind: Kind, addr: SocketAddr) -> Self {
        let [poll, sse, websocket, iframe, publish] = match kind {
            Kind::Comet => [
                "/ch/{}?wait=5",
                "/ch/{}?as=sse",
                "/ch/{}?as=websocket",
                "/ch/{}?as=iframe&callback=comet.show",
                "/ch/{}",
            ],
            Kind::Nchan | Kind::Sse => ["/sub/{}", "/sse/{}", "/ws/{}", "", "/pub/{}"],
        };
        Self {
            kind,
            addr,
            poll: poll.into(),
            sse: sse.into(),
            websocket: websocket.into(),
            iframe: iframe.into(),
            publish: publish.into(),
            fields: String::new(),
            socket: None,
        }
    }

    /// Creates a target with the default paths of Comet's `[compat.nchan]`.
    #[must_use]
    pub fn nchan_of_comet(addr: SocketAddr) -> Self {
        let subscribe = || "/nchan/sub/{}".to_owned();
        Self {
            poll: subscribe(),
            sse: subscribe(),
            websocket: subscribe(),
            publish: "/nchan/pub/{}".into(),
            ..Self::new(Kind::Nchan, addr)
        }
    }

    fn path(&self, transport: Transport) -> &str {
        match transport {
            Transport::Poll => &self.poll,
            Transport::Sse => &self.sse,
            Transport::Websocket => &self.websocket,
            Transport::Iframe => &self.iframe,
        }
    }

    /// A GET for a transport. `query` follows the path, and the further lines follow the headers.
    pub(crate) fn get(
        &self,
        transport: Transport,
        channels: &[String],
        query: &str,
        fields: &str,
    ) -> String {
        let path = self.path(transport).replace("{}", &channels.join(","));
        let mark = match query {
            "" => "",
            _ if path.contains('?') => "&",
            _ => "?",
        };
        let (addr, own) = (self.addr, &self.fields);
        format!("GET {path}{mark}{query} HTTP/1.1\r\nHost: {addr}\r\n{own}{fields}\r\n")
    }

    /// A publish. It has a key if the server supports keys.
    pub(crate) fn post(&self, channel: &str, data: &str, key: &str) -> String {
        let path = self.publish.replace("{}", channel);
        let key = match self.kind {
            Kind::Comet => format!("Idempotency-Key: {key}\r\n"),
            Kind::Nchan | Kind::Sse => String::new(),
        };
        let (addr, own, length) = (self.addr, &self.fields, data.len());
        format!(
            "POST {path} HTTP/1.1\r\nHost: {addr}\r\n{own}{key}Content-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{data}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_added_to_any_path() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 80));
        let names = ["a".to_owned(), "b".to_owned()];
        let first = |kind, transport| {
            let text = Target::new(kind, addr).get(transport, &names, "since=1", "");
            text.lines().next().unwrap().to_owned()
        };
        let comet = first(Kind::Comet, Transport::Poll);
        assert_eq!(comet, "GET /ch/a,b?wait=5&since=1 HTTP/1.1");
        let nchan = first(Kind::Nchan, Transport::Websocket);
        assert_eq!(nchan, "GET /ws/a,b?since=1 HTTP/1.1");
    }
}

//! Heads of answers: for hyper to write, and as bytes for connections that have left hyper.

use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use comet_proto::Cursor;
use hyper::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use super::{
    Current, Site,
    cors::{Cors, Origins, add_cors, cors_headers},
    framing::without_line_ends,
    media::Accepted,
    memory,
    router::ForWhom,
};
use crate::{
    hub::Backlog,
    transport::{Format, Shape, Upgrade, sse::EVENT_STREAM},
};

/// Why a request is not answered as it wished: `{"error":"code","message":"…"}`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// The part of the request that was wrong.
    code: &'static str,
    message: String,
    /// Headers that say what would be right.
    hints: Vec<(HeaderName, &'static str)>,
    /// Whose page asked, where that was read from the bytes of a request.
    origin: Option<String>,
    for_whom: ForWhom,
    /// `HEAD`, whose answer has no body.
    for_head: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hints: Vec::new(),
            origin: None,
            for_whom: ForWhom::Other,
            for_head: false,
        }
    }

    pub(crate) fn bad(code: &'static str, error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.hints.push((name, value));
        self
    }

    /// There is no memory left for what the request takes.
    pub(crate) fn no_memory() -> Self {
        let message = "connections take all the memory they may; try again later";
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "memory", message);
        refusal.with(header::RETRY_AFTER, BUSY)
    }

    pub(crate) fn into_answer(self) -> Response<Bytes> {
        match self.for_whom {
            ForWhom::EventSource if self.is_passing() => return self.into_event_stream(),
            ForWhom::NovComet(body) if self.is_passing() => {
                return answer(StatusCode::OK, "application/json", body);
            }
            _ => {}
        }
        let body = serde_json::json!({"error": self.code, "message": self.message});
        let mut answer = answer(self.status, "application/json", format!("{body}\n"));
        for (name, value) in self.hints {
            let value = HeaderValue::from_static(value);
            answer.headers_mut().insert(name, value);
        }
        answer
    }

    /// The same request may be served a little later.
    fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 503)
    }

    /// An event stream that says when to come back, and why, and ends. A browser's EventSource gives up for good on
    /// anything but a 200 of this type (HTML standard, section 9.2.3).
    fn into_event_stream(self) -> Response<Bytes> {
        let mut hints = self.hints.iter();
        let hint = hints.find(|(name, _)| name == header::RETRY_AFTER);
        let seconds = hint.map_or(BUSY, |(_, seconds)| seconds);
        let body = format!("retry: {seconds}000\n: {}\n\n", self.message);
        answer(StatusCode::OK, EVENT_STREAM, body)
    }
}

impl Refusal {
    /// Notes what the answer depends on in the request that begins with `input`: the origin of its page, so that the
    /// page may read why it is refused; whether an event stream is asked for; and whether the answer has a body.
    pub(crate) fn asked_by(mut self, site: &Site, input: &[u8]) -> Self {
        let mut lines = without_line_ends(input).split(|&byte| byte == b'\n');
        let request = lines.next().and_then(|line| str::from_utf8(line).ok());
        let mut accepted = Accepted::default();
        for line in lines.take_while(|line| !line.trim_ascii().is_empty()) {
            let mut parts = line.splitn(2, |&byte| byte == b':');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                continue;
            };
            if name.eq_ignore_ascii_case(b"accept") {
                accepted.add(value.trim_ascii());
            } else if name.eq_ignore_ascii_case(b"origin") {
                let value = str::from_utf8(value).ok();
                self.origin = value.map(|value| value.trim().to_owned());
            }
        }
        let mut words = request.unwrap_or_default().split(' ');
        let (method, url) = (words.next().unwrap_or_default(), words.next());
        self.for_head = method == "HEAD";
        self.for_whom = ForWhom::of(site, method, url.unwrap_or_default(), &accepted);
        self
    }

    /// The same of a request that was read.
    pub(crate) fn to(mut self, site: &Site, head: &Parts) -> Self {
        let url = head.uri.path_and_query().map(|url| url.as_str());
        let (method, accepted) = (head.method.as_str(), Accepted::of(&head.headers));
        self.for_head = head.method == Method::HEAD;
        self.for_whom = ForWhom::of(site, method, url.unwrap_or_default(), &accepted);
        self
    }

    /// The whole answer for a client whose request is not served. The connection closes after it.
    pub(crate) fn into_bytes(mut self, origins: &Origins) -> Bytes {
        let (origin, is_head) = (self.origin.take(), self.for_head);
        let cors = origin.map_or(Cors::None, |origin| origins.of(&origin));
        let mut answer = self.into_answer();
        add_cors(answer.headers_mut(), cors, origins);
        let (status, length) = (answer.status(), answer.body().len());
        let mut out = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n").into_bytes();
        for (name, value) in answer.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"connection: close\r\n\r\n");
        if !is_head {
            out.extend_from_slice(answer.body());
        }
        out.into()
    }
}

/// An answer that no proxy and no browser keeps.
pub(crate) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in LIVE_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The cursor of a poll's answer, as an entity tag.
pub(crate) fn add_etag(headers: &mut HeaderMap, cursor: Cursor) {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{cursor}\"")) {
        headers.insert(header::ETAG, tag);
    }
}

/// What keeps proxies from buffering, compressing and caching, and browsers from guessing.
const LIVE_HEADERS: [(&str, &str); 3] = [
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),
    ("x-content-type-options", "nosniff"),
];

/// How answers to the same question differ between connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    /// The connection closes after the answer.
    pub(crate) close: bool,
    /// HTTP/1.1: a stream is sent in chunks (RFC 9112, section 7.1). Before, it ends with the connection.
    pub(crate) chunked: bool,
    pub(crate) cors: Cors,
}

impl Variant {
    /// Numbers what the bytes of a shared answer depend on.
    pub(crate) fn form(self, format: &dyn Format) -> Option<u32> {
        let cors = match self.cors {
            Cors::None => 0,
            Cors::Any => 1,
            Cors::Origin(index) => 2 + u32::from(index),
        };
        let bits = u32::from(self.close) | u32::from(self.chunked) << 1;
        format
            .form()
            .map(|form| u32::from(form) | bits << 8 | cors << 10)
    }
}

/// Writes answers for connections that have left hyper.
pub(crate) struct Writer<'a> {
    pub(crate) format: &'a dyn Format,
    pub(crate) variant: Variant,
    pub(crate) site: Current,
    pub(crate) date: &'a DateLine,
}

impl Writer<'_> {
    /// The whole answer of a poll, or the next piece of a stream.
    pub(crate) fn backlog(&self, backlog: &Backlog) -> Bytes {
        let mut body = Vec::new();
        self.format.backlog(backlog, &mut body);
        self.framed(200, backlog.cursor, body)
    }

    /// The answer of a poll that waited in vain, or a stream's sign of life.
    pub(crate) fn nothing(&self, cursor: Cursor) -> Bytes {
        let mut body = Vec::new();
        self.format.nothing(cursor, &mut body);
        self.framed(200, cursor, body)
    }

    /// What a waiting client gets when the daemon stops; ends a stream.
    pub(crate) fn farewell(&self, backlog: &Backlog, retry: Duration) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.farewell(backlog, retry, &mut body);
        self.ended(status, backlog.cursor, body)
    }

    /// What a waiting client gets when its token expires; ends a stream.
    pub(crate) fn expired(&self, cursor: Cursor) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.expired(cursor, &mut body);
        self.ended(status, cursor, body)
    }

    /// What a waiting client gets that sends nothing any more; ends a stream.
    pub(crate) fn half_closed(&self, backlog: &Backlog) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.half_closed(backlog, &mut body);
        self.ended(status, backlog.cursor, body)
    }

    fn ended(&self, status: u16, cursor: Cursor, body: Vec<u8>) -> Bytes {
        let mut bytes = self.framed(status, cursor, body).to_vec();
        if self.variant.chunked && matches!(self.format.shape(), Shape::Stream { .. }) {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        memory::keep(bytes)
    }

    /// A stream's head and what it begins with.
    pub(crate) fn opening(&self, cursor: Cursor) -> Bytes {
        let mut out = match self.format.upgrade() {
            Some(upgrade) => switching_protocols(&upgrade),
            None => self.head(200, None, None),
        };
        let mut body = Vec::new();
        self.format.opening(cursor, &mut body);
        self.chunk(&body, &mut out);
        out.into()
    }

    fn framed(&self, status: u16, cursor: Cursor, body: Vec<u8>) -> Bytes {
        let mut out = match self.format.shape() {
            Shape::Poll => {
                let mut out = self.head(status, Some(body.len()), Some(cursor));
                out.extend_from_slice(&body);
                return memory::keep(out);
            }
            Shape::Stream { .. } => Vec::with_capacity(body.len() + 16),
        };
        self.chunk(&body, &mut out);
        memory::keep(out)
    }

    fn chunk(&self, body: &[u8], out: &mut Vec<u8>) {
        if self.variant.chunked && !body.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(body); // an empty chunk would end the stream
        }
    }

    fn head(&self, status: u16, length: Option<usize>, cursor: Option<Cursor>) -> Vec<u8> {
        let head = Head {
            status: match status {
                200 => "200 OK",
                401 => UNAUTHORIZED,
                _ => UNAVAILABLE,
            },
            content_type: self.format.content_type(),
            variant: self.variant,
            origins: &self.site.origins,
            date: self.date,
        };
        head.write(length, cursor.filter(|_| self.format.has_etag()))
    }
}

/// The challenge to a token that is not valid, or no longer valid (RFC 6750, section 3).
pub(crate) const INVALID_TOKEN: &str = "Bearer realm=\"comet\", error=\"invalid_token\"";

const UNAUTHORIZED: &str = "401 Unauthorized";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// When a client may come back that was told nothing but 503, in seconds.
pub(crate) const RETRY: &str = "1";

/// When it may come back to a daemon that has no room, in seconds.
pub(crate) const BUSY: &str = "5";

/// The head of an answer that hyper does not write.
pub(crate) struct Head<'a> {
    pub(crate) status: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) variant: Variant,
    pub(crate) origins: &'a Origins,
    pub(crate) date: &'a DateLine,
}

impl Head<'_> {
    pub(crate) fn with_body(&self, body: &str) -> Vec<u8> {
        let mut out = self.write(Some(body.len()), None);
        out.extend_from_slice(body.as_bytes());
        out
    }

    /// Without `length` the body is a stream.
    fn write(&self, length: Option<usize>, tag: Option<Cursor>) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        for part in ["HTTP/1.1 ", self.status, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        line("content-type", self.content_type);
        for (name, value) in LIVE_HEADERS {
            line(name, value);
        }
        if self.status == UNAUTHORIZED {
            line("www-authenticate", INVALID_TOKEN);
        }
        if self.status == UNAVAILABLE {
            line("retry-after", RETRY);
        }
        if let Some(length) = length {
            line("content-length", &length.to_string());
        } else if self.variant.chunked {
            line("transfer-encoding", "chunked");
        }
        if let Some(cursor) = tag {
            line("etag", &format!("\"{cursor}\""));
        }
        for (name, value) in cors_headers(self.variant.cors, self.origins) {
            line(name, value);
        }
        if self.variant.close {
            line("connection", "close");
        }
        self.date.with(|date| line("date", date));
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// RFC 6455, section 4.2.2.
fn switching_protocols(upgrade: &Upgrade<'_>) -> Vec<u8> {
    let mut head =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            .to_owned();
    head += &format!("sec-websocket-accept: {}\r\n", upgrade.accept);
    if let Some(protocol) = upgrade.protocol {
        head += &format!("sec-websocket-protocol: {protocol}\r\n");
    }
    head += "\r\n";
    head.into()
}

/// HTTP/1.0 clients and those that ask for it get a closed connection after the answer.
pub(crate) fn wants_close(version: Version, headers: &HeaderMap) -> bool {
    let asked = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let close = asked
        .flat_map(|value| value.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case("close"));
    version < Version::HTTP_11 || close
}

/// The `Date` of now, made once a second.
#[derive(Default)]
pub(crate) struct DateLine {
    second: Cell<u64>,
    text: RefCell<String>,
}

impl DateLine {
    pub(crate) fn refresh(&self) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.second.replace(second) != second {
            // In its place: a new block each second is now and then the one at the end of a heap, which keeps it large.
            let text = &mut *self.text.borrow_mut();
            text.clear();
            let _ = write!(text, "{}", httpdate::HttpDate::from(now)); // a string takes everything
        }
    }

    fn with(&self, write: impl FnOnce(&str)) {
        if self.second.get() == 0 {
            self.refresh();
        }
        write(&self.text.borrow());
    }
}

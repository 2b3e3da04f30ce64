//! Finds the end of one request among the bytes of a connection (RFC 9112, sections 2.2, 6 and 7.1). The rules are
//! stricter than the standard: a request that a proxy in front could read differently is refused. hyper gets only the
//! bytes of one request.

use httparse::{EMPTY_HEADER, Error, Status};
use hyper::header;
use memchr::memchr_iter;

use super::chunks::Chunks;

/// The largest number of headers, which is also hyper's limit.
const MAX_HEADERS: usize = 100;

/// Why a request is refused and its connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    #[error("{0}")]
    Syntax(Error),
    #[error("lines must end with CR LF, not with LF alone")]
    BareLf,
    #[error("Host must be there once")]
    Host,
    #[error("Content-Length must be there once, in digits alone")]
    Length,
    #[error("Transfer-Encoding must be \"chunked\", once, in HTTP/1.1")]
    Encoding,
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    TwoLengths,
    #[error("a chunk must begin with its size, 1 to 16 hexadecimal digits")]
    ChunkSize,
    #[error("a chunk must end with CR LF where its size says")]
    ChunkEnd,
    #[error("chunk extensions and trailers may be visible ASCII, 4096 bytes together")]
    ChunkExtra,
}

/// The part of one request that is still to be read.
pub(crate) struct Framing {
    /// Bytes left of the head and of a body of known length.
    left: u64,
    /// The chunked body that follows these bytes.
    chunks: Option<Chunks>,
    /// The length of the head, if the request is a `POST` that announces no body.
    bare_post: Option<usize>,
    is_http_10: bool,
}

impl Framing {
    /// Reads the head that begins `input`. `None`: the head is not complete.
    pub(crate) fn read(input: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(input) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(Error::TooManyHeaders) => return Err(Malformed::TooManyHeaders),
            Err(error) => return Err(Malformed::Syntax(error)),
        };
        if has_bare_lf(&input[..length]) {
            return Err(Malformed::BareLf);
        }
        let headers = request.headers.iter().map(|h| (h.name, h.value));
        let body = body(headers, request.version == Some(1))?;
        let is_length = |header: &httparse::Header<'_>| {
            header
                .name
                .eq_ignore_ascii_case(header::CONTENT_LENGTH.as_str())
        };
        let is_bare = request.method == Some("POST")
            && body == Some(0)
            && !request.headers.iter().any(is_length);
        Ok(Some(Self {
            bare_post: is_bare.then_some(length),
            is_http_10: request.version == Some(0),
            left: length as u64 + body.unwrap_or(0),
            chunks: body.is_none().then(Chunks::default),
        }))
    }

    /// How many of the next bytes belong to the request. If the body is malformed, first returns the head alone, so that the
    /// refusal can depend on the head.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let known = self.known(bytes.len());
        self.left -= known as u64;
        match &mut self.chunks {
            Some(chunks) if known == 0 => chunks.take(bytes),
            _ => Ok(known),
        }
    }

    /// The bytes after the head of a `POST` that announces no body.
    pub(crate) fn behind_bare_post<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        input.get(self.bare_post?..)
    }

    pub(crate) fn is_http_10(&self) -> bool {
        self.is_http_10
    }

    /// How many bytes may be read, at most `room`, without reading beyond the request where its end is known.
    pub(crate) fn room(&self, room: usize) -> usize {
        match self.chunks {
            Some(_) => room,
            None => self.known(room),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left == 0 && self.chunks.as_ref().is_none_or(Chunks::is_over)
    }

    fn known(&self, most: usize) -> usize {
        usize::try_from(self.left).map_or(most, |left| left.min(most))
    }
}

/// Whether a line ends with LF alone. In a head that httparse has accepted, an LF follows each CR.
pub(crate) fn has_bare_lf(head: &[u8]) -> bool {
    memchr_iter(b'\r', head).count() != memchr_iter(b'\n', head).count()
}

/// Methods that may begin a request after a `POST` without a body.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"PATCH ",
    b"DELETE ",
    b"OPTIONS ",
    b"TRACE ",
    b"CONNECT ",
];

/// Whether there are bytes that do not begin a request.
pub(crate) fn is_no_request(bytes: &[u8]) -> bool {
    let bytes = without_line_ends(bytes);
    let begins = |method: &&[u8]| bytes.starts_with(method) || method.starts_with(bytes);
    !METHODS.iter().any(begins)
}

/// Removes empty lines at the start. Empty lines before a request must be ignored (RFC 9112, section 2.2).
pub(crate) fn without_line_ends(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// The length of the body. `None`: the body is chunked.
fn body<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    is_http_11: bool,
) -> Result<Option<u64>, Malformed> {
    let (mut length, mut chunked, mut hosts) = (None, false, 0);
    for (name, value) in headers {
        let is = |known: header::HeaderName| name.eq_ignore_ascii_case(known.as_str());
        if is(header::HOST) {
            hosts += 1;
        } else if is(header::CONTENT_LENGTH) {
            let read = content_length(value).filter(|_| length.is_none());
            length = Some(read.ok_or(Malformed::Length)?);
        } else if is(header::TRANSFER_ENCODING) {
            if chunked || !is_http_11 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Encoding);
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        _ if hosts > 1 => Err(Malformed::Host),
        (Some(_), true) => Err(Malformed::TwoLengths),
        (None, true) => Ok(None),
        (length, false) => Ok(Some(length.unwrap_or(0))),
    }
}

/// Parses `Content-Length`: digits only, and a number below 2^63.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(value).ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let length = digits.parse().ok().filter(|_| is_number);
    length.filter(|length| *length <= u64::MAX / 2)
}

#[cfg(test)]
mod tests;

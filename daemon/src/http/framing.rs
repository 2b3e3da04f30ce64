//! Where one request ends among the bytes of a connection (RFC 9112, sections 2.2, 6 and 7.1), read more strictly than
//! the standard asks for: what a proxy in front could read differently is refused. hyper is given the bytes of one request,
//! and none behind it.

use httparse::{EMPTY_HEADER, Error, Status};
use hyper::header;
use memchr::memchr_iter;

use super::chunks::Chunks;

/// As many as hyper reads.
const MAX_HEADERS: usize = 100;

/// Why the connection ends with this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
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

/// What is left of one request.
pub(super) struct Framing {
    /// Bytes of the head, and of a body of known length.
    left: u64,
    /// What follows these.
    chunks: Option<Chunks>,
}

impl Framing {
    /// Of the request whose head begins `input`. `None`: the head is not complete.
    pub(super) fn read(input: &[u8]) -> Result<Option<Self>, Malformed> {
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
        Ok(Some(Self {
            left: length as u64 + body.unwrap_or(0),
            chunks: body.is_none().then(Chunks::default),
        }))
    }

    /// How many of the bytes that come next belong to the request. A head is taken without what follows, so that it is
    /// known whose body is malformed.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let known = self.known(bytes.len());
        self.left -= known as u64;
        match &mut self.chunks {
            Some(chunks) if known == 0 => chunks.take(bytes),
            _ => Ok(known),
        }
    }

    /// As many bytes may be read, of at most `room`, without reading behind the request where that can be known.
    pub(super) fn room(&self, room: usize) -> usize {
        match self.chunks {
            Some(_) => room,
            None => self.known(room),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0 && self.chunks.as_ref().is_none_or(Chunks::is_over)
    }

    fn known(&self, most: usize) -> usize {
        usize::try_from(self.left).map_or(most, |left| left.min(most))
    }
}

/// A line that ends with LF alone. In a head that httparse has read, each CR is followed by an LF.
pub(super) fn has_bare_lf(head: &[u8]) -> bool {
    memchr_iter(b'\r', head).count() != memchr_iter(b'\n', head).count()
}

/// The length of the body; `None`: it is chunked.
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

/// Digits alone, and no more than can be counted.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(value).ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let length = digits.parse().ok().filter(|_| is_number);
    length.filter(|length| *length <= u64::MAX / 2)
}

#[cfg(test)]
mod tests;

//! One view of a request's head for both parsers: httparse, which leaves the headers in the read buffer, and hyper, which puts
//! them into a map. All code reads the request only through this view, so that both parsers lead to the same answer.

use std::slice;

use hyper::{
    HeaderMap, Method, Version,
    header::{self, HeaderValue},
    http::request::Parts,
};

/// The head of one request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// The path as it was sent, with its escapes.
    pub(crate) path: &'a str,
    /// The part of the URL after the question mark. `None`: the URL has no question mark.
    pub(crate) query: Option<&'a str>,
    /// The host of an absolute URL, or `:authority` of HTTP/2.
    pub(crate) authority: Option<&'a str>,
    pub(crate) headers: Headers<'a>,
}

/// The headers of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Headers<'a> {
    /// In the order in which they were sent, and the lengths of their names: see [`length_bit`].
    Lines(&'a [httparse::Header<'a>], u64),
    Map(&'a HeaderMap),
}

impl<'a> Request<'a> {
    /// The view of an HTTP/1.1 request for this path, with or without a query.
    pub(crate) fn new(method: Method, path: &'a str, lines: &'a [httparse::Header<'a>]) -> Self {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        Self {
            method,
            version: Version::HTTP_11,
            path,
            query,
            authority: None,
            headers: Headers::Lines(lines, lengths_of(lines)),
        }
    }

    /// The view of a head that hyper has parsed.
    pub(crate) fn of(head: &'a Parts) -> Self {
        Self {
            method: head.method.clone(),
            version: head.version,
            path: head.uri.path(),
            query: head.uri.query(),
            authority: head.uri.authority().map(|authority| authority.as_str()),
            headers: Headers::Map(&head.headers),
        }
    }

    /// The values of all headers with this name, in the order in which they were sent.
    pub(crate) fn values(&self, name: &'static str) -> Values<'a> {
        match self.headers {
            // Most questions are about headers that the request does not have.
            Headers::Lines(_, lengths) if lengths & length_bit(name) == 0 => {
                Values::Lines([].iter(), name)
            }
            Headers::Lines(lines, _) => Values::Lines(lines.iter(), name),
            Headers::Map(map) => Values::Map(map.get_all(name).iter()),
        }
    }

    /// The values with this name that are visible ASCII.
    pub(crate) fn texts(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.values(name).filter_map(text)
    }

    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.values(name).next().is_some()
    }

    /// The only value of this header. `Ok(None)`: there is no such header. The error: there are several.
    pub(crate) fn only(&self, name: &'static str) -> Result<Option<&'a [u8]>, Repeated> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Repeated),
        }
    }

    /// The elements of a list header over all its lines, without empty elements (RFC 9110, section 5.6.1).
    pub(crate) fn list(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let elements = self.texts(name).flat_map(|value| value.split(','));
        elements
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
    }

    /// The length of the URL without scheme and host.
    pub(crate) fn url_length(&self) -> usize {
        self.path.len() + self.query.map_or(0, |query| query.len() + 1)
    }

    /// The bytes of all headers, with the four of each line that are neither name nor value.
    pub(crate) fn header_length(&self) -> usize {
        match self.headers {
            Headers::Lines(lines, _) => lines
                .iter()
                .map(|line| line.name.len() + line.value.len() + 4)
                .sum(),
            Headers::Map(map) => map
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len() + 4)
                .sum(),
        }
    }

    /// Whether the connection closes after the answer: for HTTP/1.0 clients, and for clients that ask for it.
    pub(crate) fn wants_close(&self) -> bool {
        let mut options = self.list(header::CONNECTION.as_str());
        self.version < Version::HTTP_11
            || options.any(|option| option.eq_ignore_ascii_case("close"))
    }
}

/// The lengths of all names of headers, one bit for each length.
fn lengths_of(lines: &[httparse::Header<'_>]) -> u64 {
    let bits = lines.iter().map(|line| length_bit(line.name));
    bits.fold(0, |all, bit| all | bit)
}

/// The bit for the length of this name. All names of 63 bytes and more have the last bit.
fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

/// A header that may be there once is there several times.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

/// The text of a header's value. `None`: the value is not visible ASCII.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    let text = str::from_utf8(value).ok();
    text.filter(|_| value.iter().all(is_text))
}

/// The values of the headers with one name.
pub(crate) enum Values<'a> {
    Lines(slice::Iter<'a, httparse::Header<'a>>, &'static str),
    Map(header::ValueIter<'a, HeaderValue>),
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Self::Lines(lines, name) => {
                let line = lines.find(|line| line.name.eq_ignore_ascii_case(name))?;
                Some(line.value)
            }
            Self::Map(values) => values.next().map(HeaderValue::as_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use httparse::Header;

    use super::*;

    const SENT: [(&str, &[u8]); 6] = [
        ("Accept", b"a/b"),
        ("CONNECTION", b"Keep-Alive,, "),
        ("accept", b"\xe9"),
        ("Connection", b"te,\tClose"),
        ("X-Accept", b"c/d"),
        ("Accept", b"e/f"),
    ];

    /// Calls `check` with both views of the same request.
    fn both(check: impl Fn(&Request<'_>)) {
        let lines = SENT.map(|(name, value)| Header { name, value });
        check(&Request::new(Method::GET, "/a?b", &lines));
        let mut request = hyper::Request::get("/a?b");
        for (name, value) in SENT {
            request = request.header(name, value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        check(&Request::of(&head));
    }

    #[test]
    fn both_views_read_the_same() {
        both(|request| {
            let accept = request.values("accept").collect::<Vec<_>>();
            assert_eq!(accept, [&b"a/b"[..], b"\xe9", b"e/f"]);
            assert_eq!(request.texts("accept").collect::<Vec<_>>(), ["a/b", "e/f"]);
            let connection = request.list("connection").collect::<Vec<_>>();
            assert_eq!(connection, ["Keep-Alive", "te", "Close"]);
            assert_eq!(request.only("x-accept"), Ok(Some(&b"c/d"[..])));
            assert_eq!(request.only("accept"), Err(Repeated));
            assert_eq!(request.only("host"), Ok(None));
            assert!(request.has("x-accept") && !request.has("host"));
            assert!(!request.has("x-bccept"), "another name of the same length");
            assert!(request.wants_close());
            assert_eq!((request.path, request.query), ("/a", Some("b")));
            assert_eq!(request.url_length(), 4);
            assert_eq!(request.header_length(), 102);
        });
    }

    #[test]
    fn text_is_what_hyper_takes_for_text() {
        for byte in 0..=u8::MAX {
            let value = [b'a', byte];
            let is_text = HeaderValue::from_bytes(&value).is_ok_and(|value| value.to_str().is_ok());
            assert_eq!(text(&value).is_some(), is_text, "{byte}");
        }
    }
}

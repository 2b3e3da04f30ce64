//! The head of a plain request: what nearly every poll is, read without hyper's buffers and map of all headers. What is
//! not plain, not whole, or wrong in any way is left to hyper, which knows what to say.

use std::mem::MaybeUninit;

use httparse::Status;
use hyper::{
    HeaderMap, Request, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use crate::config::HttpConfig;

/// Browsers send about twenty.
const MOST_HEADERS: usize = 40;

/// A subscription's request.
pub(super) struct Get<'a> {
    /// What follows `/ch/` in the path; without escapes, as is the query.
    pub(super) names: &'a str,
    pub(super) query: &'a str,
    /// With those headers alone that a subscription depends on, and no URL.
    pub(super) head: Parts,
    /// Its length in bytes.
    pub(super) length: usize,
}

/// The request at the start of `input`. `None`: for hyper.
pub(super) fn plain_get<'a>(input: &'a [u8], config: &HttpConfig) -> Option<Get<'a>> {
    if !input.starts_with(b"GET /ch/") {
        return None;
    }
    let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let Ok(Status::Complete(length)) = request.parse_with_uninit_headers(input, &mut headers)
    else {
        return None;
    };
    let url = request.path.filter(|url| url.bytes().all(is_plain))?;
    if request.version != Some(1) || url.len() > config.max_url || length > config.max_header {
        return None;
    }
    let (mut head, ()) = Request::new(()).into_parts();
    head.version = Version::HTTP_11;
    for header in request.headers {
        take(header, &mut head.headers)?;
    }
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    Some(Get {
        names: path.strip_prefix("/ch/")?,
        query,
        head,
        length,
    })
}

/// Means itself in a URL.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-_.~,:=@?&".contains(&byte)
}

/// Takes a header that a subscription depends on. `None`: the request is not plain.
fn take(header: &httparse::Header<'_>, headers: &mut HeaderMap) -> Option<()> {
    let first = header.name.as_bytes().first()?.to_ascii_lowercase();
    // What cannot be meant is ruled out first: there are many headers, and few of them matter.
    let (name, is_taken) = match (header.name.len(), first) {
        (6, b'a') => (header::ACCEPT, true),
        (6, b'o') => (header::ORIGIN, true),
        (10, b'c') => (header::CONNECTION, true),
        (13, b'i') => (header::IF_NONE_MATCH, true),
        (13, b'l') => (HeaderName::from_static("last-event-id"), true),
        // With a body, or for another protocol.
        (2, b't') => (header::TE, false),
        (6, b'e') => (header::EXPECT, false),
        (7, b'u') => (header::UPGRADE, false),
        (14, b'c') => (header::CONTENT_LENGTH, false),
        (17, b't') => (header::TRANSFER_ENCODING, false),
        _ => return Some(()),
    };
    if !header.name.eq_ignore_ascii_case(name.as_str()) {
        return Some(());
    }
    if !is_taken {
        return None;
    }
    headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Option<Get<'_>> {
        plain_get(input.as_bytes(), &HttpConfig::default())
    }

    #[test]
    fn takes_what_a_subscription_depends_on() {
        let request = "GET /ch/a,b?since=1&wait=2 HTTP/1.1\r\nHost: x\r\naccept: a\r\nAccept: b\r\nORIGIN: o\r\n\r\n";
        let input = format!("{request}GET /next");
        let get = read(&input).unwrap();
        assert_eq!(get.length, request.len());
        assert_eq!((get.names, get.query), ("a,b", "since=1&wait=2"));
        let head = get.head;
        let accept: Vec<_> = head.headers.get_all(header::ACCEPT).iter().collect();
        assert_eq!(accept, ["a", "b"]);
        assert_eq!(head.headers[header::ORIGIN], "o");
        assert_eq!(head.headers.len(), 3);
    }

    #[test]
    fn leaves_the_rest_to_hyper() {
        let long = format!("GET /ch/{} HTTP/1.1\r\n\r\n", "a".repeat(10_000));
        let many = format!("GET /ch/a HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(50));
        for request in [
            "",
            "GET /ch/a HTTP/1.1\r\nHost: x\r\n",
            "GET /ch/a HTTP/1.0\r\n\r\n",
            "GET /chat HTTP/1.1\r\n\r\n",
            "get /ch/a HTTP/1.1\r\n\r\n",
            "HEAD /ch/a HTTP/1.1\r\n\r\n",
            "GET http://x/ch/a HTTP/1.1\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost: \0\r\n\r\n",
            "GET /ch/a HTTP/2.0\r\n\r\n",
            "GET /ch/a%62 HTTP/1.1\r\n\r\n",
            "GET /ch/a?since=1+2 HTTP/1.1\r\n\r\n",
            "GET /ch/é HTTP/1.1\r\n\r\n",
            &long,
            &many,
        ] {
            assert!(read(request).is_none(), "{request:?}");
        }
    }
}

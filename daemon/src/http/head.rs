//! The head of a plain request: what nearly every poll and publish is, read without hyper's buffers and map of all
//! headers. What is not plain, not whole, or wrong in any way is left to hyper, which knows what to say.

use std::mem::MaybeUninit;

use httparse::Status;
use hyper::{
    HeaderMap, Method, Request, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use crate::config::HttpConfig;

/// Browsers send about twenty.
const MOST_HEADERS: usize = 40;

/// A request for a channel.
pub(super) struct Plain<'a> {
    /// What follows `/ch/` in the path; without escapes, as is the query.
    pub(super) names: &'a str,
    pub(super) query: &'a str,
    /// `GET` or `POST`, with those headers alone that a plain request depends on, and no URL.
    pub(super) head: Parts,
    pub(super) body: &'a [u8],
    /// Bytes of all of it.
    pub(super) length: usize,
}

/// The request at the start of `input`. `None`: for hyper.
pub(super) fn plain<'a>(input: &'a [u8], config: &HttpConfig) -> Option<Plain<'a>> {
    let method = match input {
        [b'G', b'E', b'T', b' ', ..] => Method::GET,
        [b'P', b'O', b'S', b'T', b' ', ..] => Method::POST,
        _ => return None,
    };
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
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let names = path.strip_prefix("/ch/")?;
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.version) = (method, Version::HTTP_11);
    for header in request.headers {
        take(header, &mut head.headers)?;
    }
    let body = body(&mut head, &input[length..])?;
    (body.len() <= config.max_body).then(|| Plain {
        names,
        query,
        head,
        body,
        length: length + body.len(),
    })
}

/// Means itself in a URL.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-_.~,:=@?&".contains(&byte)
}

/// Takes a header that a plain request depends on. `None`: the request is not plain.
fn take(header: &httparse::Header<'_>, headers: &mut HeaderMap) -> Option<()> {
    let first = header.name.as_bytes().first()?.to_ascii_lowercase();
    // What cannot be meant is ruled out first: there are many headers, and few of them matter.
    let (name, is_taken) = match (header.name.len(), first) {
        (4, b'h') => (header::HOST, true),
        (6, b'a') => (header::ACCEPT, true),
        (6, b'o') => (header::ORIGIN, true),
        (10, b'c') => (header::CONNECTION, true),
        (13, b'i') => (header::IF_NONE_MATCH, true),
        (13, b'l') => (HeaderName::from_static("last-event-id"), true),
        (14, b'c') => (header::CONTENT_LENGTH, true),
        (14, b's') => (HeaderName::from_static("sec-fetch-site"), true),
        (15, b'i') => (HeaderName::from_static("idempotency-key"), true),
        // Of another protocol, or with a body of another kind.
        (2, b't') => (header::TE, false),
        (6, b'e') => (header::EXPECT, false),
        (7, b'u') => (header::UPGRADE, false),
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

/// The body at the start of `rest`. `None`: it is not whole, or its length is in doubt (RFC 9112, section 6.3).
fn body<'a>(head: &mut Parts, rest: &'a [u8]) -> Option<&'a [u8]> {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    match (&head.method, lengths.next(), lengths.next()) {
        (&Method::GET, None, None) => Some(&[]),
        (&Method::POST, Some(length), None) => {
            let is_number = length.as_bytes().iter().all(u8::is_ascii_digit);
            let length = length.to_str().ok().filter(|_| is_number)?.parse().ok()?;
            rest.get(..length)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Option<Plain<'_>> {
        plain(input.as_bytes(), &HttpConfig::default())
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
        assert_eq!(head.headers.len(), 4);
    }

    #[test]
    fn takes_a_body_that_is_whole() {
        let head = "POST /ch/a?name=b HTTP/1.1\r\nContent-length: 3\r\nIdempotency-Key: k\r\n\r\n";
        for body in ["", "a", "ab"] {
            assert!(read(&format!("{head}{body}")).is_none(), "{body:?}");
        }
        let input = format!("{head}abcPOST");
        let post = read(&input).unwrap();
        assert_eq!(
            (post.names, post.query, post.body),
            ("a", "name=b", &b"abc"[..])
        );
        assert_eq!(post.length, head.len() + 3);
        assert_eq!(post.head.method, Method::POST);
        assert_eq!(post.head.headers["idempotency-key"], "k");
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
            "POST /ch/a HTTP/1.1\r\n\r\n",
            "POST /ch/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nxx",
            "POST /ch/a HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nxx",
            "POST /ch/a HTTP/1.1\r\nContent-Length: +1\r\n\r\nxx",
            "POST /ch/a HTTP/1.1\r\nContent-Length: -1\r\n\r\nxx",
            "POST /ch/a HTTP/1.1\r\nContent-Length:\r\n\r\nxx",
            "POST /ch/a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nxx",
            "POST /ch/a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nxx",
            &long,
            &many,
        ] {
            assert!(read(request).is_none(), "{request:?}");
        }
    }
}

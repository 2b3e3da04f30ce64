//! The head of a plain request: what nearly every poll and publish is, read without hyper's buffers and map of all
//! headers. What is not plain, not whole, or wrong in any way is left to hyper, which knows what to say.

use std::mem::MaybeUninit;

use httparse::Status;
use hyper::{
    Method, Request, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use super::{
    answer::Refusal,
    framing::{content_length, has_bare_lf},
    media::Accepted,
};
use crate::{
    access::{COOKIE, hosts::is_ours},
    config::HttpConfig,
};

/// Browsers send about twenty.
const MOST_HEADERS: usize = 40;

/// A request for a channel.
pub(crate) struct Plain<'a> {
    /// What follows `/ch/` in the path; without escapes, as is the query.
    pub(crate) names: &'a str,
    pub(crate) query: &'a str,
    /// `GET` or `POST`, with those headers alone that a plain request depends on, and no URL.
    pub(crate) head: Parts,
    pub(crate) body: &'a [u8],
    /// Bytes of all of it.
    pub(crate) length: usize,
}

/// The request at the start of `input`; with `tokens` it may carry one. `None`: for hyper.
pub(crate) fn plain<'a>(input: &'a [u8], config: &HttpConfig, tokens: bool) -> Option<Plain<'a>> {
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
    if has_bare_lf(&input[..length]) {
        return None;
    }
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let names = path.strip_prefix("/ch/")?;
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.version) = (method, Version::HTTP_11);
    let is_post = head.method == Method::POST;
    let (mut body_length, mut host) = (None, None);
    let mut accepted = Accepted::default();
    for header in request.headers {
        match meaning(header, is_post, tokens) {
            Meaning::Nothing => {}
            Meaning::Accept => accepted.add(header.value),
            Meaning::Host if host.is_none() => host = Some(header.value),
            Meaning::Length if body_length.is_none() => body_length = Some(header.value),
            Meaning::Host | Meaning::Length | Meaning::NotPlain => return None,
            Meaning::Taken(name) => {
                let value = HeaderValue::from_bytes(header.value).ok()?;
                head.headers.append(name, value);
            }
        }
    }
    if accepted.prefers_stream() {
        return None;
    }
    let is_known = |host: &str| host.is_ascii() && is_ours(host, &config.hosts);
    let host = host.filter(|host| str::from_utf8(host).is_ok_and(is_known))?;
    let says_page = |head: &Parts| {
        [header::ORIGIN, header::REFERER]
            .iter()
            .any(|name| head.headers.contains_key(name))
    };
    if (is_post || tokens) && says_page(&head) {
        let host = HeaderValue::from_bytes(host).ok()?; // is it this site's page?
        head.headers.insert(header::HOST, host);
    }
    let body = body(&head.method, body_length, &input[length..])?;
    (body.len() <= config.max_body).then(|| Plain {
        names,
        query,
        head,
        body,
        length: length + body.len(),
    })
}

/// Means itself in a URL.
pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-_.~,:=@?&".contains(&byte)
}

/// What a header means to a plain request.
enum Meaning {
    Nothing,
    Accept,
    /// `Host`.
    Host,
    /// `Content-Length`.
    Length,
    Taken(HeaderName),
    NotPlain,
}

fn meaning(header: &httparse::Header<'_>, is_post: bool, tokens: bool) -> Meaning {
    let (name, value) = (header.name, header.value);
    let is = |known: HeaderName, meaning| match name.eq_ignore_ascii_case(known.as_str()) {
        true => meaning,
        false => Meaning::Nothing,
    };
    let taken = |known: HeaderName| is(known.clone(), Meaning::Taken(known));
    let first = name.as_bytes().first().map_or(0, u8::to_ascii_lowercase);
    // What cannot be meant is ruled out first: there are many headers, few of them matter, and of those two the usual
    // values mean nothing.
    match (name.len(), first) {
        (4, b'h') => is(header::HOST, Meaning::Host),
        (6, b'a') if value == b"*/*" => Meaning::Nothing,
        (6, b'a') => is(header::ACCEPT, Meaning::Accept),
        (10, b'c') if value.eq_ignore_ascii_case(b"keep-alive") => Meaning::Nothing,
        (10, b'c') => taken(header::CONNECTION),
        (6, b'c') if tokens && contains(value, COOKIE) => taken(header::COOKIE),
        (13, b'a') if tokens => taken(header::AUTHORIZATION),
        (6, b'o') => taken(header::ORIGIN),
        (7, b'r') if is_post => taken(header::REFERER),
        (13, b'i') => taken(header::IF_NONE_MATCH),
        (13, b'l') => taken(HeaderName::from_static("last-event-id")),
        (14, b's') => taken(HeaderName::from_static("sec-fetch-site")),
        (15, b'i') => taken(HeaderName::from_static("idempotency-key")),
        (14, b'c') => is(header::CONTENT_LENGTH, Meaning::Length),
        // Of another protocol, or with a body of another kind.
        (2, b't') => is(header::TE, Meaning::NotPlain),
        (6, b'e') => is(header::EXPECT, Meaning::NotPlain),
        (7, b'u') => is(header::UPGRADE, Meaning::NotPlain),
        (17, b's') => is(header::SEC_WEBSOCKET_KEY, Meaning::NotPlain),
        (17, b't') => is(header::TRANSFER_ENCODING, Meaning::NotPlain),
        _ => Meaning::Nothing,
    }
}

fn contains(value: &[u8], part: &str) -> bool {
    value
        .windows(part.len())
        .any(|window| window == part.as_bytes())
}

/// The body at the start of `rest`. `None`: it is not whole, or its length is in doubt (RFC 9112, section 6.3).
fn body<'a>(method: &Method, length: Option<&[u8]>, rest: &'a [u8]) -> Option<&'a [u8]> {
    match (method, length) {
        (&Method::GET, None) => Some(&[]),
        (&Method::POST, Some(length)) => rest.get(..usize::try_from(content_length(length)?).ok()?),
        _ => None,
    }
}

/// The longest head that is read. This is more than what is served, so that the refusal can say what is wrong.
pub(crate) fn max_head(config: &HttpConfig) -> usize {
    (2 * config.max_header).max(8192)
}

/// The refusal of a request whose head, which begins with `input`, is over a limit.
pub(super) fn too_long(input: &[u8], config: &HttpConfig) -> Refusal {
    // A long URL is noticed before the end of the request line.
    if input.contains(&b'\n') {
        let message = format!(
            "headers are over the limit of {} bytes, or of 100 lines",
            config.max_header
        );
        Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers",
            message,
        )
    } else {
        let message = format!("URL is over the limit of {} bytes", config.max_url);
        Refusal::new(StatusCode::URI_TOO_LONG, "url", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Option<Plain<'_>> {
        plain(input.as_bytes(), &HttpConfig::default(), false)
    }

    #[test]
    fn takes_what_a_subscription_depends_on() {
        let request = "GET /ch/a,b?since=1&wait=2 HTTP/1.1\r\nHost: localhost\r\naccept: a/b\r\nLast-Event-ID: 7\r\nORIGIN: o\r\nConnection: Keep-Alive\r\n\r\n";
        let input = format!("{request}GET /next");
        let get = read(&input).unwrap();
        assert_eq!(get.length, request.len());
        assert_eq!((get.names, get.query), ("a,b", "since=1&wait=2"));
        let head = get.head;
        assert_eq!(head.headers["last-event-id"], "7");
        assert_eq!(head.headers[header::ORIGIN], "o");
        assert_eq!(head.headers.len(), 2);
    }

    #[test]
    fn takes_tokens_where_there_are_some() {
        let input = "GET /ch/a HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer x\r\nCookie: a=b\r\nCookie: __Host-comet=x\r\n\r\n";
        assert_eq!(read(input).unwrap().head.headers.len(), 0);
        let headers = plain(input.as_bytes(), &HttpConfig::default(), true)
            .unwrap()
            .head
            .headers;
        assert_eq!(headers[header::AUTHORIZATION], "Bearer x");
        assert_eq!(headers[header::COOKIE], "__Host-comet=x");
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn takes_a_body_that_is_whole() {
        let head = "POST /ch/a?name=b HTTP/1.1\r\nHost: localhost\r\nContent-length: 3\r\nIdempotency-Key: k\r\n\r\n";
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
            "GET /ch/a HTTP/1.1\r\nHost: localhost\r\n",
            "GET /ch/a HTTP/1.0\r\n\r\n",
            "GET /chat HTTP/1.1\r\n\r\n",
            "get /ch/a HTTP/1.1\r\n\r\n",
            "HEAD /ch/a HTTP/1.1\r\n\r\n",
            "GET http://x/ch/a HTTP/1.1\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nAccept: Text/Event-Stream\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nAccept: application/json;q=0.1\r\nAccept: text/*\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n",
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
            let with_host = request.replacen("\r\n", "\r\nHost: localhost\r\n", 1);
            let request = if request.contains("Host") {
                request
            } else {
                &with_host
            };
            assert!(read(request).is_none(), "{request:?}");
        }
    }

    #[test]
    fn takes_what_names_this_server() {
        let read = |host: &str| {
            let input = format!("GET /ch/a HTTP/1.1\r\n{host}\r\n");
            read(&input).is_some()
        };
        for host in [
            "Host: localhost\r\n",
            "host: 127.0.0.1:2061\r\n",
            "HOST: [::1]\r\n",
        ] {
            assert!(read(host), "{host}");
        }
        for host in [
            "",
            "Host:\r\n",
            "Host: evil.example\r\n",
            "Host: é\r\n",
            "Host: é.localhost\r\n",
            "Host: a\r\nHost: localhost\r\n",
        ] {
            assert!(!read(host), "{host}");
        }
    }

    #[test]
    fn knows_the_host_where_the_page_matters() {
        let origin =
            "POST /ch/a HTTP/1.1\r\nOrigin: x\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            read(origin).unwrap().head.headers[header::HOST],
            "localhost"
        );
        let referer = origin.replace("Origin", "Referer");
        assert_eq!(read(&referer).unwrap().head.headers[header::REFERER], "x");
        let none = origin.replace("Origin", "X");
        assert!(read(&none).unwrap().head.headers.is_empty());
    }
}

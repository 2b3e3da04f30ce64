//! Parses the head of a plain request directly in the read buffer, without hyper's buffers and without hyper's map of all
//! headers. Nearly every poll and publish is plain. A request that is not plain, not complete, or wrong in any way is left to
//! hyper, which finds the right answer.

use std::mem::MaybeUninit;

use httparse::{Header, Status};
use hyper::Method;

use super::framing::{content_length, has_bare_lf};
use crate::{
    config::HttpConfig,
    http::{
        refusal::{Reason, Refusal},
        request::Request,
    },
};

/// Maximum number of headers of a plain request. Browsers send about twenty.
const MOST_HEADERS: usize = 40;

/// Room for the headers of a plain request.
pub(crate) type Lines<'a> = [MaybeUninit<Header<'a>>; MOST_HEADERS];

/// A `GET`, or a `POST` with its whole body.
pub(crate) struct Plain<'a> {
    pub(crate) request: Request<'a>,
    pub(crate) body: &'a [u8],
    /// Bytes of the head and the body.
    pub(crate) length: usize,
}

pub(crate) fn no_lines<'a>() -> Lines<'a> {
    [const { MaybeUninit::uninit() }; MOST_HEADERS]
}

/// Reads the request at the start of `input`, with its headers in `lines`. `None`: the request is left to hyper.
pub(crate) fn plain<'a>(
    input: &'a [u8],
    lines: &'a mut Lines<'a>,
    config: &HttpConfig,
) -> Option<Plain<'a>> {
    let method = match input {
        [b'G', b'E', b'T', b' ', ..] => Method::GET,
        [b'P', b'O', b'S', b'T', b' ', ..] => Method::POST,
        _ => return None,
    };
    let mut parsed = httparse::Request::new(&mut []);
    let Ok(Status::Complete(length)) = parsed.parse_with_uninit_headers(input, lines) else {
        return None;
    };
    let url = parsed.path?;
    let is_http_11 = parsed.version == Some(1);
    if !is_http_11 || !url.starts_with('/') || !url.bytes().all(|b| OF_URL[usize::from(b)]) {
        return None;
    }
    if url.len() > config.max_url || length > config.max_header || has_bare_lf(&input[..length]) {
        return None;
    }
    let lines: &[Header<'_>] = parsed.headers;
    let body = body(&method, body_length(lines)?, &input[length..])?;
    (body.len() <= config.max_body).then(|| Plain {
        request: Request::new(method, url, lines),
        body,
        length: length + body.len(),
    })
}

/// Whether each byte may be in the path or the query of a URL (RFC 3986, appendix A).
const OF_URL: [bool; 256] = {
    let mut table = [false; 256];
    let others = b"-._~:/?[]@!$&'()*+,;=%";
    let mut at = 0;
    while at < 256 {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// The value of `Content-Length`, if there is one. `None`: the headers are not those of a plain request. `Host` has to be
/// there once, `Content-Length` at most once.
fn body_length<'a>(lines: &[Header<'a>]) -> Option<Option<&'a [u8]>> {
    let (mut length, mut has_host) = (None, false);
    for Header { name, value } in lines {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") && std::mem::replace(&mut has_host, true) => return None,
            14 if is("content-length") && length.replace(*value).is_some() => return None,
            // The body is of another kind, or the client asks for another protocol.
            2 if is("te") => return None,
            6 if is("expect") => return None,
            7 if is("upgrade") => return None,
            17 if is("sec-websocket-key") || is("transfer-encoding") => return None,
            _ => {}
        }
    }
    has_host.then_some(length)
}

/// The body at the start of `rest`. `None`: the body is not complete, or its length is in doubt (RFC 9112, section 6.3).
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
        Refusal::new(Reason::HeadersTooLarge, message)
    } else {
        let message = format!("URL is over the limit of {} bytes", config.max_url);
        Refusal::new(Reason::UrlTooLong, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(input: &str) -> bool {
        plain(input.as_bytes(), &mut no_lines(), &HttpConfig::default()).is_some()
    }

    #[test]
    fn reads_a_head_where_it_lies() {
        let head = "GET /ch/a,b?since=1&wait=2 HTTP/1.1\r\nHost: localhost\r\nORIGIN: o\r\n\r\n";
        let input = format!("{head}GET /next");
        let mut lines = no_lines();
        let get = plain(input.as_bytes(), &mut lines, &HttpConfig::default()).unwrap();
        assert_eq!((get.length, get.body), (head.len(), &b""[..]));
        let request = get.request;
        assert_eq!(request.path, "/ch/a,b");
        assert_eq!(request.query, Some("since=1&wait=2"));
        assert_eq!(request.only("origin"), Ok(Some(&b"o"[..])));
    }

    #[test]
    fn takes_a_body_that_is_complete() {
        let head = "POST /ch/a?name=b HTTP/1.1\r\nHost: localhost\r\nContent-length: 3\r\n\r\n";
        for body in ["", "a", "ab"] {
            assert!(!is_plain(&format!("{head}{body}")), "{body:?}");
        }
        let input = format!("{head}abcPOST");
        let mut lines = no_lines();
        let post = plain(input.as_bytes(), &mut lines, &HttpConfig::default()).unwrap();
        assert_eq!((post.length, post.body), (head.len() + 3, &b"abc"[..]));
        assert_eq!(post.request.method, Method::POST);
    }

    #[test]
    fn every_path_is_plain() {
        for path in [
            "/",
            "/comet.php?subscribed%5Ba%5D=1&x[y]=a+b",
            "/ch/a%62",
            "//ch/a",
            "/?",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(is_plain(&request), "{path}");
        }
    }

    #[test]
    fn leaves_the_rest_to_hyper() {
        let long = format!("GET /ch/{} HTTP/1.1\r\n\r\n", "a".repeat(10_000));
        let many = format!("GET /ch/a HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(50));
        for request in [
            "",
            "GET /ch/a HTTP/1.1\r\nHost: localhost\r\n",
            "GET /ch/a HTTP/1.0\r\n\r\n",
            "get /ch/a HTTP/1.1\r\n\r\n",
            "HEAD /ch/a HTTP/1.1\r\n\r\n",
            "GET * HTTP/1.1\r\n\r\n",
            "GET http://x/ch/a HTTP/1.1\r\n\r\n",
            "GET /ch/a#b HTTP/1.1\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nTE: trailers\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n",
            "GET /ch/a HTTP/1.1\r\nHost: \0\r\n\r\n",
            "GET /ch/a HTTP/2.0\r\n\r\n",
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
            assert!(!is_plain(request), "{request:?}");
        }
        assert!(!is_plain("GET /ch/a HTTP/1.1\r\nX: y\r\n\r\n"), "no host");
    }
}

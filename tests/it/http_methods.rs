//! The order of checks: path, then method, then what the method requires of the body. Also empty bodies, and bodies
//! that no header announces.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame};

use crate::{
    daemon::{Answer, Daemon, Http},
    http2,
    wire::{ask, get, refusal, send_some},
};

const PUBLISHING: &str = "[http]\npublish = true\nmax_body = 1000\n";
const CHANNEL: &str = "GET, HEAD, POST, OPTIONS";
const PAGE: &str = "GET, HEAD, OPTIONS";

/// Paths, the methods that they allow, and a method that they refuse.
fn cases() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut cases = Vec::new();
    for method in [
        "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "BREW", "post",
    ] {
        cases.push(("/ch/a", CHANNEL, method));
        cases.push(("/%63h/a", CHANNEL, method));
    }
    for path in [
        "/healthz",
        "/metrics",
        "/comet.js",
        "/comet.php",
        "/chat.php",
        "/clock.php",
    ] {
        cases.extend(["POST", "PUT", "DELETE"].map(|method| (path, PAGE, method)));
    }
    cases
}

fn is_refused(answer: &Answer, allow: &str, shown: &str) {
    let (status, code, message) = refusal(answer);
    assert_eq!((status, &*code), (405, "method"), "{shown}: {message}");
    assert_eq!(answer.header("allow"), Some(allow), "{shown}");
}

#[test]
fn a_method_is_refused_before_its_body_is_looked_at() {
    let daemon = Daemon::start(PUBLISHING);
    let large = "x".repeat(5000);
    for (path, allow, method) in cases() {
        for version in ["1.1", "1.0"] {
            let head = format!("{method} {path} HTTP/{version}\r\nHost: localhost\r\n");
            let small = format!("{head}Content-Length: 1\r\n\r\nx");
            let bodies = [
                format!("{head}\r\n"),
                small.clone(),
                format!("{head}Content-Length: 0\r\n\r\n"),
                format!("{head}Content-Length: 5000\r\n\r\n{large}"),
                // No byte of these bodies has arrived yet.
                format!("{head}Content-Length: 5000\r\n\r\n"),
                format!("{head}Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"),
            ];
            for request in bodies {
                let mut client = Http::connect(daemon.addr());
                send_some(&mut client, request.as_bytes());
                is_refused(&client.answer(), allow, &request[..60.min(request.len())]);
                if version == "1.1" && request == small {
                    client.send(get("/healthz", ""));
                    assert_eq!(client.answer().body, "ok\n", "after {request}");
                }
            }
        }
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for body in ["0\r\n\r\n", "1\r\nx\r\n0\r\n\r\n", ""] {
            let request = format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}");
            is_refused(&ask(&daemon, &request), allow, &request);
        }
    }
    assert!(daemon.history("a").is_empty());
}

#[test]
fn http_2_refuses_methods_alike() {
    let daemon = Daemon::start(PUBLISHING);
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        for (path, allow, method) in cases() {
            for body in ["", "x", &"x".repeat(5000)] {
                let request = client.request(method, path);
                let request = request.body(Full::from(body.to_owned())).unwrap();
                let response = client.send(request).await;
                assert_eq!(response.status(), 405, "{method} {path} {}", body.len());
                assert_eq!(response.headers()["allow"], allow, "{method} {path}");
            }
        }
    });
}

#[test]
fn a_path_is_refused_before_its_method() {
    let daemon = Daemon::start(PUBLISHING);
    for method in ["GET", "POST", "PUT", "DELETE", "BREW"] {
        for body in ["\r\n", "Content-Length: 1\r\n\r\nx"] {
            let request = format!("{method} /nowhere HTTP/1.1\r\nHost: localhost\r\n{body}");
            let (status, code, _) = refusal(&ask(&daemon, &request));
            assert_eq!((status, &*code), (404, "path"), "{request}");
        }
    }
}

/// An empty body counts as no body in every coding, on the plain path and in hyper.
#[test]
fn an_empty_body_is_no_body() {
    let daemon = Daemon::start(PUBLISHING);
    let empty = [
        ("1.1", "\r\n"),
        ("1.1", "Content-Length: 0\r\n\r\n"),
        ("1.1", "Content-Length: 00\r\n\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "1.1",
            "Transfer-Encoding: chunked\r\n\r\n000;x=y\r\nT: z\r\n\r\n",
        ),
        ("1.0", "\r\n"),
        ("1.0", "Content-Length: 0\r\n\r\n"),
    ];
    for (version, rest) in empty {
        for path in ["/ch/a", "/ch/%61"] {
            let ask = |method: &str, query: &str| {
                let request =
                    format!("{method} {path}{query} HTTP/{version}\r\nHost: localhost\r\n{rest}");
                let mut client = Http::connect(daemon.addr());
                client.send(&request);
                let answer = client.answer();
                if version == "1.1" {
                    client.send(get("/healthz", ""));
                    assert_eq!(client.answer().body, "ok\n", "after {request}");
                }
                answer.status
            };
            let before = daemon.history("a").len();
            assert_eq!(ask("POST", ""), 201, "{version} {rest}");
            let history = daemon.history("a");
            assert_eq!((history.len(), &*history[before].1), (before + 1, ""));
            for query in ["?since=0", "?wait=0", "?wait=1&as=poll"] {
                assert_eq!(ask("GET", query), 200, "{version} {rest}");
            }
        }
    }
    // In pieces: the daemon waits for the bytes that it needs.
    let mut client = Http::connect(daemon.addr());
    client.send(
        "GET /ch/a?since=0 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    crate::daemon::wait_for("the head to be read", || {
        (crate::wire::metric(&daemon, "comet_http_connections") > 1).then_some(())
    });
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn http_2_takes_empty_bodies_alike() {
    let daemon = Daemon::start(PUBLISHING);
    daemon.publish("a", "x");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        // Frames without data come first, and the end of the stream after them.
        let frames = |count, data| Frames { count, data };
        for (method, path, status) in [("GET", "/ch/a?since=0", 200), ("POST", "/ch/a", 201)] {
            for count in [0, 1, 3] {
                let request = client
                    .request(method, path)
                    .body(frames(count, ""))
                    .unwrap();
                let mut sender = streaming(daemon.addr()).await;
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), status, "{method} {count}");
            }
        }
        let request = client.request("GET", "/ch/a?since=0");
        let mut sender = streaming(daemon.addr()).await;
        let response = sender.send_request(request.body(frames(1, "x")).unwrap());
        assert_eq!(response.await.unwrap().status(), 400);
    });
}

/// A body with this many frames.
struct Frames {
    count: usize,
    data: &'static str,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.count.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.count = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(self.data)))))
    }
}

/// A connection whose requests may have bodies of many frames.
async fn streaming(addr: std::net::SocketAddr) -> hyper::client::conn::http2::SendRequest<Frames> {
    let io = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::connect(addr).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io);
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A publisher without a length must not be told that its message is published.
#[test]
fn a_body_that_nothing_announces_is_not_taken_for_an_empty_one() {
    let daemon = Daemon::start(PUBLISHING);
    let bodies = [
        "x",
        "text=hello",
        "{\"a\":1}",
        "hello",
        "HELLO",
        "get me",
        "\r\nx",
        "\0\u{1}",
    ];
    for version in ["1.0", "1.1"] {
        for body in bodies {
            let request = format!("POST /ch/a HTTP/{version}\r\nHost: localhost\r\n\r\n{body}");
            let mut client = Http::connect(daemon.addr());
            client.send(&request);
            let answer = client.answer();
            let (status, code, message) = refusal(&answer);
            assert_eq!((status, &*code), (411, "length"), "{request:?}: {message}");
            assert!(message.contains("Content-Length"), "{message}");
            assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
            assert!(client.rest().is_empty(), "{request:?}");
        }
    }
    // Bytes after an HTTP/1.0 request are never a request.
    let request = format!("POST /ch/a HTTP/1.0\r\n\r\n{}", get("/healthz", ""));
    assert_eq!(ask(&daemon, request).status, 411);
    // Path and method are checked first.
    for (path, status) in [("/nowhere", 404), ("/healthz", 405)] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\nx=1");
        assert_eq!(ask(&daemon, request).status, status);
    }
    assert!(daemon.history("a").is_empty());
}

#[test]
fn a_post_with_nothing_behind_it_is_an_empty_message() {
    let daemon = Daemon::start(PUBLISHING);
    for (n, end) in ["", "\r\n", "\r\n\r\n"].into_iter().enumerate() {
        for (m, version) in ["1.0", "1.1"].into_iter().enumerate() {
            let request = format!("POST /ch/a HTTP/{version}\r\nHost: localhost\r\n\r\n{end}");
            assert_eq!(ask(&daemon, request).status, 201, "{version} {end:?}");
            assert_eq!(daemon.history("a").len(), 2 * n + m + 1);
        }
    }
    // Another request after it, also an incomplete one.
    let mut client = Http::connect(daemon.addr());
    let post = "POST /ch/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(format!("{post}{post}{}GE", get("/healthz", "")));
    assert_eq!((client.answer().status, client.answer().status), (201, 201));
    assert_eq!(client.answer().body, "ok\n");
    client.send("T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().body, "ok\n");
}

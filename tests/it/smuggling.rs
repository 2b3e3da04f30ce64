//! Requests that a proxy and this server could read differently: each is refused, the connection closes, and the bytes
//! behind the request are not served.

use crate::{
    daemon::{Daemon, Http},
    wire::{data, get, half_close, metric, parked, post, refusal, send_some},
};

const PUBLISHING: &str = "[http]\npublish = true\nmax_body = 1000\n";

/// A publish that must never be read as a request.
fn smuggled() -> Vec<u8> {
    post("/ch/smuggled", "", b"x")
}

/// A publish to `/ch/a` with these header lines, followed by these bytes.
fn publish(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").into()
}

/// Refused heads, each with a part of the expected error text.
fn refused_heads() -> Vec<(Vec<u8>, &'static str)> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let body = "0\r\n\r\n";
    let (once, encoding) = (
        "Content-Length must be there once",
        "Transfer-Encoding must",
    );
    let both = "exclude each other";
    let lf = "not with LF alone";
    vec![
        (
            publish(&format!("Content-Length: 5\r\n{chunked}"), body),
            both,
        ),
        (
            publish(&format!("{chunked}Content-Length: 5\r\n"), body),
            both,
        ),
        (
            publish("content-LENGTH:5\r\ntransfer-ENCODING:chunked\r\n", body),
            both,
        ),
        (
            publish("Content-Length: 5\r\nContent-Length: 5\r\n", "12345"),
            once,
        ),
        (
            publish("Content-Length: 5\r\nContent-Length: 0\r\n", "12345"),
            once,
        ),
        (publish("Content-Length: 5, 5\r\n", "12345"), once),
        (publish("Content-Length: +5\r\n", "12345"), once),
        (publish("Content-Length: -5\r\n", "12345"), once),
        (publish("Content-Length: 0x5\r\n", "12345"), once),
        (publish("Content-Length: 5.0\r\n", "12345"), once),
        (publish("Content-Length: 5 0\r\n", "12345"), once),
        (publish("Content-Length:\r\n", "12345"), once),
        (
            publish("Content-Length: 18446744073709551616\r\n", "12345"),
            once,
        ),
        (
            publish("Content-Length: 18446744073709551615\r\n", "12345"),
            once,
        ),
        (publish("Transfer-Encoding: xchunked\r\n", body), encoding),
        (
            publish("Transfer-Encoding: \"chunked\"\r\n", body),
            encoding,
        ),
        (publish("Transfer-Encoding: identity\r\n", body), encoding),
        (
            publish("Transfer-Encoding: gzip, chunked\r\n", body),
            encoding,
        ),
        (
            publish("Transfer-Encoding: chunked, identity\r\n", body),
            encoding,
        ),
        (
            publish("Transfer-Encoding: chunked, chunked\r\n", body),
            encoding,
        ),
        (publish(&format!("{chunked}{chunked}"), body), encoding),
        (
            publish("Transfer-Encoding: chunked;q=1\r\n", body),
            encoding,
        ),
        (
            publish("Transfer-Encoding: \u{b}chunked\r\n", body),
            "invalid header value",
        ),
        (publish("Transfer-Encoding:\r\n", body), encoding),
        (
            publish("Transfer-Encoding : chunked\r\n", body),
            "invalid header",
        ),
        (publish("Content-Length : 5\r\n", "12345"), "invalid header"),
        (
            publish("Transfer-Encoding\r\n: chunked\r\n", body),
            "invalid header",
        ),
        (
            publish("Transfer-Encoding: chunk\r\n ed\r\n", body),
            "invalid header",
        ),
        (
            publish("X: y\r\n\tTransfer-Encoding: chunked\r\n", body),
            "invalid header",
        ),
        (publish(" X: y\r\n", ""), "invalid header"),
        (
            publish("X: y\rContent-Length: 5\r\n", "12345"),
            "invalid header",
        ),
        (publish("X: y\nContent-Length: 5\r\n", "12345"), lf),
        (publish("X: y\0\r\n", ""), "invalid header value"),
        (publish("X\0: y\r\n", ""), "invalid header name"),
        (publish("X\u{7f}: y\r\n", ""), "invalid header name"),
        (publish("X: \u{8}\r\n", ""), "invalid header value"),
        (
            publish("Host: localhost\r\n", ""),
            "Host must be there once",
        ),
        (
            format!("POST /ch/a HTTP/1.0\r\nHost: localhost\r\n{chunked}\r\n{body}").into(),
            encoding,
        ),
        (
            b"POST /ch/a HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n".into(),
            lf,
        ),
        (
            b"\nPOST /ch/a HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            lf,
        ),
        (b"POST /ch/a HTTP/1.1\r\nHost: localhost\r\n\n".into(), lf),
        (
            b"GET  /ch/a HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
        (
            b"GET /ch/a  HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
        (
            b"GET\t/ch/a\tHTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
        (
            b" GET /ch/a HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
        (
            b"GET /ch/a\x0b HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
        (
            b"GET /ch/a HTTP/1.1 \r\nHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
        (
            b"GET /ch/a HTTP/1.1\rHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
        (
            b"GET /ch/a HTTP/1.2\r\nHost: localhost\r\n\r\n".into(),
            "invalid HTTP version",
        ),
        (
            b"GET /ch/a http/1.1\r\nHost: localhost\r\n\r\n".into(),
            "invalid HTTP version",
        ),
        (b"GET /ch/a\r\nHost: localhost\r\n\r\n".into(), "invalid"),
        (
            b"G\0T /ch/a HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            "invalid",
        ),
    ]
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_served() {
    let daemon = Daemon::start(PUBLISHING);
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    for (request, message) in refused_heads() {
        let shown = String::from_utf8_lossy(&request).into_owned();
        // Alone, and after requests that the plain path or hyper serves.
        for before in [
            "",
            "GET /ch/a?wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &get("/healthz", ""),
        ] {
            let mut client = Http::connect(daemon.addr());
            let all = [before.as_bytes(), &request, &smuggled(), &smuggled()].concat();
            send_some(&mut client, &all);
            if !before.is_empty() {
                assert_eq!(client.answer().status, 200, "before {shown:?}");
            }
            let answer = client.answer();
            let told = refusal(&answer);
            assert_eq!(
                (told.0, &*told.1),
                (400, "request"),
                "{shown:?}: {}",
                told.2
            );
            assert!(told.2.contains(message), "{shown:?}: {}", told.2);
            assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
            let rest = client.rest();
            assert!(
                rest.is_empty(),
                "{shown:?}: {}",
                String::from_utf8_lossy(&rest)
            );
        }
    }
    assert!(daemon.history("smuggled").is_empty());
    assert!(daemon.history("a").is_empty());
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
}

/// The same bytes one at a time: the result must not depend on how the bytes are cut.
#[test]
fn what_is_refused_whole_is_refused_in_pieces() {
    let daemon = Daemon::start(PUBLISHING);
    for (request, _) in refused_heads().into_iter().step_by(5) {
        let shown = String::from_utf8_lossy(&request).into_owned();
        let mut client = Http::connect(daemon.addr());
        for byte in [&request[..], &smuggled()].concat() {
            send_some(&mut client, &[byte]);
        }
        let answer = client.answer();
        assert_eq!(refusal(&answer).0, 400, "{shown:?}");
        assert!(client.rest().is_empty(), "{shown:?}");
    }
    assert!(daemon.history("smuggled").is_empty());
    assert!(daemon.history("a").is_empty());
}

#[test]
fn chunked_tricks_are_refused_and_nothing_behind_them_is_served() {
    let daemon = Daemon::start(PUBLISHING);
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let size = "1 to 16 hexadecimal digits";
    let end = "end with CR LF where its size says";
    let extra = "visible ASCII, 4096 bytes together";
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(5000));
    let trailers = format!(
        "1\r\nx\r\n0\r\n{}\r\n",
        format!("X: {}\r\n", "y".repeat(96)).repeat(50)
    );
    let cases = [
        ("\r\nx\r\n0\r\n\r\n", size),
        ("0x1\r\nx\r\n0\r\n\r\n", size),
        ("+1\r\nx\r\n0\r\n\r\n", size),
        (" 1\r\nx\r\n0\r\n\r\n", size),
        ("1 \r\nx\r\n0\r\n\r\n", size),
        ("1\t;a\r\nx\r\n0\r\n\r\n", size),
        ("00000000000000001\r\nx\r\n0\r\n\r\n", size),
        ("1\nx\r\n0\r\n\r\n", size),
        ("1;a\nx\r\n0\r\n\r\n", extra),
        ("1;a\rb\r\nx\r\n0\r\n\r\n", extra),
        ("1;a\0\r\nx\r\n0\r\n\r\n", extra),
        ("1\rx\r\n0\r\n\r\n", extra),
        ("1\r\nxy\r\n0\r\n\r\n", end),
        ("1\r\nx\n0\r\n\r\n", end),
        ("1\r\nx\rz0\r\n\r\n", end),
        ("1\r\nx\r\n0\r\nX: y\n\r\n", extra),
        ("1\r\nx\r\n0\r\n\n", extra),
        ("1\r\nx\r\n0\r\n\rX", extra),
        (&long, extra),
        (&trailers, extra),
    ];
    for (body, message) in cases {
        let request = publish("Transfer-Encoding: chunked\r\n", body);
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, &[&request[..], &smuggled()].concat());
        let told = refusal(&client.answer());
        let shown = &body[..body.len().min(60)];
        assert_eq!((told.0, &*told.1), (400, "body"), "{shown:?}: {}", told.2);
        assert!(told.2.contains(message), "{shown:?}: {}", told.2);
        assert!(client.rest().is_empty(), "{shown:?}");
    }
    assert!(daemon.history("smuggled").is_empty());
    assert!(daemon.history("a").is_empty());
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
}

/// Unusual but unambiguous requests: the body has its stated length, trailers change nothing, and the next request is
/// served.
#[test]
fn what_is_odd_and_clear_is_read_as_it_says() {
    let daemon = Daemon::start(PUBLISHING);
    let chunked = |body: &str| publish("Transfer-Encoding: Chunked\r\n", body);
    let cases = [
        (chunked("3;name=value\r\nabc\r\n0\r\n\r\n"), "abc"),
        (chunked("03;a;b=\"c d\"\r\nabc\r\n000;x\r\n\r\n"), "abc"),
        (
            chunked("3\r\nabc\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n"),
            "abc",
        ),
        (chunked("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), "abc"),
        (
            chunked("B\r\n0\r\n\r\nGET / \r\n0\r\n\r\n"),
            "0\r\n\r\nGET / ",
        ),
        (publish("Content-Length: 003\r\n", "abc"), "abc"),
        (publish("Content-Length:\t 3 \t\r\n", "abc"), "abc"),
        (
            b"\r\nPOST /ch/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".into(),
            "abc",
        ),
        (
            b"POST http://elsewhere.localhost/ch/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
                .into(),
            "abc",
        ),
    ];
    for (n, (request, body)) in cases.into_iter().enumerate() {
        let shown = String::from_utf8_lossy(&request).into_owned();
        let mut client = Http::connect(daemon.addr());
        client.send([&request[..], get("/healthz", "").as_bytes()].concat());
        let answer = client.answer();
        assert_eq!(answer.status, 201, "{shown:?}: {}", answer.body);
        let history = daemon.history("a");
        assert_eq!((history.len(), &*history[n].1), (n + 1, body), "{shown:?}");
        assert_eq!(client.answer().body, "ok\n", "{shown:?}");
        half_close(&client);
        assert!(client.is_closed(), "{shown:?}");
    }
}

/// A waiting poll keeps its place. Requests behind it are served after it, in order, and each once.
#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let daemon = Daemon::start(PUBLISHING);
    let mut client = Http::connect(daemon.addr());
    let chunked = publish("Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n");
    let poll = get("/ch/b", "");
    let plain = post("/ch/a", "", b"plain");
    let before = metric(&daemon, "comet_subscribers");
    client.send([&chunked[..], &plain, poll.as_bytes(), &chunked, &plain].concat());
    assert_eq!((client.answer().status, client.answer().status), (201, 201));
    crate::wire::wait_for_subscribers(&daemon, before + 1);
    assert_eq!(daemon.history("a").len(), 2);
    daemon.publish("b", "now");
    assert_eq!(data(&client.answer()), ["now"]);
    assert_eq!((client.answer().status, client.answer().status), (201, 201));
    let told: Vec<String> = daemon
        .history("a")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert_eq!(told, ["hi", "plain", "hi", "plain"]);
}

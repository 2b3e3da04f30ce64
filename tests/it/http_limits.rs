//! What bad input gets: a status, a code and a message that names the rule; nothing else is disturbed.

use std::{
    io::{Read, Write},
    process::Command,
};

use crate::{
    daemon::{Answer, Daemon, Http, wait_for},
    wire::{
        ask, data, get, half_close, metric, parked, post, refusal, send_some, wait_for_subscribers,
    },
};

const PUBLISHING: &str = "[http]\npublish = true\n";

/// A client that waits while others misbehave, and must get its message in the end.
struct Bystander {
    client: Http,
}

impl Bystander {
    fn wait(daemon: &Daemon) -> Self {
        Self {
            client: parked(daemon, get("/ch/bystander", "")),
        }
    }

    fn gets_its_message(mut self, daemon: &Daemon) {
        daemon.publish("bystander", "undisturbed");
        assert_eq!(data(&self.client.answer()), ["undisturbed"]);
    }
}

/// A refusal of a request that was read: its error, and a connection that goes on.
#[track_caller]
fn is_refused(client: &mut Http, request: &[u8], status: u16, code: &str, message: &str) -> Answer {
    let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
    client.send(request);
    let answer = client.answer();
    let told = refusal(&answer);
    assert_eq!((told.0, &*told.1), (status, code), "{shown:?}: {}", told.2);
    assert!(told.2.contains(message), "{shown:?}: {}", told.2);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{shown:?}"
    );
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store, no-transform"),
        "{shown:?}"
    );
    client.send(get("/healthz", ""));
    assert_eq!(client.answer().body, "ok\n", "after {shown:?}");
    answer
}

#[test]
fn names_cursors_and_parameters_are_refused_with_the_rule() {
    let daemon = Daemon::start(PUBLISHING);
    let bystander = Bystander::wait(&daemon);
    let mut client = Http::connect(daemon.addr());
    let ten_thousand = (0..1500)
        .map(|n| format!("c{n}"))
        .collect::<Vec<_>>()
        .join(",");
    let names = "allowed: A-Z a-z 0-9 _ . : = + @ ~ -";
    let cases = [
        ("/ch/", 400, "channel", "may not be empty"),
        ("/ch/a,,b", 400, "channel", "may not be empty"),
        ("/ch/..", 400, "channel", "may not start with a dot"),
        ("/ch/.hidden", 400, "channel", "may not start with a dot"),
        (
            "/ch/../../etc/passwd",
            400,
            "channel",
            "may not start with a dot",
        ),
        (
            "/ch/%2e%2e%2fetc",
            400,
            "channel",
            "may not start with a dot",
        ),
        ("/ch/a/b", 400, "channel", "may not contain '/'"),
        ("/ch/a%00b", 400, "channel", "may not contain '\\0'"),
        ("/ch/a%0d%0ab", 400, "channel", "may not contain '\\r'"),
        ("/ch/a%20b", 400, "channel", names),
        ("/ch/%C3%A9", 400, "channel", "may not contain 'é'"),
        ("/ch/%FF", 400, "channel", "not UTF-8"),
        ("/ch/%ED%A0%80", 400, "channel", "not UTF-8"),
        ("/ch/%", 400, "channel", "may not contain '%'"),
        ("/ch/%zz", 400, "channel", "may not contain '%'"),
        (
            &format!("/ch/{}", "x".repeat(129)),
            400,
            "channel",
            "129 bytes is over the limit of 128",
        ),
        (
            &format!("/ch/{}", "x".repeat(8000)),
            400,
            "channel",
            "8000 bytes is over the limit of 128",
        ),
        (
            &format!("/ch/{ten_thousand}"),
            400,
            "channels",
            "1500 channels are over the limit of 100",
        ),
        (
            &format!("/ch/{}", "x".repeat(8200)),
            414,
            "url",
            "URL of 8204 bytes is over the limit of 8192",
        ),
        (
            "/ch/a?since=",
            400,
            "since",
            "a message id, 0, or an RFC 3339 time",
        ),
        ("/ch/a?since=-1", 400, "since", "RFC 3339"),
        ("/ch/a?since=1.5", 400, "since", "RFC 3339"),
        ("/ch/a?since=1e9", 400, "since", "RFC 3339"),
        ("/ch/a?since=now", 400, "since", "RFC 3339"),
        (
            "/ch/a?since=18446744073709551616",
            400,
            "since",
            "over the limit of 18446744073709551615",
        ),
        (
            "/ch/a?since=1969-12-31T23:59:59Z",
            400,
            "since",
            "before 1970",
        ),
        ("/ch/a?since=2026-02-30T00:00:00Z", 400, "since", "RFC 3339"),
        ("/ch/a?since=%00", 400, "since", "RFC 3339"),
        ("/ch/a?since=0&since=x", 400, "since", "RFC 3339"),
        ("/ch/a?wait=-1", 400, "wait", "whole seconds from 0 to 60"),
        ("/ch/a?wait=61", 400, "wait", "whole seconds from 0 to 60"),
        ("/ch/a?wait=1.5", 400, "wait", "whole seconds from 0 to 60"),
        ("/ch/a?wait=", 400, "wait", "whole seconds from 0 to 60"),
        (
            "/ch/a?wait=99999999999999999999",
            400,
            "wait",
            "whole seconds from 0 to 60",
        ),
        ("/ch/a?since=%FF", 400, "query", "not UTF-8"),
        ("/ch/a?%ff=1", 400, "query", "not UTF-8"),
        ("/ch/a?as=pigeon", 400, "as", "no transport \"pigeon\""),
        ("/ch/a?as=", 400, "as", "no transport \"\""),
        ("/ch/a?as=iframe", 400, "callback", "needs callback="),
        (
            "/ch/a?as=iframe&callback=",
            400,
            "callback",
            "names joined by dots",
        ),
        (
            "/ch/a?as=iframe&callback=alert(1)",
            400,
            "callback",
            "names joined by dots",
        ),
        (
            "/ch/a?as=iframe&callback=a.b%3C/script%3E",
            400,
            "callback",
            "names joined by dots",
        ),
        ("/", 404, "path", "nothing is at /"),
        ("/ch", 404, "path", "channels are at /ch/NAME"),
        ("/CH/news", 404, "path", "channels are at /ch/NAME"),
        ("//ch/news", 404, "path", "channels are at /ch/NAME"),
        ("/%63h/news", 404, "path", "channels are at /ch/NAME"),
        ("/../ch/news", 404, "path", "channels are at /ch/NAME"),
        ("/metrics/", 404, "path", "nothing is at /metrics/"),
        ("/comet.js%00", 404, "path", "nothing is at"),
    ];
    for (path, status, code, message) in cases {
        is_refused(&mut client, get(path, "").as_bytes(), status, code, message);
    }
    let header = "headers of";
    let headers = [
        (
            "Last-Event-ID: x\r\nAccept: text/event-stream\r\n",
            400,
            "last-event-id",
            "RFC 3339",
        ),
        (
            "Last-Event-ID: \u{e9}\r\nAccept: text/event-stream\r\n",
            400,
            "last-event-id",
            "RFC 3339",
        ),
        ("If-None-Match: \"x\"\r\n", 400, "if-none-match", "RFC 3339"),
        ("If-None-Match: *\r\n", 400, "if-none-match", "RFC 3339"),
        (
            "If-None-Match: \"18446744073709551616\"\r\n",
            400,
            "if-none-match",
            "over the limit",
        ),
        (
            &format!("X: {}\r\n", "y".repeat(16 << 10)),
            431,
            "headers",
            header,
        ),
        (
            &(0..99)
                .map(|n| format!("X{n}: {}\r\n", "y".repeat(160)))
                .collect::<String>(),
            431,
            "headers",
            header,
        ),
    ];
    for (lines, status, code, message) in headers {
        is_refused(
            &mut client,
            get("/ch/a", lines).as_bytes(),
            status,
            code,
            message,
        );
    }
    bystander.gets_its_message(&daemon);
}

#[test]
fn publishes_are_refused_with_the_rule() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000\n");
    let bystander = Bystander::wait(&daemon);
    let mut client = Http::connect(daemon.addr());
    let long = format!("/ch/a?name={}", "x".repeat(129));
    let cases: [(&str, &str, &str, &str); 10] = [
        ("/ch/a,b", "", "channel", "published to one channel"),
        ("/ch/a/b", "", "channel", "may not contain '/'"),
        ("/ch/", "", "channel", "may not be empty"),
        ("/ch/a?name=a%0Ab", "", "name", "may not contain '\\n'"),
        (&long, "", "name", "129 bytes is over the limit of 128"),
        ("/ch/a?name=%FF", "", "query", "not UTF-8"),
        (
            "/ch/a",
            &format!("Idempotency-Key: {}\r\n", "k".repeat(1000)),
            "idempotency-key",
            "visible ASCII",
        ),
        (
            "/ch/a",
            "Idempotency-Key: \u{e9}\r\n",
            "idempotency-key",
            "visible ASCII",
        ),
        (
            "/ch/a",
            "Idempotency-Key: k\r\nIdempotency-Key: k\r\n",
            "idempotency-key",
            "more than one key",
        ),
        ("/ch/%FF", "", "channel", "not UTF-8"),
    ];
    for (path, headers, code, message) in cases {
        is_refused(
            &mut client,
            &post(path, headers, b"data"),
            400,
            code,
            message,
        );
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn methods_are_refused_with_those_that_are_allowed() {
    let daemon = Daemon::start(PUBLISHING);
    let mut client = Http::connect(daemon.addr());
    let cases = [
        ("PUT", "/ch/a", "GET, HEAD, POST"),
        ("DELETE", "/ch/a", "GET, HEAD, POST"),
        ("PATCH", "/ch/a", "GET, HEAD, POST"),
        ("TRACE", "/ch/a", "GET, HEAD, POST"),
        ("BREW", "/ch/a", "GET, HEAD, POST"),
        ("get", "/ch/a", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/comet.js", "GET, HEAD"),
        ("POST", "/comet.php", "GET, HEAD"),
        ("POST", "/chat.php", "GET, HEAD"),
        ("POST", "/clock.php", "GET, HEAD"),
    ];
    for (method, path, allowed) in cases {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = is_refused(&mut client, request.as_bytes(), 405, "method", allowed);
        assert!(
            answer
                .header("allow")
                .is_some_and(|allow| allow.starts_with(allowed)),
            "{}",
            answer.head
        );
    }
}

/// A body that nobody wants must not be taken for the next request.
#[test]
fn a_body_is_never_read_as_a_request() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000\n");
    let bystander = Bystander::wait(&daemon);
    let smuggled = post("/ch/smuggled", "", b"x");
    let padding = "x".repeat(2000 - smuggled.len());
    let body = [&smuggled, padding.as_bytes()].concat();
    let cases = [
        (
            post("/ch/a", "", &body),
            413,
            "body",
            "over the limit of 1000 bytes",
        ),
        (post("/nowhere", "", &body), 404, "path", "nothing is at"),
        (post("/healthz", "", &body), 405, "method", "allowed"),
        (
            post("/ch/a/b", "", &body),
            400,
            "channel",
            "may not contain '/'",
        ),
        (
            [get("/ch/a", "Content-Length: 2000\r\n").as_bytes(), &body].concat(),
            400,
            "body",
            "may not have a body",
        ),
        (
            [
                get("/ch/a", "Transfer-Encoding: chunked\r\n").as_bytes(),
                b"7d0\r\n",
                &body,
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
            400,
            "body",
            "may not have a body",
        ),
    ];
    for (request, status, code, message) in cases {
        let shown = String::from_utf8_lossy(&request[..30]).into_owned();
        let head = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        // With its head, behind it, and behind the answer.
        for split in [request.len(), head, head + 1] {
            let mut client = Http::connect(daemon.addr());
            client.send(&request[..split]);
            if split == head {
                wait_for("the head to be read", || {
                    (metric(&daemon, "comet_http_requests_total") > 0).then_some(())
                });
            }
            send_some(&mut client, &request[split..]);
            let told = refusal(&client.answer());
            assert_eq!((told.0, &*told.1), (status, code), "{shown:?}");
            assert!(told.2.contains(message), "{shown:?}: {}", told.2);
            // Kept, when the body was there to be passed over; otherwise closed. Nothing else is answered.
            half_close(&client);
            let rest = client.rest();
            assert!(
                rest.is_empty(),
                "{shown:?}: {}",
                String::from_utf8_lossy(&rest)
            );
        }
        let mut client = Http::connect(daemon.addr());
        client.send(&request[..head]);
        assert_eq!(client.answer().status, status, "{shown:?}");
        send_some(&mut client, &request[head..]);
        assert!(client.is_closed(), "{shown:?}");
    }
    assert!(daemon.history("smuggled").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_small_body_that_is_not_wanted_keeps_the_connection() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    is_refused(
        &mut client,
        &post("/ch/a", "", b"x"),
        403,
        "forbidden",
        "publish = true under [http]",
    );
    is_refused(
        &mut client,
        &post("/healthz", "", b"x"),
        405,
        "method",
        "allowed",
    );
    let with_body = [get("/ch/a", "Content-Length: 1\r\n").as_bytes(), b"x"].concat();
    is_refused(
        &mut client,
        &with_body,
        400,
        "body",
        "a GET request may not have a body",
    );
}

/// The client sends on and on, and would not see an answer that a reset overtakes.
#[test]
fn a_client_that_is_still_sending_learns_that_its_body_is_too_large() {
    let daemon = Daemon::start(PUBLISHING);
    let bystander = Bystander::wait(&daemon);
    let length = 16 << 20;
    let heads = [
        format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"),
        format!(
            "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n"
        ),
    ];
    for head in heads {
        let mut client = Http::connect(daemon.addr());
        client.send(&head);
        send_some(&mut client, &vec![b'x'; length]);
        let answer = client.answer();
        assert_eq!(
            refusal(&answer),
            (
                413,
                "body".into(),
                "body is over the limit of 1048576 bytes".into()
            )
        );
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_body_of_just_the_limit_is_taken() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000\n");
    let mut client = Http::connect(daemon.addr());
    let body = "x".repeat(1000);
    client.send(post("/ch/a", "", body.as_bytes()));
    assert_eq!(client.answer().status, 201);
    client.send(format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{body}\r\n0\r\n\r\n"));
    assert_eq!(client.answer().status, 201);
    assert_eq!(daemon.history("a").len(), 2);
    let chunks = format!(
        "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{body}\r\n1\r\nx\r\n0\r\n\r\n"
    );
    client.send(chunks);
    assert_eq!(refusal(&client.answer()).0, 413);
}

/// curl asks before it sends more than a kilobyte.
#[test]
fn a_client_that_asks_before_it_sends_is_told() {
    let daemon = Daemon::start(PUBLISHING);
    let head = |length| {
        format!(
            "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut client = Http::connect(daemon.addr());
    client.send(head(4));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("data");
    assert_eq!(client.answer().status, 201);
    client.send(head(100 << 20));
    assert_eq!(refusal(&client.answer()).0, 413);
}

/// hyper refuses these by itself; the answer is ours all the same, and the connection is over.
#[test]
fn what_is_no_request_is_answered_and_closed() {
    let daemon = Daemon::start("");
    let bystander = Bystander::wait(&daemon);
    let no_request = "this is no HTTP request";
    let many = (0..101).map(|n| format!("X{n}: y\r\n")).collect::<String>();
    let megabyte = "x".repeat(1 << 20);
    let ten_thousand = (0..10_000)
        .map(|n| format!("c{n}"))
        .collect::<Vec<_>>()
        .join(",");
    let cases: [(Vec<u8>, u16, &str, &str); 17] = [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".into(),
            400,
            "request",
            no_request,
        ), // TLS
        (b"garbage\r\n\r\n".into(), 400, "request", no_request),
        (b"{\"op\":\"ping\"}\n".into(), 400, "request", no_request),
        (b"\0\0\0\0\r\n\r\n".into(), 400, "request", no_request),
        (b"GET\r\n\r\n".into(), 400, "request", no_request),
        (
            b"GET /ch/a b HTTP/1.1\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"GET /ch/a HTTP/9.9\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"GET ch/a HTTP/1.1\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"GET /ch/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"GET /ch/a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"GET /ch/a HTTP/1.1\r\nno colon\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"GET /ch/a HTTP/1.1\r\nA: b\0c\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"POST /ch/a HTTP/1.1\r\nContent-Length: -1\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".into(),
            400,
            "request",
            no_request,
        ),
        (get("/", &many).into(), 431, "headers", "100 lines"),
        (
            get("/", &format!("X: {megabyte}\r\n")).into(),
            431,
            "headers",
            "over the limit of 16384 bytes",
        ),
        (
            get(&format!("/ch/{megabyte}"), "").into(),
            414,
            "url",
            "over the limit of 8192 bytes",
        ),
    ];
    let more = [(
        get(&format!("/ch/{ten_thousand}"), "").into(),
        414,
        "url",
        "over the limit of 8192 bytes",
    )];
    for (request, status, code, message) in cases.into_iter().chain(more) {
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        for before in ["", &get("/healthz", "")] {
            let mut client = Http::connect(daemon.addr());
            send_some(&mut client, &[before.as_bytes(), &request].concat());
            if !before.is_empty() {
                assert_eq!(client.answer().body, "ok\n", "before {shown:?}");
            }
            let answer = client.answer();
            let told = refusal(&answer);
            assert_eq!((told.0, &*told.1), (status, code), "{shown:?}: {}", told.2);
            assert!(told.2.contains(message), "{shown:?}: {}", told.2);
            assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
            assert_eq!(
                answer.header("content-type"),
                Some("application/json"),
                "{shown:?}"
            );
            assert!(client.rest().is_empty(), "{shown:?}");
        }
    }
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_head_that_is_not_completed_in_time_is_answered_and_closed() {
    let daemon = Daemon::start("[http]\nheader_time = \"300ms\"\n");
    let bystander = Bystander::wait(&daemon);
    for begin in [
        "GET /ch/a HTT",
        "GET /ch/a HTTP/1.1\r\nHost: localhost\r\n",
        "POST",
        "\r\n",
    ] {
        for before in ["", &get("/healthz", "")] {
            let mut client = Http::connect(daemon.addr());
            client.send(format!("{before}{begin}"));
            if !before.is_empty() {
                assert_eq!(client.answer().body, "ok\n");
            }
            let answer = client.answer();
            let message = "the head of the request was not complete after 300ms";
            assert_eq!(
                refusal(&answer),
                (408, "timeout".into(), message.into()),
                "{begin:?}"
            );
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(client.is_closed());
        }
    }
    bystander.gets_its_message(&daemon);
}

/// It could be a request, or HTTP/2's preface: too little to answer.
#[test]
fn a_client_that_begins_and_says_no_more_is_closed() {
    let daemon = Daemon::start("[http]\nheader_time = \"300ms\"\nidle = \"1s\"\n");
    for begin in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        let mut client = Http::connect(daemon.addr());
        client.send(begin);
        assert!(client.is_closed(), "{begin:?}");
    }
}

#[test]
fn a_body_that_is_not_completed_in_time_is_answered_and_closed() {
    let daemon = Daemon::start("[http]\npublish = true\nbody_time = \"300ms\"\n");
    let bystander = Bystander::wait(&daemon);
    for head in [
        "Content-Length: 10\r\n\r\nfive!",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n",
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\n{head}"));
        let answer = client.answer();
        assert_eq!(
            refusal(&answer),
            (
                408,
                "timeout".into(),
                "the body was not complete after 300ms".into()
            )
        );
        assert!(client.is_closed());
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn half_a_request_is_no_publish() {
    let daemon = Daemon::start(PUBLISHING);
    let bystander = Bystander::wait(&daemon);
    let request = post("/ch/a", "", b"0123456789");
    for length in [
        1,
        10,
        request.len() - 11,
        request.len() - 10,
        request.len() - 1,
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(&request[..length]);
        half_close(&client);
        let rest = client.rest(); // an error, or nothing
        assert!(
            !rest.starts_with(b"HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&rest)
        );
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_chunk_that_is_malformed_is_no_publish() {
    let daemon = Daemon::start(PUBLISHING);
    for body in [
        "xyz\r\nab\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "ffffffffffffffffff\r\n",
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(format!(
            "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        let (status, code, _) = refusal(&client.answer());
        assert_eq!((status, &*code), (400, "body"), "{body:?}");
        assert!(client.is_closed());
    }
    assert!(daemon.history("a").is_empty());
}

#[test]
fn connections_over_the_limit_are_refused_and_others_go_on() {
    let daemon = Daemon::start("[http]\nmax_connections = 10\n");
    let bystander = Bystander::wait(&daemon);
    wait_for("the one that asked to leave", || {
        let mut clients: Vec<Http> = (0..9).map(|_| Http::connect(daemon.addr())).collect();
        let served = clients.iter_mut().all(|client| {
            send_some(client, get("/healthz", "").as_bytes());
            client.answer().status == 200
        });
        if !served {
            return None;
        }
        let mut refused = Http::connect(daemon.addr());
        let answer = refused.answer(); // without a request
        let message = "more than 10 connections are open; try again later";
        assert_eq!(
            refusal(&answer),
            (503, "connections".into(), message.into())
        );
        assert!(answer.header("retry-after").is_some());
        assert!(refused.is_closed());
        // Those within the limit are still served, and room is given back.
        clients[0].send(get("/healthz", ""));
        assert_eq!(clients[0].answer().status, 200);
        Some(())
    });
    wait_for("room", || {
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, get("/healthz", "").as_bytes());
        (client.answer().status == 200).then_some(())
    });
    bystander.gets_its_message(&daemon);
    assert!(metric(&daemon, "comet_http_refused_total") > 0);
}

#[test]
fn without_descriptors_those_that_are_open_go_on_and_others_wait() {
    let daemon = Daemon::start("workers = 1");
    let mut open = Http::connect(daemon.addr());
    open.send(get("/healthz", ""));
    assert_eq!(open.answer().status, 200);
    let limit = |limit: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &daemon.pid().to_string()]);
        let set = prlimit.arg(format!("--nofile={limit}:")).status();
        assert!(set.unwrap().success());
    };
    let soft = rlimit(&daemon);
    limit("3"); // fewer than are in use
    let mut waits = Http::connect(daemon.addr()); // by the kernel
    waits.send(get("/healthz", ""));
    wait_for("a pause", || {
        open.send(get("/metrics", ""));
        let metrics = open.answer().body;
        let pauses = metrics
            .lines()
            .find_map(|line| line.strip_prefix("comet_http_accept_pauses_total "))
            .map(|pauses| pauses.parse::<u64>().unwrap());
        pauses.filter(|pauses| *pauses >= 2)
    });
    let log = daemon.log();
    assert_eq!(log.matches("cannot accept connections").count(), 1, "{log}");
    limit(&soft);
    assert_eq!(waits.answer().status, 200);
}

fn rlimit(daemon: &Daemon) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().next());
    soft.unwrap().to_owned()
}

/// It sends requests and takes no answer: hyper alone would wait for it without end.
#[test]
fn a_client_that_never_reads_is_cut() {
    let daemon = Daemon::start("[http]\nwrite_time = \"300ms\"\n");
    let bystander = Bystander::wait(&daemon);
    let before = metric(&daemon, "comet_http_connections");
    let mut client = Http::connect(daemon.addr());
    client.stream.set_nonblocking(true).unwrap();
    let requests = get("/comet.js", "").repeat(1000);
    wait_for("the cut", || {
        match client.stream.write(requests.as_bytes()) {
            Ok(_) => None,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => Some(()),
        }
    });
    wait_for("its connection", || {
        (metric(&daemon, "comet_http_connections") == before).then_some(())
    });
    bystander.gets_its_message(&daemon);
}

#[test]
fn random_bytes_disturb_nobody() {
    let daemon = Daemon::start("[http]\nheader_time = \"200ms\"\n");
    let bystander = Bystander::wait(&daemon);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        // xorshift: the same bytes each time
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..100 {
        let valid = get("/ch/a?since=0&wait=0", "Accept: text/event-stream\r\n").into_bytes();
        let mut bytes: Vec<u8> = match random() % 2 {
            0 => (0..random() % 500).map(|_| random() as u8).collect(),
            _ => valid,
        };
        for _ in 0..random() % 4 {
            let length = bytes.len();
            if length > 0 {
                bytes[random() as usize % length] = random() as u8;
            }
        }
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, &bytes);
        half_close(&client);
        let _ = client.stream.read(&mut [0; 64]);
    }
    wait_for_subscribers(&daemon, 1);
    bystander.gets_its_message(&daemon);
}

#[test]
fn many_bad_clients_at_once_leave_nothing_behind() {
    let daemon = Daemon::start("[http]\nheader_time = \"200ms\"\n");
    let bystander = Bystander::wait(&daemon);
    let mut clients: Vec<Http> = (0..100).map(|_| Http::connect(daemon.addr())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let bytes: &[u8] = [
            b"GET /" as &[u8],
            b"\xff\xfe\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0",
            b"",
        ][n % 4];
        client.send(bytes);
    }
    drop(clients);
    wait_for("their connections", || {
        (metric(&daemon, "comet_http_connections") <= 2).then_some(())
    });
    bystander.gets_its_message(&daemon);
    assert_eq!(ask(&daemon, get("/healthz", "")).body, "ok\n");
}

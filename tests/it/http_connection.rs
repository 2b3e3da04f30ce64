//! HTTP connections: HTTP/1.0, idle connections, and many pipelined requests.

use crate::{
    daemon::{Daemon, Http},
    wire::{ask, data, get, parked, post},
};

#[test]
fn http_1_0_is_answered_and_closed() {
    let daemon = Daemon::start("");
    let id = daemon.publish("a", "kept");
    for (request, body) in [
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), "ok\n"),
        (
            format!("GET /ch/a?since={} HTTP/1.0\r\n\r\n", id - 1),
            "kept",
        ),
        (
            format!("GET /ch/a?since={id}&wait=0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            "\"messages\":[]",
        ),
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(&request);
        let answer = client.answer();
        assert!(
            answer.status == 200 && answer.body.contains(body),
            "{request}: {answer:?}"
        );
        assert!(answer.header("content-length").is_some());
        assert_eq!(answer.header("transfer-encoding"), None);
        if request.starts_with("GET /ch/") {
            assert_eq!(answer.header("connection"), Some("close"));
        }
        assert!(client.is_closed(), "{request}");
    }
    let mut client = parked(&daemon, "GET /ch/a HTTP/1.0\r\n\r\n");
    daemon.publish("a", "live");
    assert_eq!(data(&client.answer()), ["live"]);
    assert!(client.is_closed());
}

#[test]
fn the_request_line_may_contain_an_absolute_url() {
    let daemon = Daemon::start("");
    daemon.publish("a", "x");
    let request =
        "GET http://anything.localhost/ch/a?since=0 HTTP/1.1\r\nHost: anything.localhost\r\n\r\n";
    assert_eq!(data(&ask(&daemon, request)), ["x"]);
    let connect = "CONNECT anything.localhost:443 HTTP/1.1\r\nHost: anything.localhost\r\n\r\n";
    assert!(matches!(ask(&daemon, connect).status, 404 | 405));
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let daemon = Daemon::start("[http]\nidle = \"1s\"\n");
    let mut client = Http::connect(daemon.addr());
    for _ in 0..3 {
        client.send(get("/healthz", ""));
        assert_eq!(client.answer().body, "ok\n");
        client.send(get("/ch/a?wait=0", ""));
        assert_eq!(client.answer().status, 200);
    }
    assert!(client.is_closed());
    assert!(Http::connect(daemon.addr()).is_closed()); // one that never asked
}

/// Old clients send an empty line after the body of a `POST` (RFC 9112, section 2.2). It begins no request, so it does
/// not have to become one within `header_time`.
#[test]
fn empty_lines_between_requests_do_not_end_the_connection() {
    let daemon = Daemon::start("[http]\npublish = true\nheader_time = \"200ms\"\n");
    let mut client = Http::connect(daemon.addr());
    for lines in ["\r\n", "\r\n\r\n"] {
        let lines_and_request = [
            lines.as_bytes(),
            &post("/ch/a", "", b"hi"),
            lines.as_bytes(),
        ];
        client.send(lines_and_request.concat());
        assert_eq!(client.answer().status, 201);
        let mut other = Http::connect(daemon.addr());
        other.send(format!("{lines}GET"));
        assert_eq!(other.answer().status, 408); // more than `header_time` has passed
    }
    daemon.signal("TERM");
    assert!(client.is_closed());
}

/// A poll may wait longer than an idle connection is kept.
#[test]
fn a_waiting_poll_does_not_count_as_idle() {
    let daemon =
        Daemon::start("[http]\nidle = \"1s\"\nheader_time = \"300ms\"\nwrite_time = \"300ms\"\n");
    let mut client = parked(&daemon, get("/ch/a?wait=60", ""));
    assert!(Http::connect(daemon.addr()).is_closed()); // so long
    assert!(Http::connect(daemon.addr()).is_closed()); // and again
    daemon.publish("a", "x");
    assert_eq!(data(&client.answer()), ["x"]);
}

/// Many connections at the same time, each with many pipelined requests.
#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let daemon = Daemon::start("");
    let ids: Vec<u64> = (0..50)
        .map(|n| daemon.publish("a", &n.to_string()))
        .collect();
    let requests: String = (0..1000)
        .map(|n| match n % 4 {
            0 => get("/healthz", ""),
            1 => get("/nowhere", ""),
            _ => get(&format!("/ch/a?since={}&wait=0", ids[n % 50]), ""),
        })
        .collect();
    let mut client = Http::connect(daemon.addr());
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, requests.as_bytes()).unwrap()
    });
    for n in 0..1000 {
        let answer = client.answer();
        match n % 4 {
            0 => assert_eq!(answer.body, "ok\n"),
            1 => assert_eq!(answer.status, 404),
            _ => assert_eq!(data(&answer).len(), 49 - n % 50),
        }
    }
    sending.join().unwrap();
}

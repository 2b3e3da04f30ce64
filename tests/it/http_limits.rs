//! Clients that send no request, stop in the middle, or are too many: they get an answer and are closed. No other
//! client is disturbed.

use std::{
    io::{Read, Write},
    process::Command,
};

use crate::{
    daemon::{Daemon, Http, wait_for},
    wire::{ask, data, get, half_close, metric, parked, refusal, send_some, wait_for_subscribers},
};

pub(crate) const PUBLISHING: &str = "[http]\npublish = true\n";

/// A client that waits while others misbehave, and must get its message in the end.
pub(crate) struct Bystander {
    client: Http,
}

impl Bystander {
    pub(crate) fn wait(daemon: &Daemon) -> Self {
        Self {
            client: parked(daemon, get("/ch/bystander", "")),
        }
    }

    pub(crate) fn gets_its_message(mut self, daemon: &Daemon) {
        daemon.publish("bystander", "undisturbed");
        assert_eq!(data(&self.client.answer()), ["undisturbed"]);
    }
}

/// hyper refuses these requests by itself. The answer is still in Comet's format, and the connection ends.
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
        "\r\nGET",
        "\r",
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

/// These bytes could begin a request or HTTP/2's preface. They are too few for an answer.
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
        // Clients within the limit are still served, and freed connections can be used again.
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

/// The client sends requests and reads no answer. hyper alone would wait for it without end.
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
        // xorshift: the same bytes in each run
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

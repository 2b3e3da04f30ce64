//! Clients that send a request, close their sending side, and still read: they are answered at once (RFC 9112, section
//! 6.3). A client that has left altogether looks the same, and leaves no memory behind.

use crate::{
    daemon::{Daemon, Http, feed},
    wire::{
        WEBSOCKET, cursor, data, descriptors, get, half_close, parked, post, refusal, send_some,
        wait_for_all_workers, wait_for_subscribers,
    },
};

const PUBLISHING: &str = "[http]\npublish = true\n";

/// Requests of each transport, and what their answers contain after this id.
fn transports(id: u64) -> [(String, String, String); 9] {
    let poll = format!("{{\"cursor\":\"{id}\",\"gap\":false,\"messages\":[]}}");
    let sign = format!("id: {id}\nevent: cursor\n");
    let chunked_end = "\r\n0\r\n\r\n".to_owned();
    [
        (get("/ch/a", ""), "HTTP/1.1 200 ".to_owned(), poll.clone()),
        // A request that hyper handles.
        (get("/ch/%61", ""), "HTTP/1.1 200 ".to_owned(), poll.clone()),
        (
            "GET /ch/a HTTP/1.0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 ".to_owned(),
            poll,
        ),
        (get("/ch/a?as=sse", ""), sign.clone(), chunked_end.clone()),
        (
            "GET /ch/a?as=sse HTTP/1.0\r\n\r\n".to_owned(),
            "text/event-stream".to_owned(),
            sign,
        ),
        (
            get("/ch/a?as=iframe&callback=f", ""),
            "text/html".to_owned(),
            chunked_end.clone(),
        ),
        (
            get("/comet.php?subscribed[a]=9999999999", ""),
            "HTTP/1.1 200 ".to_owned(),
            "{\"s\":0}".to_owned(),
        ),
        (
            get("/chat.php", ""),
            "HTTP/1.1 503 ".to_owned(),
            "\r\n\r\n".to_owned(),
        ),
        (
            get("/clock.php", ""),
            "printServerTime".to_owned(),
            chunked_end,
        ),
    ]
}

#[test]
fn who_waits_and_closes_the_sending_side_is_answered() {
    let daemon = Daemon::start("");
    let id = daemon.publish("other", "x");
    for (request, begin, end) in transports(id) {
        let mut early = Http::connect(daemon.addr());
        early.send(&request);
        half_close(&early);
        let mut late = parked(&daemon, &request);
        half_close(&late);
        for client in [&mut early, &mut late] {
            let told = String::from_utf8(client.rest()).unwrap();
            assert!(told.contains(&begin), "{request}: {told}");
            assert!(
                told.trim_end_matches("\n\n").contains(&end),
                "{request}: {told}"
            );
        }
    }
    wait_for_subscribers(&daemon, 0);
}

/// Each line of the request, and the end, may arrive separately.
#[test]
fn however_the_request_is_cut() {
    let daemon = Daemon::start("workers = 1");
    let request = get("/ch/a", "");
    for at in 1..request.len() {
        let mut client = Http::connect(daemon.addr());
        client.send(&request[..at]);
        client.send(&request[at..]);
        half_close(&client);
        assert_eq!(data(&client.answer()).len(), 0, "cut at {at}");
        assert!(client.is_closed(), "cut at {at}");
    }
}

#[test]
fn a_websocket_is_closed_in_order() {
    let daemon = Daemon::start("");
    for is_early in [true, false] {
        let mut client = Http::connect(daemon.addr());
        client.send(get("/ch/a", WEBSOCKET));
        if is_early {
            half_close(&client);
        }
        assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 101 "));
        if !is_early {
            wait_for_subscribers(&daemon, 1);
            half_close(&client);
        }
        assert_eq!(client.rest(), [0x88, 2, 0x03, 0xe8]); // close, 1000
        wait_for_subscribers(&daemon, 0);
    }
}

/// The answer has the published message, whether the end arrives before or after the message.
#[test]
fn messages_that_are_there_are_in_the_answer() {
    let daemon = Daemon::start("");
    let first = daemon.publish("a", "one");
    for path in ["/ch/a", "/ch/%61"] {
        let mut client = Http::connect(daemon.addr());
        client.send(get(&format!("{path}?since={}", first - 1), ""));
        half_close(&client);
        assert_eq!(data(&client.answer()), ["one"]);
        assert!(client.is_closed());
    }
    let mut events = Http::connect(daemon.addr());
    events.send(get(&format!("/ch/a?as=sse&since={}", first - 1), ""));
    half_close(&events);
    let told = String::from_utf8(events.rest()).unwrap();
    assert!(
        told.contains("\"data\":\"one\"") && told.ends_with("0\r\n\r\n"),
        "{told}"
    );
}

#[test]
fn requests_behind_a_poll_are_served_after_it() {
    let daemon = Daemon::start(PUBLISHING);
    let id = daemon.publish("other", "x");
    let poll = get("/ch/a", "");
    let behind = [post("/ch/b", "", b"late"), get("/healthz", "").into()].concat();
    for together in [true, false] {
        for poll in [&poll, &get("/ch/%61", "")] {
            let mut client = if together {
                let mut client = Http::connect(daemon.addr());
                client.send([poll.as_bytes(), &behind, poll.as_bytes()].concat());
                client
            } else {
                let mut client = parked(&daemon, poll);
                client.send([&behind, poll.as_bytes()].concat());
                client
            };
            half_close(&client);
            let answer = client.answer();
            assert_eq!((answer.status, data(&answer).len()), (200, 0));
            assert!(cursor(&answer) >= id);
            assert_eq!(client.answer().status, 201);
            assert_eq!(client.answer().body, "ok\n");
            assert_eq!(client.answer().status, 200);
            assert!(client.is_closed());
        }
    }
    assert_eq!(daemon.history("b").len(), 4);
    // Half a request after the poll is no request, and the client is told so.
    let mut client = Http::connect(daemon.addr());
    client.send(format!("{poll}GET /healthz HTT"));
    half_close(&client);
    assert_eq!(client.answer().status, 200);
    assert_eq!(refusal(&client.answer()).0, 400);
    assert!(client.is_closed());
}

#[test]
fn a_request_that_breaks_off_is_told_so() {
    let daemon = Daemon::start(PUBLISHING);
    let chunked = "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = post("/ch/a", "", b"0123456789");
    let cases: [(Vec<u8>, &str); 7] = [
        (whole[..whole.len() - 5].into(), "body"),
        (whole[..whole.len() - 10].into(), "body"),
        (format!("{chunked}5\r\n01").into(), "body"),
        (format!("{chunked}5\r\n01234\r\n").into(), "body"),
        (chunked.into(), "body"),
        (whole[..20].into(), "request"),
        (b"GET /ch/a".into(), "request"),
    ];
    for (request, code) in cases {
        let shown = String::from_utf8_lossy(&request).into_owned();
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, &request);
        half_close(&client);
        let answer = client.answer();
        let told = refusal(&answer);
        assert_eq!((told.0, &*told.1), (400, code), "{shown:?}: {}", told.2);
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert!(client.is_closed(), "{shown:?}");
    }
    assert!(daemon.history("a").is_empty());
    // A complete request is served. No bytes, or half of HTTP/2's preface, get no answer.
    let mut client = Http::connect(daemon.addr());
    client.send(&whole);
    half_close(&client);
    assert_eq!(client.answer().status, 201);
    assert!(client.is_closed());
    for nothing in ["", "\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut client = Http::connect(daemon.addr());
        client.send(nothing);
        half_close(&client);
        assert!(client.is_closed(), "{nothing:?}");
    }
}

/// As people try it: `printf … | socat`.
#[test]
fn a_pipe_into_socat_gets_its_answer() {
    let daemon = Daemon::start("");
    let id = daemon.publish("other", "x");
    let mut socat = std::process::Command::new("socat");
    socat.args(["-t5", "-", &format!("TCP:{}", daemon.addr())]);
    let told = feed(&mut socat, get("/ch/x?wait=60", "").as_bytes());
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.ends_with(&format!(
            "{{\"cursor\":\"{id}\",\"gap\":false,\"messages\":[]}}"
        )),
        "{told}"
    );
}

#[test]
fn who_has_gone_altogether_leaves_nothing_behind() {
    let daemon = Daemon::start("");
    wait_for_all_workers(&daemon);
    let before = descriptors(&daemon);
    let mut clients = Vec::new();
    for n in 0..20 {
        for (request, ..) in transports(0) {
            let mut client = Http::connect(daemon.addr());
            client.send(request);
            if n % 3 == 0 {
                client.send(get("/ch/b", "")); // unread, which resets
            }
            clients.push(client);
        }
        let mut client = Http::connect(daemon.addr());
        client.send(get("/ch/a", WEBSOCKET));
        clients.push(client);
    }
    wait_for_subscribers(&daemon, clients.len() as u64);
    drop(clients);
    wait_for_subscribers(&daemon, 0);
    crate::daemon::wait_for("the descriptors", || {
        (descriptors(&daemon) <= before).then_some(())
    });
}

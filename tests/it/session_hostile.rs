//! Clients of sessions that break the rules, or follow them without end.

use std::{
    io::{ErrorKind, Write},
    net::Shutdown,
};

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Http, wait_for},
    session::Session,
    websocket_hostile::{frame, read},
    wire::{WEBSOCKET, data, get, half_close, parked, wait_for_subscribers},
};

/// An open session, after its handshake.
fn open(daemon: &Daemon) -> Http {
    let mut client = Http::connect(daemon.addr());
    client.send(get("/session", WEBSOCKET));
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

fn text(request: &Value) -> Vec<u8> {
    frame(0x81, request.to_string().as_bytes())
}

#[test]
fn what_is_no_request_is_refused_and_the_session_goes_on() {
    let daemon = Daemon::start("");
    let mut session = Session::open(&daemon);
    session.subscribe(&["a"]);
    for (request, code) in [
        ("", "line"),
        ("hello", "line"),
        ("[]", "line"),
        ("{}", "line"),
        ("{\"op\":7}", "line"),
        ("{\"op\":\"ping\",\"more\":1}", "line"),
        ("{\"op\":\"ping\"}{\"op\":\"ping\"}", "line"),
        ("{\"op\":\"ping\",\"ref\":1,\"ref\":2}", "line"),
        ("{\"op\":\"dance\"}", "op"),
        ("{\"op\":\"status\"}", "op"),
        ("{\"op\":\"token\"}", "token"),
        (
            "{\"op\":\"subscribe\",\"channels\":[\".presence.a\"]}",
            "channels",
        ),
        (
            "{\"op\":\"subscribe\",\"channels\":[\"a\"],\"since\":\"soon\"}",
            "since",
        ),
        ("{\"op\":\"publish\",\"channel\":\"a\",\"data\":1}", "line"),
    ] {
        session.0.send(tungstenite::Message::text(request)).unwrap();
        let reply = session.next();
        assert_eq!(
            (&reply["ok"], &reply["error"]),
            (&json!(false), &json!(code)),
            "{request}"
        );
    }
    let deep = format!("{{\"op\":\"ping\",\"ref\":{}", "[".repeat(60_000));
    session.0.send(tungstenite::Message::text(deep)).unwrap();
    assert_eq!(session.next()["error"], "line");
    // Blanks and line ends around a request mean nothing.
    session
        .0
        .send(tungstenite::Message::text(" {\"op\":\"ping\"}\r\n"))
        .unwrap();
    assert_eq!(session.next(), json!({"ok": true}));
    daemon.publish("a", "still here");
    assert_eq!(session.data(), "still here");
}

#[test]
fn a_session_has_a_hundred_channels_at_most() {
    let daemon = Daemon::start("");
    let mut session = Session::open(&daemon);
    let names = |range: std::ops::Range<usize>| range.map(|n| format!("c{n}")).collect::<Vec<_>>();
    let subscribe = |names: Vec<String>| json!({"op": "subscribe", "channels": names});
    assert_eq!(session.refused(&subscribe(names(0..101))), "channels");
    session.done(&subscribe(names(0..60)));
    assert_eq!(session.refused(&subscribe(names(59..101))), "channels");
    session.done(&subscribe(names(50..100)));
    session.done(&json!({"op": "unsubscribe", "channels": ["c7"]}));
    session.done(&subscribe(names(100..101)));
    daemon.publish("c7", "unheard");
    daemon.publish("c100", "heard");
    assert_eq!(session.data(), "heard");
}

#[test]
fn a_hundred_thousand_channels_leave_nothing_behind() {
    const ROUND: usize = 500;
    let daemon = Daemon::start("workers = 1");
    let mut client = open(&daemon);
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let round = |client: &mut Http, first: usize| {
        let mut requests = Vec::new();
        for number in first..first + ROUND {
            let name = format!("{number:0>100}");
            requests.extend(text(&json!({"op": "subscribe", "channels": [name]})));
            requests.extend(text(&json!({"op": "unsubscribe", "channels": [name]})));
        }
        client.send(&requests);
        for _ in 0..2 * ROUND {
            assert_eq!(read(client), (0x81, b"{\"ok\":true}".to_vec()));
        }
    };
    (0..40).for_each(|number| round(&mut client, number * ROUND));
    let before = daemon.memory("VmRSS");
    (40..200).for_each(|number| round(&mut client, number * ROUND));
    let after = daemon.memory("VmRSS");
    assert!(after < before + (16 << 20), "{before} and now {after}");
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
}

#[test]
fn messages_and_frames_have_a_limit() {
    let daemon = Daemon::start("");
    let (protocol, unsupported, invalid, size) = (1002_u16, 1003_u16, 1007_u16, 1009_u16);
    let fragment = |first: u8| frame(first, &[b'x'; 40_000]);
    let huge = [&[0x81, 0xff, 0x7f][..], &[255; 7], &[0; 4]].concat();
    for (bytes, code) in [
        (huge, size),
        (
            [&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1][..], &[0; 4]].concat(),
            size,
        ), // 64 KiB and a byte
        ([fragment(0x01), fragment(0x00)].concat(), size),
        (frame(0x82, b"binary"), unsupported),
        (frame(0x81, b"\xff"), invalid),
        (vec![0x81, 1, b'x'], protocol), // not masked
        (frame(0xc1, b"x"), protocol),   // a bit of an extension
        (frame(0x80, b"x"), protocol),   // nothing has begun
        ([frame(0x01, b"x"), frame(0x81, b"x")].concat(), protocol),
        (frame(0x88, b"x"), protocol), // half a code
    ] {
        let mut client = open(&daemon);
        client.send(&bytes);
        assert_eq!(
            read(&mut client),
            (0x88, code.to_be_bytes().to_vec()),
            "{code}"
        );
        assert!(client.is_closed());
    }
    // The largest message, in fragments with a ping between them.
    let request = json!({"op": "ping", "ref": 1}).to_string();
    let largest = format!("{request}{}", " ".repeat(65_536 - request.len()));
    let (begin, end) = largest.as_bytes().split_at(30_000);
    let mut client = open(&daemon);
    client.send([frame(0x01, begin), frame(0x89, b"?"), frame(0x80, end)].concat());
    assert_eq!(read(&mut client), (0x8a, b"?".to_vec()));
    assert_eq!(read(&mut client).1, b"{\"ref\":1,\"ok\":true}");
    wait_for_subscribers(&daemon, 1);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_from() {
    let daemon = Daemon::start("workers = 1");
    for number in 0..10 {
        daemon.publish("a", &format!("{number}{}", "x".repeat(20_000)));
    }
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let mut client = open(&daemon);
    let before = daemon.memory("VmRSS");
    // Each of these requests has an answer of 200 KB.
    let request = text(&json!({"op": "history", "channels": ["a"]}));
    client.stream.set_nonblocking(true).unwrap();
    let mut sent = Vec::new();
    let mut is_full_since = None;
    wait_for("a full socket", || {
        match client.stream.write(&request.repeat(100)) {
            Ok(count) => {
                sent.push(count);
                is_full_since = None;
                None
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                // Full for good: nothing was taken while another client got an answer a hundred times.
                let times = is_full_since.get_or_insert(0);
                assert_eq!(daemon.get("/healthz").status, 200);
                *times += 1;
                (*times > 100).then_some(())
            }
        }
    });
    assert!(daemon.memory("VmRSS") < before + (8 << 20), "{before}");
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
    // When the client reads, it gets every answer.
    client.stream.set_nonblocking(false).unwrap();
    let whole = sent.iter().sum::<usize>() / request.len();
    assert!(whole > 100);
    for _ in 0..100 {
        client.until_bytes(b"\"gap\":false}");
    }
}

#[test]
fn a_client_that_closes_its_sending_side_gets_its_last_messages() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let mut client = open(&daemon);
    client.send(text(&json!({"op": "subscribe", "channels": ["a"]})));
    client.send(text(&json!({"op": "publish", "channel": "a", "data": "x"})));
    half_close(&client);
    let rest = client.rest();
    let rest_text = String::from_utf8_lossy(&rest);
    assert!(rest_text.contains("\"data\":\"x\""), "{rest_text}");
    assert!(rest.ends_with(&[0x88, 2, 0x03, 0xe8]), "{rest_text}");
    // A client that has disconnected leaves nothing behind, also within a message.
    let mut client = open(&daemon);
    client.send(&text(&json!({"op": "ping"}))[..9]);
    client.stream.shutdown(Shutdown::Both).unwrap();
    wait_for_subscribers(&daemon, 0);
}

/// Each client sends the beginning of a message that never ends.
#[test]
fn unfinished_messages_are_bounded_by_the_memory_for_connections() {
    let daemon = Daemon::start("[http]\nmax_memory = \"2MiB\"\n");
    let mut whole = frame(0x81, &[b'x'; 60_000]);
    whole.truncate(50_000);
    let mut clients: Vec<Http> = (0..60).map(|_| open(&daemon)).collect();
    for client in &mut clients {
        client.send(&whole);
        client.stream.set_nonblocking(true).unwrap();
    }
    let refused = wait_for("a client without room", || {
        clients.iter().find_map(|client| {
            let mut head = [0; 4];
            let read = client.stream.peek(&mut head);
            read.is_ok_and(|read| read == 4).then_some(head)
        })
    });
    assert_eq!(refused, [0x88, 2, 0x03, 0xf5]); // 1013
}

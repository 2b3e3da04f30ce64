//! The Unix socket: its requests and replies, and its limits.

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    thread,
};

use serde_json::{Value, json};

use crate::daemon::{Daemon, Lines, wait_for};

pub(crate) fn connect(daemon: &Daemon) -> Lines {
    Lines::connect(&daemon.socket_path())
}

pub(crate) fn publish(channel: &str, data: &str) -> String {
    json!({"op": "publish", "channel": channel, "data": data}).to_string()
}

#[test]
fn publishes_text_and_any_bytes() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let first = client.ask(r#"{"op":"publish","channel":"news","data":"hé \"\n","name":"paid"}"#);
    let second = client.ask(r#"{"op":"publish","channel":"news","data_base64":"/wA="}"#);
    let third = client.ask(r#"{"op":"publish","channel":"news"}"#);
    assert_eq!(first["ok"], true);
    assert!(
        first["id"].as_u64() < second["id"].as_u64()
            && second["id"].as_u64() < third["id"].as_u64()
    );

    let history = client.ask(r#"{"op":"history","channels":["news"]}"#);
    let expected = json!([
        {"channel": "news", "id": first["id"], "name": "paid", "data": "hé \"\n"},
        {"channel": "news", "id": second["id"], "name": "", "data": "/wA=", "encoding": "base64"},
        {"channel": "news", "id": third["id"], "name": "", "data": ""},
    ]);
    assert_eq!(history["messages"], expected);
    assert_eq!(
        (&history["ok"], &history["gap"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(history["cursor"], json!(third["id"].to_string()));
}

#[test]
fn tells_the_cursor_of_the_newest_message() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let published = client.ask(&publish("news", "hi"));
    let id = published["id"].to_string();
    let expected = json!({"ok": true, "cursor": id});
    assert_eq!(client.ask(r#"{"op":"cursor"}"#), expected);
    let refused = client.ask(r#"{"op":"cursor","channels":["news"]}"#);
    assert_eq!(refused["error"], "channels");
}

#[test]
fn a_key_publishes_once() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let line = r#"{"op":"publish","channel":"news","data":"hi","key":"k"}"#;
    assert_eq!(client.ask(line), client.ask(line));
    assert_eq!(
        connect(&daemon).ask(line),
        client.ask(line),
        "the key belongs to no connection"
    );
    assert_eq!(daemon.history("news").len(), 1);
}

#[test]
fn answers_ping_and_status() {
    let daemon = Daemon::start("");
    daemon.publish("news", "hi");
    let mut client = connect(&daemon);
    assert_eq!(client.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    let status = client.ask(r#"{"op":"status"}"#);
    assert_eq!(status["ok"], true);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["hub"]["published"], &status["hub"]["channels"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(status["metrics"]["published_socket"], 1);
}

#[test]
fn refuses_bad_lines_and_stays_open() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let many: Vec<String> = (0..10_000).map(|i| format!("c{i}")).collect();
    let deep = format!("{{\"op\":{}", "[".repeat(100_000));
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"".into(), "line", "not a request"),
        (b"{".into(), "line", "not a request"),
        (b"GET / HTTP/1.1\r".into(), "line", "not a request"),
        (b"\0\0\0".into(), "line", "not a request"),
        (deep.into(), "line", "not a request"),
        (
            b"{\"op\":\"publish\",\"channel\":\"\xff\"}".into(),
            "line",
            "not a request",
        ),
        (publish("a/b", "").into(), "channel", "may not contain '/'"),
        (publish("..", "").into(), "channel", "start with a dot"),
        (
            publish("a\0", "").into(),
            "channel",
            "may not contain '\\0'",
        ),
        (
            publish(&"x".repeat(900_000), "").into(),
            "channel",
            "900000 bytes is over the limit of 200",
        ),
        (
            r#"{"op":"publish","data":"x"}"#.into(),
            "channel",
            "needs the field",
        ),
        (
            r#"{"op":"publish","channel":"a","data_base64":"?"}"#.into(),
            "data",
            "not base64",
        ),
        (
            r#"{"op":"publish","channel":"a","name":"\u0007"}"#.into(),
            "name",
            "may not contain",
        ),
        (
            json!({"op": "publish", "channel": "a", "key": "k".repeat(129)})
                .to_string()
                .into(),
            "key",
            "limit of 128",
        ),
        (
            json!({"op": "history", "channels": many})
                .to_string()
                .into(),
            "channels",
            "10000 channels are over the limit of 100",
        ),
        (
            r#"{"op":"history","channels":[]}"#.into(),
            "channels",
            "at least one",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":18446744073709551616}"#.into(),
            "line",
            "RFC 3339",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":"18446744073709551616"}"#.into(),
            "since",
            "over the limit",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":-1}"#.into(),
            "line",
            "RFC 3339",
        ),
        (
            r#"{"op":"subscribe","channels":"a"}"#.into(),
            "line",
            "expected a sequence",
        ),
        (r#"{"op":"dance"}"#.into(), "op", "unknown op"),
        (
            r#"{"op":"ping","op":"ping"}"#.into(),
            "line",
            "duplicate field",
        ),
    ];
    for (line, code, text) in cases {
        let start = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        client.send([&line[..], b"\n"].concat());
        let reply = client.read().expect("the connection stays open");
        assert_eq!(
            (&reply["ok"], &reply["error"]),
            (&json!(false), &json!(code)),
            "{start}: {reply}"
        );
        assert!(
            reply["message"].as_str().unwrap().contains(text),
            "{start}: {reply}"
        );
    }
    assert_eq!(client.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    assert_eq!(daemon.history("a"), []);
}

#[test]
fn pipelined_replies_keep_the_order_of_the_requests() {
    const LINES: usize = 20_000;
    let daemon = Daemon::start("");
    let mut requests = String::new();
    for i in 0..LINES {
        match i % 10 {
            3 => requests += "{\"op\":\"ping\"}\n",
            7 => requests += "nonsense\n",
            _ => requests += &(publish("news", &i.to_string()) + "\n"),
        }
    }
    // Both directions at the same time, because replies fill their buffer long before the last request is sent.
    let stream = UnixStream::connect(daemon.socket_path()).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending =
        thread::spawn(move || std::io::Write::write_all(&mut sender, requests.as_bytes()).unwrap());
    let mut last = 0;
    for (i, line) in BufReader::new(stream).lines().take(LINES).enumerate() {
        let reply: Value = serde_json::from_str(&line.unwrap()).unwrap();
        match i % 10 {
            3 => assert_eq!(reply, json!({"ok": true})),
            7 => assert_eq!(reply["error"], "line"),
            _ => {
                let id = reply["id"].as_u64().unwrap();
                assert!(id > last, "line {i}: {id} after {last}");
                last = id;
            }
        }
    }
    sending.join().unwrap();
    let status = connect(&daemon).ask(r#"{"op":"status"}"#);
    assert_eq!(status["hub"]["published"], LINES / 10 * 8);
}

#[test]
fn a_line_may_come_in_pieces_and_the_last_one_without_its_end() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    for piece in ["{\"op\":", "\"pi", "ng\"}\r", "\n{\"op\":\"ping\"}\n{"] {
        client.send(piece);
        // After this reply on another connection the piece was probably read separately, otherwise it is read with the
        // next one.
        assert_eq!(
            connect(&daemon).ask(r#"{"op":"ping"}"#),
            json!({"ok": true})
        );
    }
    client.send("\"op\":\"ping\"}");
    client.end();
    for _ in 0..3 {
        assert_eq!(client.read(), Some(json!({"ok": true})));
    }
    assert_eq!(client.read(), None);
}

#[test]
fn half_a_line_at_the_end_publishes_nothing() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    client.send(r#"{"op":"publish","channel":"news","data":"hal"#);
    client.end();
    assert_eq!(client.read().unwrap()["error"], "line");
    assert_eq!(client.read(), None);
    assert_eq!(daemon.history("news"), []);
}

#[test]
fn a_line_over_the_limit_ends_the_connection_with_its_reason() {
    let daemon = Daemon::start("[socket]\nmax_line = 1024");
    let padded = |length: usize| {
        let line = r#"{"op":"ping"}"#;
        format!("{line}{}\n", " ".repeat(length - line.len() - 1))
    };
    let mut client = connect(&daemon);
    client.send(padded(1024));
    assert_eq!(
        client.read(),
        Some(json!({"ok": true})),
        "as long as the limit"
    );

    let endless = "x".repeat(3 << 20);
    for too_long in [padded(1025), "x".repeat(1024), endless] {
        let mut client = connect(&daemon);
        client.send("{\"op\":\"ping\"}\n");
        client.send(&too_long);
        assert_eq!(client.read(), Some(json!({"ok": true})));
        let refusal = client.read().unwrap();
        assert_eq!(
            (&refusal["ok"], &refusal["error"]),
            (&json!(false), &json!("line"))
        );
        assert!(
            refusal["message"]
                .as_str()
                .unwrap()
                .contains("limit of 1024 bytes")
        );
        assert_eq!(client.read(), None, "{} bytes", too_long.len());
    }
}

#[test]
fn a_silent_connection_is_closed_but_no_subscriber() {
    let daemon = Daemon::start("[socket]\nidle = \"1s\"");
    let mut subscriber = connect(&daemon);
    assert_eq!(
        subscriber.ask(r#"{"op":"subscribe","channels":["news"]}"#),
        json!({"ok": true})
    );
    let mut silent = connect(&daemon);
    assert_eq!(silent.read(), None, "without a word");
    let id = daemon.publish("news", "still there");
    assert_eq!(subscriber.read().unwrap()["id"], id);
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let daemon = Daemon::start("[socket]\nmax_connections = 2");
    let mut first = connect(&daemon);
    let mut second = connect(&daemon);
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    }
    let mut third = connect(&daemon);
    let refusal = third.read().unwrap();
    assert_eq!(
        (&refusal["ok"], &refusal["error"]),
        (&json!(false), &json!("connections"))
    );
    assert_eq!(third.read(), None);

    drop(first);
    wait_for("a place", || {
        let mut client = connect(&daemon);
        client.end();
        client.read().is_none().then_some(())
    });
    let status = second.ask(r#"{"op":"status"}"#);
    assert!(status["metrics"]["socket_refused"].as_u64().unwrap() >= 1);
}

#[test]
fn stopping_ends_every_connection_after_its_replies() {
    let daemon = Daemon::start("");
    let mut subscriber = connect(&daemon);
    subscriber.ask(r#"{"op":"subscribe","channels":["news"]}"#);
    let mut deaf = connect(&daemon);
    deaf.ask(r#"{"op":"subscribe","channels":["news"]}"#);
    let mut idle = connect(&daemon);
    let id = idle.ask(&publish("news", &"x".repeat(900_000)))["id"].clone();
    assert_eq!(
        subscriber.read().unwrap()["id"],
        id,
        "and `deaf` has it in its buffer, as far as it fits"
    );
    let path = daemon.socket_path();
    assert!(daemon.stop().success());
    let last = subscriber.read().unwrap();
    assert_eq!(last, json!({"retry": 500}), "when to come back");
    assert_eq!(subscriber.read(), None);
    assert_eq!(idle.read(), None);
    assert!(!path.exists(), "the file is gone");
}

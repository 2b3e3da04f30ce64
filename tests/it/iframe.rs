//! The forever-iframe: a document of script calls that never ends.

use serde_json::Value;

use crate::{
    daemon::{Daemon, Http},
    wire::{ask, get, parked, post},
};

/// An open frame, after its first bytes.
fn open(daemon: &Daemon, query: &str) -> Http {
    let mut client = parked(daemon, get(&format!("/ch/a?as=iframe&{query}"), ""));
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let opening = client.chunk().unwrap();
    assert!(opening.starts_with("<!DOCTYPE html>"), "{opening}");
    assert!(
        opening.len() > 1024,
        "some browsers show nothing before the first kilobyte"
    );
    client
}

/// The argument of the next call. Heartbeats are skipped.
fn call(client: &mut Http, callback: &str) -> Value {
    loop {
        let chunk = client.chunk().unwrap();
        if chunk.trim().is_empty() {
            continue;
        }
        let json = chunk.strip_prefix(&format!("<script>parent.{callback}("));
        let json = json.and_then(|rest| rest.strip_suffix(")</script>\n"));
        return serde_json::from_str(json.unwrap_or_else(|| panic!("{chunk}"))).unwrap();
    }
}

#[test]
fn each_message_is_a_call() {
    let daemon = Daemon::start("");
    let mut frame = open(&daemon, "callback=comet.show");
    for text in ["one", "two"] {
        let id = daemon.publish("a", text);
        let message = call(&mut frame, "comet.show");
        assert_eq!(
            (&message["id"], &message["data"]),
            (&id.into(), &text.into())
        );
    }
}

#[test]
fn no_message_leaves_its_script() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let mut frame = open(&daemon, "callback=$._f1");
    let texts = [
        "</script><script>alert(1)</script>",
        "<!--",
        "-->",
        "]]>",
        "\u{2028}\u{2029}\0\r\n\"'\\",
        "é",
    ];
    for text in texts {
        daemon.publish("a", text);
        let raw = frame.chunk().unwrap();
        let body = raw.strip_prefix("<script>parent.$._f1(").unwrap();
        let body = body.strip_suffix(")</script>\n").unwrap();
        assert!(
            !body.contains('<') && !body.contains('\u{2028}') && !body.contains('\u{2029}'),
            "{raw}"
        );
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["data"], text);
    }
    assert_eq!(
        ask(&daemon, post("/ch/a?name=%3C/script%3E", "", b"\xff")).status,
        201
    );
    let message = call(&mut frame, "$._f1");
    assert_eq!(
        (&message["name"], &message["encoding"]),
        (&"</script>".into(), &"base64".into())
    );
}

#[test]
fn a_frame_resumes_and_is_told_of_a_gap() {
    let daemon = Daemon::start("");
    let first = daemon.publish("a", "one");
    daemon.publish("a", "two");
    let client = |since: u64| {
        let mut client = Http::connect(daemon.addr());
        client.send(get(
            &format!("/ch/a?as=iframe&callback=f&since={since}"),
            "",
        ));
        client.until("\r\n\r\n");
        client.chunk().unwrap();
        client
    };
    assert_eq!(call(&mut client(first), "f")["data"], "two");
    // Calls that are due at the same time arrive in one chunk.
    let calls = client(1).chunk().unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls.len(), 3);
    assert!(
        calls[0].starts_with("<script>parent.f({\"gap\":true,\"cursor\":\""),
        "{}",
        calls[0]
    );
    assert!(
        calls[1].contains("one") && calls[2].contains("two"),
        "{calls:?}"
    );
}

#[test]
fn a_quiet_frame_shows_signs_of_life() {
    let daemon = Daemon::start("[http]\nheartbeat = \"200ms\"\n");
    let mut frame = open(&daemon, "callback=f");
    for _ in 0..3 {
        assert_eq!(frame.chunk().as_deref(), Some("\n"));
    }
    daemon.publish("a", "x");
    assert_eq!(call(&mut frame, "f")["data"], "x");
}

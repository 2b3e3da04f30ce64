//! The two zeitoun demos, requested as their pages do: the chat by long-poll, the clock in an iframe.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    daemon::{Answer, Daemon, Http},
    wire::{ask, get, metric, parked, post, wait_for_subscribers},
};

const PUBLISHING: &str = "[http]\npublish = true\n";

/// The headers that Prototype's `Ajax.Request` adds.
const PROTOTYPE: &str = "X-Requested-With: XMLHttpRequest\r\nX-Prototype-Version: 1.6.0\r\n\
    Accept: text/javascript, text/html, application/xml, text/xml, */*\r\n";

fn send(daemon: &Daemon, text: &str) {
    let answer = ask(daemon, get(&format!("/chat.php?msg={text}"), PROTOTYPE));
    assert_eq!((answer.status, &*answer.body), (200, ""));
}

fn poll(timestamp: impl std::fmt::Display) -> String {
    get(&format!("/chat.php?timestamp={timestamp}"), PROTOTYPE)
}

/// The text that the page shows, and the timestamp that it sends back.
fn shown(answer: &Answer) -> (String, u64) {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    let json = answer.json();
    (
        json["msg"].as_str().unwrap().to_owned(),
        json["timestamp"].as_u64().unwrap(),
    )
}

#[test]
fn a_page_shows_the_last_message_and_then_each_new_one() {
    let daemon = Daemon::start(PUBLISHING);
    send(&daemon, "old");
    send(&daemon, "hi%20%26%20bye");
    let mut client = Http::connect(daemon.addr());
    client.send(poll(0));
    let (text, mut timestamp) = shown(&client.answer());
    assert_eq!(text, "hi & bye");
    for n in 0..10 {
        client.send(poll(timestamp));
        wait_for_subscribers(&daemon, 1);
        send(&daemon, &n.to_string());
        let (text, next) = shown(&client.answer());
        assert_eq!(text, n.to_string());
        assert!(next > timestamp && next < 1 << 53, "JavaScript reads it");
        timestamp = next;
    }
}

#[test]
fn nothing_is_lost_between_polls() {
    let daemon = Daemon::start(PUBLISHING);
    send(&daemon, "first");
    let mut client = Http::connect(daemon.addr());
    client.send(poll(0));
    let (_, mut timestamp) = shown(&client.answer());
    for n in 0..20 {
        send(&daemon, &n.to_string());
    }
    for n in 0..20 {
        client.send(poll(timestamp));
        let (text, next) = shown(&client.answer());
        assert_eq!(text, n.to_string());
        timestamp = next;
    }
}

/// The page shows every answer, and the protocol has no answer for "nothing yet".
#[test]
fn an_empty_chat_waits_for_its_first_message() {
    let daemon = Daemon::start(PUBLISHING);
    for path in [
        "/chat.php?timestamp=0",
        "/chat.php",
        "/chat.php?msg=&timestamp=0",
        "/chat.php?timestamp=abc",
    ] {
        let client = parked(&daemon, get(path, ""));
        client.stream.set_nonblocking(true).unwrap();
        let answered = client.stream.peek(&mut [0]).is_ok();
        assert!(!answered, "{path}: answered without a message");
        drop(client);
        wait_for_subscribers(&daemon, 0);
    }
    let mut client = parked(&daemon, poll(0));
    send(&daemon, "hello");
    assert_eq!(shown(&client.answer()).0, "hello");
}

#[test]
fn a_message_is_carried_unchanged() {
    let daemon = Daemon::start(PUBLISHING);
    let cases = [
        ("0", "0"),
        ("a+b%2Bc", "a b+c"),
        ("%3Cb%3Ebold%3C/b%3E", "<b>bold</b>"),
        ("%E2%80%A8%E2%80%A9", "\u{2028}\u{2029}"),
        ("%C3%A9%F0%9F%98%80", "é😀"),
        ("%22%5C%0A%00", "\"\\\n\0"),
        ("%FF", "\u{fffd}"), // the original failed on it
        ("x&timestamp=5", "x"),
    ];
    for (sent, text) in cases {
        send(&daemon, sent);
        let answer = ask(&daemon, poll(0));
        assert_eq!(shown(&answer).0, text, "{sent}");
        // The page evaluates this text as code.
        assert!(
            !answer.body.contains(['<', '\u{2028}', '\u{2029}']),
            "{}",
            answer.body
        );
    }
    assert_eq!(ask(&daemon, post("/ch/chat", "", b"\xffx")).status, 201);
    assert_eq!(shown(&ask(&daemon, poll(0))).0, "\u{fffd}x");
    // The keys have the order of the original.
    assert!(ask(&daemon, poll(0)).body.starts_with("{\"msg\":\""));
}

#[test]
fn a_timestamp_may_be_anything() {
    let daemon = Daemon::start(PUBLISHING);
    send(&daemon, "one");
    send(&daemon, "two");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    // These values count as 0, which shows the last message.
    for timestamp in ["", "abc", "-5", "0", "%00", "99999999999999999999999"] {
        assert_eq!(
            shown(&ask(&daemon, poll(timestamp))).0,
            "two",
            "{timestamp}"
        );
    }
    // A timestamp of an old server, in seconds: the messages after it, oldest first.
    for timestamp in [
        (now - 1000).to_string(),
        format!("{}.5", now - 1000),
        "1".into(),
    ] {
        assert_eq!(
            shown(&ask(&daemon, poll(&timestamp))).0,
            "one",
            "{timestamp}"
        );
    }
    // A timestamp of the future counts as now.
    for timestamp in [now + 1000, u64::MAX, 1 << 53] {
        let mut client = parked(&daemon, poll(timestamp));
        send(&daemon, "live");
        assert_eq!(shown(&client.answer()).0, "live", "{timestamp}");
        wait_for_subscribers(&daemon, 0);
    }
}

#[test]
fn the_chat_is_a_channel() {
    let daemon = Daemon::start(
        "[http]\npublish = true\n[compat]\nzeitoun_chat = \"/backend.php\"\nzeitoun_channel = \"lobby\"\n",
    );
    let mut client = parked(&daemon, get("/ch/lobby", ""));
    assert_eq!(ask(&daemon, get("/backend.php?msg=hi", "")).status, 200);
    assert_eq!(client.answer().json()["messages"][0]["data"], "hi");
    std::fs::write(daemon.dir().join("lobby.comet"), "by file").unwrap();
    client.send(get("/backend.php?timestamp=99999999999", ""));
    // The message was published before or after the poll. In both cases the page has it when it asks for the kept
    // messages.
    crate::daemon::wait_for("the file", || {
        (shown(&ask(&daemon, get("/backend.php?timestamp=0", ""))).0 == "by file").then_some(())
    });
    assert_eq!(ask(&daemon, get("/chat.php", "")).status, 404);
}

/// Pages of another origin need a preflight, because of Prototype's headers.
#[test]
fn a_page_of_a_configured_origin_may_chat() {
    let daemon = Daemon::start("[http]\npublish = true\norigins = [\"https://a.example\"]\n");
    let preflight = "OPTIONS /chat.php?msg=x HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n\
        Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-prototype-version, x-requested-with\r\n\r\n";
    let answer = ask(&daemon, preflight);
    assert_eq!(answer.status, 204);
    let allowed = answer
        .header("access-control-allow-headers")
        .unwrap()
        .to_lowercase();
    assert!(allowed.contains("x-prototype-version") && allowed.contains("x-requested-with"));
    let answer = ask(
        &daemon,
        get("/chat.php?msg=x", "Origin: https://a.example\r\n"),
    );
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert_eq!(metric(&daemon, "comet_published_http_total"), 1);
}

#[test]
fn a_page_that_missed_messages_is_told_with_the_next() {
    let daemon = Daemon::start("[history]\nbytes = 65536\n");
    let first = daemon.publish("chat", "first");
    let large = "x".repeat(40_000);
    daemon.publish("chat", &large);
    daemon.publish("chat", &large);
    let answer = ask(&daemon, poll(first)).json();
    assert_eq!(
        (&answer["gap"], &answer["msg"]),
        (&true.into(), &large.into())
    );
}

/// The page takes every answer for a message, so a gap has to wait for one.
#[test]
fn a_gap_without_a_message_is_told_with_the_next() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, poll(1_700_000_000_000_000_u64));
    let id = daemon.publish("chat", "first");
    let answer = client.answer().json();
    assert_eq!(
        (&answer["gap"], &answer["msg"], &answer["timestamp"]),
        (&true.into(), &"first".into(), &id.into())
    );
}

#[test]
fn the_clock_ticks_in_its_frame() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/clock.php", ""));
    let head = client.until("\r\n\r\n");
    assert!(
        head.contains("\r\ncontent-type: text/html; charset=utf-8\r\n"),
        "{head}"
    );
    let opening = client.chunk().unwrap();
    assert!(
        opening.starts_with("<!DOCTYPE html>") && opening.len() > 1024,
        "{opening}"
    );
    assert!(opening.contains("var comet = window.parent.comet;"));
    let tick = |text: &str| -> u64 {
        let line = text.lines().last().unwrap();
        let time = line.strip_prefix("<script type=\"text/javascript\">comet.printServerTime(");
        time.and_then(|rest| rest.strip_suffix(");</script>"))
            .unwrap_or_else(|| panic!("{text}"))
            .parse()
            .unwrap()
    };
    let mut last = tick(&opening);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(last <= now);
    for _ in 0..2 {
        let next = tick(&client.chunk().unwrap());
        assert!(next > last, "{next} after {last}");
        last = next;
    }
}

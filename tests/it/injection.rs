//! Data, labels and names of clients never become markup, an event, a frame or a header of the daemon, on any
//! transport. No part of a request appears unescaped in its answer.

use serde_json::Value;

use crate::{
    daemon::{Answer, Daemon, Http},
    websocket::open as open_websocket,
    wire::{ask, data, get, parked, post, refusal},
};

/// Texts that do harm where they are not escaped.
const POISONS: [&str; 14] = [
    "</script><script>alert(1)</script>",
    "</SCRIPT ><img src=x onerror=alert(1)>",
    "<!--<script>",
    "a\nid: 9\nevent: gap\ndata: {}\n\n",
    "a\rid: 9\revent: gap\rdata: {}\r\r",
    "\n\n: comment\n\nretry: 1\n\n",
    "\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n\r\n",
    "\u{2028}alert(1)\u{2029}",
    "\u{85}\u{b}\u{c}\u{1b}[2J\u{0}\u{7f}",
    "\u{feff}data: x",
    "\"}]}{\"gap\":true}",
    "\\u003c/script\\u003e\\",
    "');alert(1);//",
    "\u{10ffff}\u{fffd}é",
];

/// A label that is allowed and must do no harm either.
const LABEL: &str = "</script>\u{2028}\"'<b>";

/// Checks that the text is the JSON of this message, and returns it.
#[track_caller]
fn is_message(json: &str, text: &str) {
    let message: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json:?}"));
    assert_eq!(
        (&message["data"], &message["name"]),
        (&text.into(), &LABEL.into())
    );
    assert_eq!(message["channel"], "a");
    assert!(!json.contains(['\n', '\r', '\0']), "{json:?}");
}

#[test]
fn no_message_is_more_than_a_message_on_any_transport() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let stream = |path: &str| {
        let mut client = parked(&daemon, get(path, ""));
        client.until("\r\n\r\n");
        client.chunk().unwrap(); // what it begins with
        client
    };
    let mut events = stream("/ch/a?as=sse");
    let mut frame = stream("/ch/a?as=iframe&callback=f");
    let mut socket = open_websocket(&daemon, "/ch/a");
    for text in POISONS {
        let mut poll = parked(&daemon, get("/ch/a", ""));
        let label = "%3C/script%3E%E2%80%A8%22'%3Cb%3E";
        let published = ask(
            &daemon,
            post(&format!("/ch/a?name={label}"), "", text.as_bytes()),
        );
        assert_eq!(published.status, 201, "{}", published.body);

        // Two lines and an empty one. No line end of any kind (LF, CR, both) is inside the lines.
        let event = events.chunk().unwrap();
        let lines: Vec<&str> = event.split(['\n', '\r']).collect();
        let [id, json, "", ""] = lines[..] else {
            panic!("{event:?}");
        };
        assert!(id.starts_with("id: "), "{event:?}");
        is_message(json.strip_prefix("data: ").unwrap(), text);

        let call = frame.chunk().unwrap();
        let json = call.strip_prefix("<script>parent.f(").unwrap();
        let json = json.strip_suffix(")</script>\n").unwrap();
        assert!(!json.contains(['<', '\u{2028}', '\u{2029}']), "{call:?}");
        is_message(json, text);

        let sent = socket.read().unwrap().into_text().unwrap(); // one frame of valid UTF-8
        is_message(&sent, text);
        let answer = poll.answer();
        assert_eq!(data(&answer), [text]);
        assert!(
            !answer.body.contains(['\n', '\r', '\0']),
            "{:?}",
            answer.body
        );
    }
}

/// The page of the old chat evaluates its answer as code.
#[test]
fn no_message_of_the_old_chat_is_markup() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    for text in POISONS {
        daemon.publish("chat", text);
        let answer = daemon.get("/chat.php?timestamp=0");
        assert_eq!(answer.json()["msg"], text);
        let raw = ['<', '\n', '\r', '\u{2028}', '\u{2029}'];
        assert!(!answer.body.contains(raw), "{:?}", answer.body);
    }
}

#[test]
fn callbacks_that_are_no_names_are_refused() {
    let daemon = Daemon::start("");
    for callback in [
        "alert(1)",
        "alert`1`",
        "a;b",
        "a%0Ab",
        "a%0Db",
        "%3C/script%3E",
        "%3Cscript%3E",
        "a.b(",
        "a..b",
        ".a",
        "a.",
        "1a",
        "a%20b",
        "a%00",
        "a%E2%80%A8b",
        "%C3%A9",
        "a%5Bb%5D",
        "a/**/b",
        "a%2Bb",
        "a-b",
        "%22",
        "'",
        "a%5Cu0061",
    ] {
        let path = format!("/ch/a?as=iframe&callback={callback}");
        let answer = daemon.get(&path);
        let told = refusal(&answer);
        assert_eq!((told.0, &*told.1), (400, "callback"), "{callback}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{callback}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{callback}"
        );
    }
    // No other answer accepts a callback: there is no JSONP.
    for path in [
        "/ch/a?wait=0",
        "/comet.php?subscribed[a]=1",
        "/healthz",
        "/nowhere",
    ] {
        let end = if path.contains('?') { '&' } else { '?' };
        let answer = daemon.get(&format!("{path}{end}callback=stolen&jsonp=stolen"));
        assert!(!answer.body.contains("stolen"), "{}", answer.body);
    }
}

/// The headers that answers may have.
const HEADERS: [&str; 20] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "cache-control",
    "x-accel-buffering",
    "x-content-type-options",
    "etag",
    "date",
    "connection",
    "allow",
    "vary",
    "retry-after",
    "www-authenticate",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
    "content-security-policy",
    "sec-websocket-version",
];

#[track_caller]
fn has_no_foreign_header(answer: &Answer) {
    for line in answer
        .head
        .split("\r\n")
        .skip(1)
        .filter(|line| !line.is_empty())
    {
        let name = line.split_once(':').unwrap_or_else(|| panic!("{line:?}")).0;
        assert!(HEADERS.contains(&&*name.to_ascii_lowercase()), "{line:?}");
        assert!(!line.contains("injected"), "{line:?}");
    }
}

#[test]
fn nothing_of_a_request_becomes_a_header_or_markup_of_its_answer() {
    let daemon = Daemon::start("[http]\npublish = true\norigins = [\"https://a.example\"]\n");
    let crlf = "%0d%0ainjected:%201";
    let markup = "%3Cscript%3Einjected%3C/script%3E";
    let mut requests = Vec::new();
    for evil in [
        crlf,
        markup,
        "%E5%98%8A%E5%98%8Dinjected:1",
        "<b>injected</b>",
    ] {
        for path in [
            format!("/{evil}"),
            format!("/ch/{evil}"),
            format!("/ch/a?as={evil}"),
            format!("/ch/a?since={evil}"),
            format!("/ch/a?wait={evil}"),
            format!("/ch/a?wait=0&x={evil}"),
            format!("/ch/a?as=iframe&callback={evil}"),
            format!("/comet.php?publish={evil}"),
            format!("/comet.php?subscribed[a]=1&x={evil}"),
            format!("/demo/{evil}"),
            format!("/ch/a?wait=0&token={evil}"),
        ] {
            requests.push(get(&path, ""));
        }
        let publish = post(&format!("/ch/a?name={evil}"), "", b"x");
        requests.push(String::from_utf8(publish).unwrap());
        for header in [
            "Origin",
            "If-None-Match",
            "Last-Event-ID",
            "Idempotency-Key",
            "Authorization",
            "Cookie",
            "X-Forwarded-For",
        ] {
            requests.push(get(
                "/ch/a?wait=0",
                &format!("{header}: https://a.example{evil}\r\n"),
            ));
        }
    }
    for request in requests {
        let answer = ask(&daemon, &request);
        has_no_foreign_header(&answer);
        let is_json = answer.header("content-type") == Some("application/json");
        assert!(is_json, "{request}{}", answer.head);
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{request}"
        );
        serde_json::from_str::<Value>(&answer.body).unwrap_or_else(|e| panic!("{e}: {request}"));
    }
}

/// Answers that a browser must not interpret as another type.
#[test]
fn every_answer_says_what_it_is() {
    let daemon = Daemon::start("demo = true\n[http]\npublish = true\n");
    daemon.publish("a", "<script>alert(1)</script>");
    daemon.publish("chat", "<script>alert(1)</script>");
    let json = "application/json";
    let html = "text/html; charset=utf-8";
    let cases = [
        ("/ch/a?since=0", json),
        ("/ch/a?as=sse", "text/event-stream; charset=utf-8"),
        ("/ch/a?as=iframe&callback=f", html),
        ("/comet.php?subscribed[a]=1", json),
        ("/comet.php?publish=a", json),
        ("/chat.php?timestamp=0", json),
        ("/chat.php?msg=hi", html),
        ("/clock.php", html),
        ("/healthz", "text/plain"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/comet.js", "text/javascript; charset=utf-8"),
        ("/", html),
        ("/demo.json", json),
        ("/nowhere", json),
        ("/ch/..", json),
        ("/ch/a?as=x", json),
    ];
    for (path, kind) in cases {
        let mut client = Http::connect(daemon.addr());
        client.get(path);
        let head = client.until("\r\n\r\n").to_ascii_lowercase();
        assert!(
            head.contains(&format!("\r\ncontent-type: {kind}\r\n")),
            "{path}: {head}"
        );
        assert!(
            head.contains("\r\nx-content-type-options: nosniff\r\n"),
            "{path}: {head}"
        );
    }
}

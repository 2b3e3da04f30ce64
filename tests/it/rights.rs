//! Who may read and publish to which channel by HTTP: `[[channel]]` rules, on every transport.

use std::sync::Arc;

use crate::{
    daemon::{Answer, Daemon, Http, directory},
    http2,
    wire::{Events, WEBSOCKET, ask, data, get, parked, post, refusal},
};

/// `open.` may be read, `box.` may be published to, and `closed.` neither.
const RULES: &str = r#"
[[channel]]
prefix = ""
read = "closed"

[[channel]]
prefix = "open."
read = "public"

[[channel]]
prefix = "box."
publish = "public"

[[channel]]
prefix = "box.closed"
publish = "closed"

[compat]
zeitoun_channel = "box.chat"
"#;

/// A request for each transport that reads `NAMES`.
fn reads(names: &str) -> [String; 7] {
    [
        get(&format!("/ch/{names}?wait=0"), ""),
        get(&format!("/ch/{names}?since=0"), ""),
        get(&format!("/ch/{}?wait=0", names.replace('.', "%2E")), ""),
        get(&format!("/ch/{names}"), "Accept: text/event-stream\r\n"),
        get(&format!("/ch/{names}?as=iframe&callback=f"), ""),
        get(&format!("/ch/{names}"), WEBSOCKET),
        format!("HEAD /ch/{names} HTTP/1.1\r\nHost: comet.localhost\r\n\r\n"),
    ]
}

#[track_caller]
fn assert_forbidden(answer: &Answer, what: &str) {
    if answer.body.is_empty() {
        assert_eq!(answer.status, 403, "{what}"); // the answer to HEAD
        return;
    }
    let (status, code, message) = refusal(answer);
    assert_eq!((status, &*code), (403, "forbidden"), "{what}");
    assert!(message.contains("[[channel]]"), "{what}: {message}");
}

#[test]
fn a_closed_channel_is_read_on_no_transport() {
    let daemon = Daemon::start(RULES);
    daemon.publish("box.a", "secret");
    for names in ["box.a", "open.a,box.a", "open"] {
        for request in reads(names) {
            let head = request.starts_with("HEAD");
            let request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            let request = request.replace(
                "Connection: Upgrade\r\nSec",
                "Connection: Upgrade, close\r\nSec",
            );
            let mut client = Http::connect(daemon.addr());
            client.send(&request);
            let all = String::from_utf8(client.rest()).unwrap();
            assert!(all.starts_with("HTTP/1.1 403 "), "{request}: {all}");
            assert!(head || all.contains("read under [[channel]]"), "{all}");
            assert!(!all.contains("secret"), "{all}");
        }
    }
}

#[test]
fn an_open_channel_is_read_on_every_transport() {
    let daemon = Daemon::start(RULES);
    let id = daemon.publish("open.a", "news");
    assert_eq!(data(&ask(&daemon, get("/ch/open.a?since=0", ""))), ["news"]);
    let mut events = Events::open(&daemon, "/ch/open.a,open.b?since=0", "");
    assert_eq!(events.message_of(id), "news");
    let mut iframe = Http::connect(daemon.addr());
    iframe.send(get("/ch/open.a?as=iframe&callback=f&since=0", ""));
    iframe.until("\"data\":\"news\"");
    let mut socket = Http::connect(daemon.addr());
    socket.send(get("/ch/open.a?since=0", WEBSOCKET));
    let head = socket.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut poll = parked(&daemon, get("/ch/open.a", ""));
    daemon.publish("open.a", "more");
    assert_eq!(data(&poll.answer()), ["more"]);
}

#[test]
fn a_rule_says_who_publishes_by_http() {
    let daemon = Daemon::start(RULES);
    assert_eq!(ask(&daemon, post("/ch/box.a", "", b"x")).status, 201);
    assert_eq!(ask(&daemon, post("/ch/box.%61", "", b"y")).status, 201);
    assert_forbidden(&ask(&daemon, post("/ch/box.closed", "", b"x")), "closed");
    let (_, _, message) = refusal(&ask(&daemon, post("/ch/open.a", "", b"x")));
    assert!(message.contains("publishing over HTTP is off"), "{message}");
    let history: Vec<String> = daemon
        .history("box.a")
        .into_iter()
        .map(|(_, d)| d)
        .collect();
    assert_eq!(history, ["x", "y"]);
    assert!(daemon.history("box.closed").is_empty() && daemon.history("open.a").is_empty());
}

#[test]
fn the_older_clients_obey_the_rules() {
    let daemon = Daemon::start(RULES);
    let (open, closed) = (daemon.publish("open.a", ""), daemon.publish("box.a", ""));
    let answer = daemon.get("/comet.php?subscribed[box.a]=1&subscribed[open.a]=1");
    let micros = format!("{}.{:06}", open / 1_000_000, open % 1_000_000);
    assert_eq!(
        answer.body,
        format!("{{\"s\":1,\"k\":{{\"open.a\":{micros}}}}}")
    );
    for (id, published) in [
        ("box.a", "true"),
        ("box.closed", "false"),
        ("open.a", "false"),
    ] {
        let answer = daemon.get(&format!("/comet.php?publish={id}"));
        assert_eq!((answer.status, &*answer.body), (200, published), "{id}");
    }
    assert!(daemon.history("box.a").len() == 2 && daemon.history("open.a").len() == 1);
    assert!(daemon.history("box.a")[0].0 == closed);

    assert_eq!(daemon.get("/chat.php?msg=hi").status, 200);
    assert_eq!(daemon.history("box.chat").len(), 1);
    assert_forbidden(&daemon.get("/chat.php?timestamp=0"), "the chat is read");
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn http2_obeys_the_rules() {
    let daemon = Daemon::start(RULES);
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        for path in [
            "/ch/box.a?wait=0",
            "/ch/box.a?as=sse",
            "/ch/open.a,b?wait=0",
        ] {
            let (status, json) = client.json(path).await;
            assert_eq!(
                (status, &json["error"]),
                (403, &"forbidden".into()),
                "{path}"
            );
        }
        assert_eq!(client.json("/ch/open.a?wait=0").await.0, 200);
    });
}

#[test]
fn an_address_that_others_reach_needs_a_rule_about_reading() {
    let start = |config: &str| {
        let flags = ["--listen", "0.0.0.0:0"];
        Daemon::try_start_in(Arc::new(directory()), config, &flags)
    };
    for config in ["", "demo = true\n", "[http]\npublish = true\n"] {
        let log = start(config).err().expect("nobody said who may read");
        assert!(
            log.contains("[[channel]]") && log.contains("read = \"public\""),
            "{log}"
        );
    }
    // A channel without a rule is closed.
    let daemon = start("[[channel]]\nprefix = \"open.\"\nread = \"public\"\n").unwrap();
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], daemon.addr().port()));
    for (name, status) in [("open.a", 200), ("other", 403)] {
        let mut client = Http::connect(local);
        client.get(&format!("/ch/{name}?wait=0"));
        assert_eq!(client.answer().status, status, "{name}");
    }
}

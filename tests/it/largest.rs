//! The largest possible message arrives complete on each transport, and is no larger than docs/protocol.md says.

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Http, Lines},
    http2,
    wire::{WEBSOCKET, ask, get, post, refusal},
};

const LIMIT: usize = 1 << 20;

/// The size that docs/protocol.md states.
const LARGEST: usize = 6 * LIMIT + 2048;

/// Sends a request, and reads the stream up to the piece with a message.
fn piece(daemon: &Daemon, request: &str) -> String {
    let mut client = Http::connect(daemon.addr());
    client.send(request);
    client.until("\r\n\r\n");
    loop {
        let piece = client.chunk().unwrap();
        if piece.contains("\"channel\"") {
            return piece;
        }
    }
}

#[track_caller]
fn assert_whole(json: &str, data: &str) {
    assert!(json.len() <= LARGEST, "{} bytes", json.len());
    assert!(
        json.len() > 6 * LIMIT,
        "{} bytes: not the worst",
        json.len()
    );
    let message: Value = serde_json::from_str(json).unwrap();
    assert!(message["data"] == data);
}

#[test]
fn the_largest_message_arrives_on_each_transport() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let name = "\"".repeat(200);
    let channel = "c".repeat(200);
    let path = format!("/ch/{channel}");
    let data = "\u{1}".repeat(LIMIT);
    let label = format!("{path}?name={}", "%22".repeat(200));
    let published = ask(&daemon, post(&label, "", data.as_bytes()));
    assert_eq!(published.status, 201, "{}", published.body);
    let more = ask(&daemon, post(&path, "", &vec![1; LIMIT + 1]));
    assert_eq!(refusal(&more).0, 413);

    let poll = ask(&daemon, get(&format!("{path}?since=0"), ""));
    assert!(poll.body.len() <= LARGEST);
    let message = &poll.json()["messages"][0];
    assert!(message["data"] == *data && message["name"] == *name);

    let event = piece(&daemon, &get(&format!("{path}?since=0&as=sse"), ""));
    let mut lines = event.lines().filter_map(|line| line.strip_prefix("data: "));
    assert_whole(lines.find(|line| line.contains("channel")).unwrap(), &data);

    let mut socket = Http::connect(daemon.addr());
    socket.send(get(&format!("{path}?since=0"), WEBSOCKET));
    socket.until("\r\n\r\n");
    let head = socket.exactly(10);
    assert_eq!(head[..2], [0x81, 127]); // one text frame
    let length = u64::from_be_bytes(head[2..].try_into().unwrap());
    let frame = socket.exactly(usize::try_from(length).unwrap());
    assert_whole(str::from_utf8(&frame).unwrap(), &data);

    let mut subscriber = Lines::connect(&daemon.socket_path());
    let request = json!({"op": "subscribe", "channels": [channel], "since": 0});
    subscriber.send(format!("{request}\n"));
    assert_eq!(subscriber.read().unwrap()["ok"], true);
    assert!(subscriber.read().unwrap()["data"] == *data);

    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let (_, poll) = client.json(&format!("{path}?since=0")).await;
        assert!(poll["messages"][0]["data"] == *data);
    });
}

/// In this format, too, `<` needs the most bytes.
#[test]
fn the_largest_call_of_an_iframe_and_the_largest_chat_arrive() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let data = "<".repeat(LIMIT);
    let published = ask(&daemon, post("/ch/chat", "", data.as_bytes()));
    assert_eq!(published.status, 201);
    let path = "/ch/chat?since=0&as=iframe&callback=f";
    let call = piece(&daemon, &get(path, ""));
    let start = call.find("parent.f(").unwrap() + "parent.f(".len();
    let end = call.rfind(")</script>").unwrap();
    assert_whole(&call[start..end], &data);
    let chat = ask(&daemon, get("/chat.php?timestamp=0", ""));
    assert!(chat.body.len() <= LARGEST && chat.json()["msg"] == *data);
}

/// A line of the socket holds less of the data that grows most. Data that does not fit into a smaller limit is refused.
#[test]
fn the_settings_bound_it() {
    let daemon = Daemon::start(
        "[http]\npublish = true\nmax_body = \"10KiB\"\n[socket]\nmax_line = \"10KiB\"\n",
    );
    assert_eq!(ask(&daemon, post("/ch/a", "", &[1; 10 << 10])).status, 201);
    assert_eq!(
        ask(&daemon, post("/ch/a", "", &[1; (10 << 10) + 1])).status,
        413
    );
    let poll = ask(&daemon, get("/ch/a?since=0", ""));
    assert!(poll.body.len() <= 6 * (10 << 10) + 2048);
    let line = json!({"op": "publish", "channel": "a", "data": "x".repeat(10 << 10)});
    let mut lines = Lines::connect(&daemon.socket_path());
    assert_eq!(lines.ask(&line.to_string())["error"], "line");
}

/// Only a client of the socket can list so many long names.
#[test]
fn channels_and_attributes_add_what_the_document_says() {
    let daemon = Daemon::start("");
    let names: Vec<String> = (0..100)
        .map(|n| format!("{}{n:03}", "c".repeat(197)))
        .collect();
    let publish = json!({
        "op": "publish", "channels": names, "name": "\"".repeat(200),
        "attributes": {"k": "\u{1}".repeat(2047)}
    });
    let mut client = Lines::connect(&daemon.socket_path());
    assert_eq!(client.ask(&publish.to_string())["ok"], true);
    let history = client.ask(&json!({"op": "history", "channels": names}).to_string());
    let message = history["messages"][0].to_string();
    let more = message.len() - 2048;
    assert!(more <= 34 << 10 && more > 30 << 10, "{more} bytes");
}

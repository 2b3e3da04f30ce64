//! One message in several channels, and attributes: who gets what, on every transport, also after a restart.

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Http, Lines},
    wire::{WEBSOCKET, ask, get, post, refusal},
};

fn connect(daemon: &Daemon) -> Lines {
    Lines::connect(&daemon.socket_path())
}

/// Publishes by the socket, and returns the id.
fn publish(daemon: &Daemon, line: &Value) -> u64 {
    let reply = connect(daemon).ask(&line.to_string());
    reply["id"].as_u64().unwrap_or_else(|| panic!("{reply}"))
}

/// To three channels, with attributes.
fn publish_one(daemon: &Daemon) -> u64 {
    let line = json!({
        "op": "publish", "channels": ["a", "b", "hidden"], "data": "hi", "name": "n",
        "attributes": {"topic": "https://example.com/a", "id": "\u{1}\"<é"}
    });
    publish(daemon, &line)
}

/// What a client of these channels gets.
fn expected(id: u64, channels: &[&str]) -> Value {
    let mut message = json!({
        "channel": channels[0], "id": id, "name": "n", "data": "hi",
        "attributes": {"id": "\u{1}\"<é", "topic": "https://example.com/a"}
    });
    if channels.len() > 1 {
        message["channels"] = json!(channels);
    }
    message
}

/// The message of a stream's piece.
fn within(piece: &str, start: &str, end: &str) -> Value {
    let json = piece.split_once(start).unwrap().1;
    serde_json::from_str(json.split_once(end).unwrap().0).unwrap()
}

fn stream(daemon: &Daemon, path: &str) -> String {
    let mut client = Http::connect(daemon.addr());
    client.send(get(path, ""));
    client.until("\r\n\r\n");
    loop {
        let piece = client.chunk().unwrap();
        if piece.contains("\"channel\"") {
            return piece;
        }
    }
}

#[test]
fn each_transport_has_it_once_with_the_channels_of_the_client() {
    let daemon = Daemon::start("");
    let id = publish_one(&daemon);
    for (names, channels) in [("b", &["b"][..]), ("x,b,a", &["a", "b"])] {
        let expected = expected(id, channels);
        let path = format!("/ch/{names}?since=0");
        let poll = daemon.get(&path).json();
        assert_eq!(poll["messages"], json!([expected]));

        let event = stream(&daemon, &format!("{path}&as=sse"));
        assert_eq!(within(&event, "\ndata: ", "\n"), expected);

        let call = stream(&daemon, &format!("{path}&as=iframe&callback=f"));
        assert_eq!(within(&call, "parent.f(", ")</script>"), expected);

        let mut socket = Http::connect(daemon.addr());
        socket.send(get(&path, WEBSOCKET));
        socket.until("\r\n\r\n");
        let head = socket.exactly(4);
        assert_eq!(head[..2], [0x81, 126]);
        let frame = socket.exactly(u16::from_be_bytes([head[2], head[3]]).into());
        assert_eq!(serde_json::from_slice::<Value>(&frame).unwrap(), expected);

        let mut subscriber = connect(&daemon);
        let names: Vec<&str> = names.split(',').collect();
        let request = json!({"op": "subscribe", "channels": names, "since": 0});
        assert_eq!(subscriber.ask(&request.to_string())["ok"], true);
        assert_eq!(subscriber.read().unwrap(), expected);
        let request = json!({"op": "history", "channels": names});
        let history = connect(&daemon).ask(&request.to_string());
        assert_eq!(history["messages"], json!([expected]));
    }
}

#[test]
fn clients_that_wait_for_different_channels_are_told_of_their_own() {
    let daemon = Daemon::start("");
    let wanted: [(&[&str], &[&str]); 4] = [
        (&["a"], &["a"]),
        (&["a", "b"], &["a", "b"]),
        (&["hidden", "other"], &["hidden"]),
        (&["b", "other"], &["b"]),
    ];
    let mut waiting: Vec<(Lines, &[&str])> = Vec::new();
    for (names, told) in wanted {
        for _ in 0..2 {
            let mut client = connect(&daemon);
            let request = json!({"op": "subscribe", "channels": names});
            assert_eq!(client.ask(&request.to_string())["ok"], true);
            waiting.push((client, told));
        }
    }
    let mut polls: Vec<(Http, &[&str])> = Vec::new();
    for (names, told) in wanted.iter().chain(&wanted) {
        let mut client = Http::connect(daemon.addr());
        client.get(&format!("/ch/{}", names.join(",")));
        polls.push((client, told));
    }
    crate::daemon::wait_for("subscribers", || {
        let figures = daemon.get("/metrics").body;
        let count = figures
            .lines()
            .find_map(|line| line.strip_prefix("comet_subscribers "));
        (count? == "16").then_some(())
    });
    let id = publish_one(&daemon);
    let next = publish(
        &daemon,
        &json!({"op": "publish", "channels": ["a", "b", "hidden"], "data": "next"}),
    );
    for (client, told) in &mut waiting {
        assert_eq!(client.read().unwrap(), expected(id, told));
        assert_eq!(client.read().unwrap()["id"], next);
    }
    for (client, told) in &mut polls {
        assert_eq!(client.answer().json()["messages"][0], expected(id, told));
    }
}

#[test]
fn a_channel_that_was_dropped_is_told_of_no_more() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    client.ask(r#"{"op":"subscribe","channels":["a","b"]}"#);
    let id = publish_one(&daemon);
    assert_eq!(client.read().unwrap(), expected(id, &["a", "b"]));
    assert_eq!(
        client.ask(r#"{"op":"unsubscribe","channels":["a"]}"#)["ok"],
        true
    );
    let id = publish_one(&daemon);
    assert_eq!(client.read().unwrap(), expected(id, &["b"]));
}

#[test]
fn it_survives_a_kill_and_a_rewritten_log() {
    let daemon = Daemon::start("");
    let keyed = json!({"op": "publish", "channels": ["a", "b"], "key": "k"});
    let (first, id) = (publish(&daemon, &keyed), publish_one(&daemon));
    let root = daemon.root();
    daemon.signal("KILL");
    drop(daemon);
    let daemon = Daemon::start_in(root, "", &[]);
    let poll = daemon.get(&format!("/ch/a,b?since={first}")).json();
    assert_eq!(poll["messages"], json!([expected(id, &["a", "b"])]));
    assert_eq!(poll["gap"], false);
    assert_eq!(publish(&daemon, &keyed), first, "the key is remembered");
    let other = json!({"op": "publish", "channels": ["c", "b"], "key": "k"});
    assert_eq!(publish(&daemon, &other), first, "on each of its channels");
}

#[test]
fn a_post_goes_to_all_its_channels() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let path = "/ch/a,b%2Chidden?name=n&attribute.topic=https://example.com/a&attribute.id=%01%22%3C%C3%A9";
    let published = ask(&daemon, post(path, "Idempotency-Key: k\r\n", b"hi"));
    assert_eq!(published.status, 201, "{}", published.body);
    let id = published.json()["id"].as_u64().unwrap();
    let poll = daemon.get("/ch/b,a?since=0").json();
    assert_eq!(poll["messages"], json!([expected(id, &["a", "b"])]));
    let again = ask(&daemon, post("/ch/hidden", "Idempotency-Key: k\r\n", b"hi"));
    assert_eq!(again.json()["id"], id);
}

#[test]
fn a_post_without_the_right_to_every_channel_publishes_nothing() {
    let rules = ["open", "shut"].map(|name| {
        let publish = if name == "open" { "public" } else { "closed" };
        format!("[[channel]]\nprefix = \"{name}\"\npublish = \"{publish}\"\n")
    });
    let daemon = Daemon::start(&rules.concat());
    for names in ["open,shut", "shut,open", "open,other"] {
        let refused = ask(&daemon, post(&format!("/ch/{names}"), "", b"hi"));
        let (status, code, _) = refusal(&refused);
        assert_eq!((status, &*code), (403, "forbidden"), "{names}");
    }
    assert!(daemon.history("open").is_empty());
    assert_eq!(ask(&daemon, post("/ch/open,open.2", "", b"hi")).status, 201);
}

#[test]
fn nothing_is_published_without_the_right_to_every_channel() {
    let daemon = Daemon::start("[[channel]]\nprefix = \"closed\"\nsocket = []\n");
    let line = json!({"op": "publish", "channels": ["open", "closed"], "data": "hi"});
    let mut client = connect(&daemon);
    let reply = client.ask(&line.to_string());
    assert_eq!(reply["error"], "forbidden");
    assert!(
        reply["message"].as_str().unwrap().contains("closed"),
        "{reply}"
    );
    assert!(daemon.history("open").is_empty());
}

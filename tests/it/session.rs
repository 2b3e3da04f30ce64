//! Sessions: a client that changes what it has subscribed to, and publishes, over one WebSocket.

use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::{
    Message, WebSocket, client::IntoClientRequest, protocol::frame::coding::CloseCode,
};

use crate::{
    daemon::{Daemon, Lines, PATIENCE},
    reload::reload,
    tokens::{start, token},
    wire::{ask, get, metric, post, refusal, wait_for_subscribers},
};

/// A client of a session.
pub(crate) struct Session(pub(crate) WebSocket<TcpStream>);

impl Session {
    pub(crate) fn open(daemon: &Daemon) -> Self {
        Self::open_with(daemon, "comet")
    }

    /// With this list of offered subprotocols.
    pub(crate) fn open_with(daemon: &Daemon, protocols: &str) -> Self {
        let mut request = format!("ws://{}/session", daemon.addr())
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
        let stream = TcpStream::connect(daemon.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, answer) = tungstenite::client(request, stream).unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "comet");
        Self(socket)
    }

    pub(crate) fn send(&mut self, request: &Value) {
        self.0.send(Message::text(request.to_string())).unwrap();
    }

    /// The next text frame.
    pub(crate) fn next(&mut self) -> Value {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a request, and returns the next frame, which must be the reply.
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        let reply = self.next();
        assert!(reply["ok"].is_boolean(), "{request}: {reply}");
        reply
    }

    /// Sends a request that must succeed.
    pub(crate) fn done(&mut self, request: &Value) {
        assert_eq!(self.ask(request), json!({"ok": true}), "{request}");
    }

    /// The code of the error with which a request is refused.
    pub(crate) fn refused(&mut self, request: &Value) -> String {
        let reply = self.ask(request);
        assert_eq!(reply["ok"], false, "{request}: {reply}");
        assert_ne!(reply["message"], "");
        reply["error"].as_str().unwrap().to_owned()
    }

    pub(crate) fn subscribe(&mut self, channels: &[&str]) {
        self.done(&json!({"op": "subscribe", "channels": channels}));
    }

    /// The data of the next message.
    pub(crate) fn data(&mut self) -> String {
        let message = self.next();
        let data = message["data"].as_str();
        data.unwrap_or_else(|| panic!("no message: {message}"))
            .to_owned()
    }

    /// The code and the reason of the close frame, which must come next.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            match self.0.read().unwrap() {
                Message::Close(Some(frame)) => {
                    return (frame.code.into(), frame.reason.as_str().to_owned());
                }
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn channels_come_and_go_over_one_connection() {
    let daemon = Daemon::start("");
    let mut session = Session::open(&daemon);
    session.subscribe(&["a"]);
    daemon.publish("b", "not yet");
    daemon.publish("a", "one");
    assert_eq!(session.data(), "one");
    session.subscribe(&["b", "c"]);
    daemon.publish("b", "two");
    assert_eq!(session.data(), "two");
    session.done(&json!({"op": "unsubscribe", "channels": ["a", "never"]}));
    daemon.publish("a", "unheard");
    daemon.publish("c", "three");
    assert_eq!(session.data(), "three");
    session.done(&json!({"op": "unsubscribe", "channels": ["b", "c"]}));
    daemon.publish("c", "unheard");
    session.done(&json!({"op": "ping"}));
    session.subscribe(&["c"]);
    daemon.publish("c", "four");
    assert_eq!(session.data(), "four");
}

#[test]
fn replies_repeat_the_reference_in_the_order_of_the_requests() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let mut session = Session::open(&daemon);
    let requests = [
        json!({"op": "ping", "ref": 7}),
        json!({"op": "ping", "ref": -7}),
        json!({"op": "ping", "ref": "a\"b"}),
        json!({"op": "cursor", "ref": 0}),
        json!({"op": "subscribe", "channels": ["a"], "ref": "s"}),
        json!({"op": "publish", "channel": "b", "ref": "p"}),
        json!({"op": "history", "channels": ["b"], "ref": "h"}),
        json!({"op": "dance", "ref": "e"}),
        json!({"op": "unsubscribe", "channels": ["a"], "ref": 18_446_744_073_709_551_615_u64}),
    ];
    for request in &requests {
        session.send(request);
    }
    for request in &requests {
        let reply = session.next();
        assert_eq!(reply["ref"], request["ref"], "{reply}");
        assert_eq!(reply["ok"], request["op"] != "dance", "{reply}");
    }
    for odd in [json!({}), json!([1]), json!(1.5), json!(true), json!(1e30)] {
        let reply = session.ask(&json!({"op": "ping", "ref": odd}));
        assert_eq!(
            (&reply["error"], &reply["ref"]),
            (&json!("line"), &Value::Null)
        );
    }
    assert_eq!(
        session.refused(&json!({"op": "ping", "ref": "x".repeat(65)})),
        "ref"
    );
    session.done(&json!({"op": "ping", "ref": null}));
}

#[test]
fn the_socket_repeats_references_too() {
    let daemon = Daemon::start("");
    let mut lines = Lines::connect(&daemon.socket_path());
    lines.send(
        "{\"op\":\"publish\",\"channel\":\"a\",\"data\":\"x\",\"ref\":1}\n\
         {\"op\":\"history\",\"channels\":[\"a\"],\"ref\":\"h\"}\n\
         {\"op\":\"subscribe\",\"channels\":[\"a\"],\"ref\":2}\n\
         {\"op\":\"publish\",\"channel\":\"a\",\"data\":\"y\"}\n\
         {\"op\":\"token\",\"token\":\"x\",\"ref\":3}\n\
         {\"op\":\"publish\",\"channel\":\"/\",\"ref\":4}\n",
    );
    let read = |lines: &mut Lines| lines.read().unwrap();
    let first = read(&mut lines);
    assert_eq!((&first["ref"], &first["ok"]), (&json!(1), &json!(true)));
    let history = read(&mut lines);
    assert_eq!(history["ref"], "h");
    assert_eq!(history["messages"][0]["id"], first["id"]);
    assert_eq!(read(&mut lines), json!({"ref": 2, "ok": true}));
    assert_eq!(read(&mut lines).get("ref"), None);
    let token = read(&mut lines);
    assert_eq!((&token["ref"], &token["error"]), (&json!(3), &json!("op")));
    let channel = read(&mut lines);
    assert_eq!(
        (&channel["ref"], &channel["error"]),
        (&json!(4), &json!("channel"))
    );
    assert_eq!(read(&mut lines)["data"], "y");
}

#[test]
fn publishes_to_itself_and_to_others() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let (mut one, mut other) = (Session::open(&daemon), Session::open(&daemon));
    one.subscribe(&["a"]);
    other.subscribe(&["a", "b"]);
    let published = one.ask(
        &json!({"op": "publish", "channels": ["a", "b"], "data": "hi", "name": "n",
        "attributes": {"k": "v"}, "key": "once"}),
    );
    let expected = json!({"channel": "a", "id": published["id"], "name": "n", "data": "hi",
        "attributes": {"k": "v"}});
    assert_eq!(one.next(), expected);
    let again = one.ask(&json!({"op": "publish", "channel": "a", "data": "again", "key": "once"}));
    assert_eq!(again, published, "the key makes both one message");
    let mut both = expected.clone();
    both["channels"] = json!(["a", "b"]);
    assert_eq!(other.next(), both);
    let binary = one.ask(&json!({"op": "publish", "channel": "a", "data_base64": "/w=="}));
    assert_eq!(binary["ok"], true);
    let message = one.next();
    assert_eq!(
        (&message["data"], &message["encoding"]),
        (&json!("/w=="), &json!("base64"))
    );
    assert_eq!(metric(&daemon, "comet_published_http_total"), 3);
}

#[test]
fn history_and_cursors_are_those_of_all_transports() {
    let daemon = Daemon::start("");
    let first = daemon.publish("a", "one");
    daemon.publish("a", "two");
    let third = daemon.publish("a", "three");
    let mut session = Session::open(&daemon);
    let history = session.ask(&json!({"op": "history", "channels": ["a"], "since": first}));
    assert_eq!(history["messages"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&history["cursor"], &history["gap"]),
        (&json!(third.to_string()), &json!(false))
    );
    assert_eq!(history.get("more"), None);
    session.done(&json!({"op": "subscribe", "channels": ["a"], "since": first}));
    assert_eq!([session.data(), session.data()], ["two", "three"]);
    // Another channel with an older cursor does not repeat messages of the first one.
    session.done(&json!({"op": "subscribe", "channels": ["b"], "since": 0}));
    assert_eq!(
        session.ask(&json!({"op": "cursor"}))["cursor"],
        third.to_string()
    );
    let mut other = Session::open(&daemon);
    other.done(&json!({"op": "subscribe", "channels": ["a"], "since": 1}));
    let gap = other.next();
    assert_eq!(gap["gap"], true);
    assert_eq!(other.data(), "one");
}

#[test]
fn a_long_history_comes_in_parts() {
    let daemon = Daemon::start("");
    for number in 0..8 {
        daemon.publish("a", &format!("{number}{}", "x".repeat(60_000)));
    }
    let mut session = Session::open(&daemon);
    let (mut since, mut found, mut parts) = (json!(0), Vec::new(), 0);
    loop {
        let part = session.ask(&json!({"op": "history", "channels": ["a"], "since": since}));
        for message in part["messages"].as_array().unwrap() {
            found.push(message["data"].as_str().unwrap()[..1].to_owned());
        }
        since = part["cursor"].clone();
        parts += 1;
        if part["more"] != true {
            break;
        }
    }
    assert_eq!(found.concat(), "01234567");
    assert!(parts > 1);
}

#[test]
fn refuses_what_the_rules_refuse_and_goes_on() {
    let daemon = start("");
    let good = token(&json!({"s": ["chat.*"], "p": ["chat.7"], "h": 1}), 600);
    let mut session = Session::open(&daemon);
    let subscribe = |channel: &str| json!({"op": "subscribe", "channels": [channel]});
    let publish = |channel: &str| json!({"op": "publish", "channel": channel});
    session.done(&subscribe("open.a"));
    assert_eq!(session.refused(&subscribe("closed.a")), "forbidden");
    assert_eq!(session.refused(&subscribe("chat.7")), "token");
    assert_eq!(session.refused(&publish("chat.7")), "token");
    assert_eq!(
        session.refused(&json!({"op": "history", "channels": ["chat.7"]})),
        "token"
    );
    assert_eq!(session.ask(&publish("box.a"))["ok"], true);
    assert_eq!(
        session.refused(&json!({"op": "token", "token": "x"})),
        "token"
    );
    let replaced = session.ask(&json!({"op": "token", "token": good, "ref": 1}));
    assert_eq!(
        (&replaced["ok"], &replaced["ref"]),
        (&json!(true), &json!(1))
    );
    session.done(&subscribe("chat.7"));
    assert_eq!(session.refused(&subscribe("other")), "forbidden");
    assert_eq!(
        session.refused(&json!({"op": "subscribe", "channels": ["chat.8", "other"]})),
        "forbidden"
    );
    assert_eq!(session.ask(&publish("chat.7"))["ok"], true);
    assert_eq!(session.next()["channel"], "chat.7");
    assert_eq!(session.refused(&publish("chat.8")), "forbidden");
    // A token that does not grant what the session reads does not replace the other one.
    let less = token(&json!({"s": ["chat.8"]}), 600);
    assert_eq!(
        session.refused(&json!({"op": "token", "token": less})),
        "forbidden"
    );
    assert_eq!(session.ask(&publish("chat.7"))["ok"], true);
    assert_eq!(session.next()["channel"], "chat.7");
    daemon.publish("chat.8", "unheard");
    daemon.publish("open.a", "heard");
    assert_eq!(session.data(), "heard");
}

#[test]
fn the_handshake_may_bring_the_token() {
    let daemon = start("");
    let good = token(&json!({"s": ["chat.7"], "h": 1}), 600);
    let mut session = Session::open_with(&daemon, &format!("comet, comet.token.{good}"));
    session.subscribe(&["chat.7"]);
    // A token that is not valid is refused where it is needed.
    let mut session = Session::open_with(&daemon, "comet, comet.token.x");
    session.subscribe(&["open.a"]);
    let chat = json!({"op": "subscribe", "channels": ["chat.7"]});
    assert_eq!(session.refused(&chat), "token");
    let without_history = token(&json!({"s": ["chat.7"]}), 600);
    assert_eq!(
        session.ask(&json!({"op": "token", "token": without_history}))["ok"],
        true
    );
    session.done(&chat);
}

#[test]
fn a_session_needs_a_handshake_and_a_page_that_may_open_it() {
    let daemon = Daemon::start("[http]\norigins = [\"https://example.org\"]\n");
    let (status, code, message) = refusal(&ask(&daemon, get("/session", "")));
    assert_eq!((status, &*code), (426, "websocket"));
    assert!(message.contains("Upgrade: websocket"), "{message}");
    let (status, code, _) = refusal(&ask(&daemon, post("/session", "", b"")));
    assert_eq!((status, &*code), (405, "method"));
    let handshake = |more: &str| get("/session", &format!("{}{more}", crate::wire::WEBSOCKET));
    let (status, _, _) = refusal(&ask(&daemon, handshake("Origin: https://evil.example\r\n")));
    assert_eq!(status, 403);
    let (status, code, _) = refusal(&ask(&daemon, handshake("Sec-WebSocket-Protocol: chat\r\n")));
    assert_eq!((status, &*code), (400, "websocket"));
}

#[test]
fn ends_with_its_token() {
    let daemon = start("");
    let short = |seconds| token(&json!({"s": ["chat.7"], "h": 1}), seconds);
    let mut session = Session::open(&daemon);
    assert_eq!(
        session.ask(&json!({"op": "token", "token": short(1)}))["ok"],
        true
    );
    let mut renewed = Session::open(&daemon);
    assert_eq!(
        renewed.ask(&json!({"op": "token", "token": short(2)}))["ok"],
        true
    );
    renewed.subscribe(&["chat.7"]);
    assert_eq!(
        renewed.ask(&json!({"op": "token", "token": short(600)}))["ok"],
        true
    );
    session.done(&json!({"op": "subscribe", "channels": ["chat.7"]}));
    let expired = session.next();
    assert_eq!(expired["expired"], true);
    assert!(expired["cursor"].is_string());
    assert_eq!(session.closed(), (4401, String::new()));
    daemon.publish("chat.7", "still here");
    assert_eq!(renewed.data(), "still here");
}

#[test]
fn new_settings_end_what_they_may_refuse() {
    let daemon = Daemon::start("[[channel]]\nprefix = \"a\"\nread = \"public\"\n");
    let (mut kept, mut ended) = (Session::open(&daemon), Session::open(&daemon));
    kept.subscribe(&["b"]);
    ended.subscribe(&["a", "b"]);
    reload(&daemon, "[[channel]]\nprefix = \"a\"\nread = \"closed\"\n");
    let (code, reason) = ended.closed();
    assert_eq!(code, 1001);
    assert!(reason.starts_with("{\"retry\":"), "{reason}");
    assert_eq!(
        kept.refused(&json!({"op": "subscribe", "channels": ["a"]})),
        "forbidden"
    );
    daemon.publish("b", "go on");
    assert_eq!(kept.data(), "go on");
}

#[test]
fn gets_its_last_messages_when_the_daemon_stops() {
    let daemon = Daemon::start("");
    let mut session = Session::open(&daemon);
    session.subscribe(&["a"]);
    wait_for_subscribers(&daemon, 1);
    daemon.publish("a", "last");
    daemon.signal("TERM");
    assert_eq!(session.data(), "last");
    assert_eq!(session.closed(), (1001, "{\"retry\":500}".into()));
}

#[test]
fn sends_pings_and_answers_them_and_a_close() {
    let daemon = Daemon::start("[http]\nheartbeat = \"1s\"\n");
    let mut session = Session::open(&daemon);
    assert_eq!(session.0.read().unwrap(), Message::Ping("".into()));
    session.0.send(Message::Ping("payload".into())).unwrap();
    assert_eq!(session.0.read().unwrap(), Message::Pong("payload".into()));
    session.0.close(None).unwrap();
    loop {
        match session.0.read() {
            Ok(Message::Ping(_)) => {}
            Ok(other) => assert_eq!(other, Message::Close(None)),
            Err(error) => break assert!(matches!(error, tungstenite::Error::ConnectionClosed)),
        }
    }
    wait_for_subscribers(&daemon, 0);
    let mut session = Session::open(&daemon);
    session.0.send(Message::Binary("x".into())).unwrap();
    assert_eq!(session.closed().0, u16::from(CloseCode::Unsupported));
}

#[test]
fn a_publish_is_acknowledged_when_it_is_on_the_disk() {
    let daemon = Daemon::start("[http]\npublish = true\n[store]\ndurability = \"disk\"\n");
    let mut session = Session::open(&daemon);
    session.subscribe(&["a"]);
    for number in 0..5 {
        session.send(&json!({"op": "publish", "channel": "a", "data": "x", "ref": number}));
    }
    session.send(&json!({"op": "ping", "ref": "last"}));
    let (mut replies, mut messages) = (Vec::new(), 0);
    while replies.last() != Some(&json!("last")) || messages < 5 {
        let frame = session.next();
        match frame.get("ref") {
            Some(reference) => replies.push(reference.clone()),
            None => messages += 1,
        }
    }
    assert_eq!(json!(replies), json!([0, 1, 2, 3, 4, "last"]));
}

/// The history keeps less than the session has left unread.
#[test]
fn a_session_that_reads_too_late_gets_a_gap_and_goes_on() {
    const MESSAGES: usize = 400;
    let daemon = Daemon::start("workers = 1\n[history]\nbytes = \"256KiB\"\n");
    let mut session = Session::open(&daemon);
    session.subscribe(&["a"]);
    let data = "x".repeat(60_000);
    let mut last = 0;
    for _ in 0..MESSAGES {
        last = daemon.publish("a", &data);
    }
    let (mut gaps, mut received) = (0, 0);
    loop {
        let frame = session.next();
        if frame["gap"] == true {
            gaps += 1;
            continue;
        }
        received += 1;
        if frame["id"] == last {
            break;
        }
    }
    assert!(
        gaps >= 1 && received < MESSAGES,
        "{gaps} gaps, {received} messages"
    );
    session.done(&json!({"op": "ping"}));
}

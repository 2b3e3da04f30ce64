//! Presence in sessions and on the Unix socket: members join and leave with the channels to which they subscribe.

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Lines},
    session::Session,
    tokens::{start, token_of},
};

/// Anyone can be a member, and leaves at once.
const ANYONE: &str = "[[channel]]\nprefix = \"\"\nread = \"public\"\npresence = \"anyone\"\npresence_grace = \"0s\"\n";

fn join(channels: &[&str], member: &str) -> Value {
    json!({"op": "subscribe", "channels": channels, "presence": true, "member": member})
}

/// The next presence message in short: `joined a 1`.
fn change(frame: &Value) -> String {
    let presence = &frame["presence"];
    let of = |what: &str| Some(format!("{what} {}", presence[what]["id"].as_str()?));
    let change = of("joined").or_else(|| of("left"));
    let change = change.unwrap_or_else(|| panic!("no presence message: {frame}"));
    format!("{change} {}", presence["count"])
}

#[test]
fn a_member_joins_and_leaves_with_its_channels() {
    let daemon = Daemon::start(ANYONE);
    let (mut one, mut other) = (Session::open(&daemon), Session::open(&daemon));
    one.subscribe(&["a"]);
    one.done(&join(&["a", "b"], "one"));
    other.done(&join(&["a"], "other"));
    assert_eq!(change(&one.next()), "joined other 2");
    let members = one.ask(&json!({"op": "presence", "channel": "a", "ref": 1}));
    assert_eq!(members["ref"], 1);
    let expected = json!([{"id": "one", "connections": 1}, {"id": "other", "connections": 1}]);
    assert_eq!(members["members"], expected);
    // Who subscribes again is still one connection.
    one.done(&join(&["a", "b"], "one"));
    assert_eq!(
        daemon.get("/presence/b").json()["members"][0]["connections"],
        1
    );
    daemon.publish("a", "hi");
    assert_eq!([one.data(), other.data()], ["hi", "hi"]);
    one.done(&json!({"op": "unsubscribe", "channels": ["a"]}));
    assert_eq!(change(&other.next()), "left one 1");
    // The end of the connection counts, too.
    let mut watcher = Session::open(&daemon);
    watcher.done(&json!({"op": "subscribe", "channels": ["a", "b"], "presence": true}));
    drop(one);
    assert_eq!(change(&watcher.next()), "left one 0");
    other.0.close(None).unwrap();
    assert_eq!(change(&watcher.next()), "left other 0");
}

#[test]
fn the_member_is_that_of_the_token() {
    let daemon = start("");
    let token = |subject: &str| {
        let token = token_of(
            &json!(subject),
            &json!({"s": ["chat.7"], "info": {"name": subject}}),
        );
        json!({"op": "token", "token": token})
    };
    let mut session = Session::open(&daemon);
    let plain = json!({"op": "subscribe", "channels": ["chat.7"], "presence": true});
    assert_eq!(session.refused(&plain), "token");
    assert_eq!(session.refused(&join(&["open.a"], "42")), "forbidden");
    session.done(&json!({"op": "subscribe", "channels": ["open.a"], "presence": true}));
    assert_eq!(session.ask(&token("ann"))["ok"], true);
    session.done(&plain);
    let members = |session: &mut Session| {
        session.ask(&json!({"op": "presence", "channel": "chat.7"}))["members"].clone()
    };
    let ann = json!([{"id": "ann", "info": {"name": "ann"}, "connections": 1}]);
    assert_eq!(members(&mut session), ann);
    // A token of somebody else makes the client another member.
    session.send(&token("bob"));
    let mut frames = [session.next(), session.next()];
    frames.sort_by_key(|frame| frame["ok"] == true);
    assert_eq!(change(&frames[0]), "joined bob 2");
    let present: Vec<Value> = members(&mut session).as_array().unwrap().clone();
    let connections = |id: &str| {
        let member = present.iter().find(|member| member["id"] == id);
        member.unwrap()["connections"].clone()
    };
    assert_eq!(
        [connections("ann"), connections("bob")],
        [json!(0), json!(1)]
    );
}

#[test]
fn a_client_of_the_socket_watches() {
    let daemon = Daemon::start(ANYONE);
    let mut lines = Lines::connect(&daemon.socket_path());
    let member = r#"{"op":"subscribe","channels":["a"],"presence":true,"member":"x"}"#;
    assert_eq!(lines.ask(member)["error"], "member");
    let watch = r#"{"op":"subscribe","channels":["a"],"presence":true}"#;
    assert_eq!(lines.ask(watch), json!({"ok": true}));
    let mut session = Session::open(&daemon);
    session.done(&join(&["a"], "one"));
    assert_eq!(change(&lines.read().unwrap()), "joined one 1");
    lines.send("{\"op\":\"unsubscribe\",\"channels\":[\"a\"]}\n");
    assert_eq!(lines.read().unwrap(), json!({"ok": true}));
    drop(session);
    assert_eq!(lines.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
}

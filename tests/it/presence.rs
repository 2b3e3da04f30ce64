//! Presence: who is on a channel, on every transport, with grace times, and with many members.

use std::{
    io::BufRead,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Http, Lines, wait_for},
    http2,
    tokens::{self, bearer, token_of},
    websocket,
    wire::{Events, ask, get, refusal},
};

/// Anyone can be a member, and stays for a second.
const ANYONE: &str = "[[channel]]\nprefix = \"\"\nread = \"public\"\npresence = \"anyone\"\npresence_grace = \"1s\"\n";

/// Members stay for longer than a test.
const LONG_GRACE: &str = "[[channel]]\nprefix = \"\"\nread = \"public\"\npresence = \"anyone\"\npresence_grace = \"1h\"\n";

/// A stream of a member of `news`, or without an id of somebody who only watches.
fn open(daemon: &Daemon, id: &str) -> Events {
    Events::open(daemon, &format!("/ch/news?presence=1&member={id}"), "")
}

/// The next message in short: `joined a 1`, `left a 0`, `3` for a number, or the data of another message.
fn next(events: &mut Events) -> String {
    short(&events.message().2)
}

fn short(message: &Value) -> String {
    let presence = &message["presence"];
    let of = |what: &str| Some(format!("{what} {}", presence[what]["id"].as_str()?));
    match of("joined").or_else(|| of("left")) {
        Some(change) => format!("{change} {}", presence["count"]),
        None if presence.is_object() => presence["count"].to_string(),
        None => message["data"].as_str().unwrap().to_owned(),
    }
}

fn members(daemon: &Daemon) -> Value {
    daemon.get("/presence/news").json()["members"].clone()
}

#[test]
fn members_join_and_leave_on_every_transport() {
    let daemon = Daemon::start(ANYONE);
    let mut watcher = open(&daemon, "");
    let mut poll = Http::connect(daemon.addr());
    poll.send(get("/ch/news?presence=1&member=poll", ""));
    assert_eq!(next(&mut watcher), "joined poll 1");
    let mut events = open(&daemon, "sse");
    let mut frame = Http::connect(daemon.addr());
    frame.send(get(
        "/ch/news?presence=1&member=iframe&as=iframe&callback=show",
        "",
    ));
    frame.until("<body>");
    let mut socket = websocket::open(&daemon, "/ch/news?presence=1&member=websocket");
    assert_eq!(next(&mut watcher), "joined sse 2");
    assert_eq!(next(&mut watcher), "joined iframe 3");
    assert_eq!(next(&mut watcher), "joined websocket 4");

    // The first change has answered the poll.
    let answer = poll.answer().json();
    assert_eq!(
        answer["messages"][0]["presence"]["joined"],
        json!({"id": "sse"})
    );
    assert_eq!(next(&mut events), "joined iframe 3");
    assert_eq!(next(&mut events), "joined websocket 4");
    let id = events.message_of(daemon.publish("news", "hi"));
    assert_eq!(id, "hi");
    let text = socket.read().unwrap().into_text().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["data"], "hi");
    drop(events);
    let call = frame.until("\"left\"");
    assert!(
        call.contains("<script>parent.show({\"presence\":{\"channel\":\"news\","),
        "{call}"
    );
    drop((socket, frame));
    assert_eq!(next(&mut watcher), "hi");
    let mut left: Vec<String> = (0..4).map(|_| next(&mut watcher)).collect();
    left.sort();
    let names: Vec<&str> = left
        .iter()
        .map(|left| left.split(' ').nth(1).unwrap())
        .collect();
    assert_eq!(names, ["iframe", "poll", "sse", "websocket"], "{left:?}");
    assert_eq!(members(&daemon), json!([]));
}

#[test]
fn members_join_and_leave_over_http_2() {
    let daemon = Daemon::start(ANYONE);
    let mut watcher = open(&daemon, "");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let stream = client.get("/ch/news?as=sse&presence=1&member=stream").await;
        let poll = client.get("/ch/news?since=0&presence=1&member=poll").await;
        let (status, answer) = http2::json(poll).await;
        assert_eq!(
            (status, short(&answer["messages"][0])),
            (200, "joined stream 1".into())
        );
        http2::text_until(stream, "\"joined\":{\"id\":\"poll\"}").await;
    });
    assert_eq!(next(&mut watcher), "joined stream 1");
    assert_eq!(next(&mut watcher), "joined poll 2");
    let mut left = [next(&mut watcher), next(&mut watcher)];
    left.sort();
    assert!(
        left[0].starts_with("left poll") && left[1].starts_with("left stream"),
        "{left:?}"
    );
}

#[test]
fn the_next_poll_and_a_page_that_is_loaded_again_are_no_change() {
    let daemon = Daemon::start(ANYONE);
    let mut watcher = open(&daemon, "");
    let mut poll = Http::connect(daemon.addr());
    let mut cursor = String::from("0");
    for text in ["one", "two", "three"] {
        poll.send(get(
            &format!("/ch/news?presence=1&member=a&since={cursor}"),
            "",
        ));
        if text == "one" {
            assert_eq!(next(&mut watcher), "joined a 1");
            // Its own change answers the first poll at once, because this client asked for everything.
            cursor = poll.answer().json()["cursor"].as_str().unwrap().to_owned();
            poll.send(get(
                &format!("/ch/news?presence=1&member=a&since={cursor}"),
                "",
            ));
        }
        daemon.publish("news", text);
        cursor = poll.answer().json()["cursor"].as_str().unwrap().to_owned();
        assert_eq!(next(&mut watcher), text);
    }
    for _ in 0..5 {
        drop(open(&daemon, "a"));
    }
    let stream = open(&daemon, "a");
    // Longer than the grace time: the clock of the presence messages says when it has passed.
    drop(open(&daemon, "clock"));
    assert_eq!(next(&mut watcher), "joined clock 2");
    assert_eq!(next(&mut watcher), "left clock 1");
    drop(stream);
    assert_eq!(next(&mut watcher), "left a 0");
}

#[test]
fn a_client_that_is_killed_leaves() {
    let daemon = Daemon::start(ANYONE);
    let mut watcher = open(&daemon, "");
    let url = format!(
        "http://{}/ch/news?as=sse&presence=1&member=curl",
        daemon.addr()
    );
    let mut client = Command::new("curl")
        .args(["-sN", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = client.stdout.take().unwrap();
    std::io::BufReader::new(output)
        .read_line(&mut line)
        .unwrap();
    assert_eq!(next(&mut watcher), "joined curl 1");
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(next(&mut watcher), "left curl 0");
}

#[test]
fn the_member_is_the_subject_of_the_token() {
    let daemon = tokens::start("");
    let info = json!({"name": "Ann </script>\n\u{2028}"});
    let ann = bearer(&token_of(
        &42.into(),
        &json!({"s": ["chat.7"], "info": info}),
    ));
    let mut watcher = Events::open(&daemon, "/ch/chat.7?presence=1", &ann);
    let bob = bearer(&token_of(&"bob".into(), &json!({"s": ["chat.7"]})));
    let tab = Events::open(&daemon, "/ch/chat.7?presence=1", &bob);
    let (id, _, joined) = watcher.message();
    let expected = json!({"channel": "chat.7", "joined": {"id": "bob"}, "count": 2});
    assert_eq!(joined, json!({"presence": expected, "id": id}));
    let second = Events::open(&daemon, "/ch/chat.7?presence=1", &bob);
    // A subscription without the parameter is no member.
    let _other = Events::open(&daemon, "/ch/chat.7", &bob);
    let asked = ask(&daemon, get("/presence/chat.7", &ann)).json();
    assert_eq!(
        asked["members"],
        json!([
            {"id": "42", "info": info, "connections": 1},
            {"id": "bob", "connections": 2},
        ])
    );
    assert!(asked["count"] == 2 && asked["cursor"].as_str().unwrap().parse::<u64>().unwrap() >= id);
    drop((tab, second));
    wait_for("both connections to end", || {
        let asked = ask(&daemon, get("/presence/chat.7", &ann)).json();
        (asked["members"][1] == json!({"id": "bob", "connections": 0})).then_some(())
    });
    // A public channel needs no token, but a token that is there must be valid, and says who the member is.
    let mut open = Events::open(&daemon, "/ch/open.a?presence=1", "");
    let _bob = Events::open(&daemon, "/ch/open.a?presence=1", &bob);
    assert_eq!(next(&mut open), "joined bob 1");
    let refused = ask(
        &daemon,
        get("/ch/open.a?presence=1", &bearer("e30.e30.e30")),
    );
    assert_eq!(refused.status, 401);
}

#[test]
fn who_may_not_read_or_has_no_such_id_is_refused() {
    let daemon = tokens::start("");
    let token = bearer(&token_of(&"a".into(), &json!({"s": ["chat.7"]})));
    let long = bearer(&token_of(
        &"x".repeat(201).into(),
        &json!({"s": ["chat.7"]}),
    ));
    let large = json!({"s": ["chat.7"], "info": "x".repeat(2047)});
    let large = bearer(&token_of(&"a".into(), &large));
    for (path, headers, status, code) in [
        ("/presence/chat.7", "", 401, "token"),
        ("/presence/chat.8", &*token, 403, "forbidden"),
        ("/presence/closed.a", &*token, 403, "forbidden"),
        ("/presence/.presence.open.a", "", 400, "channel"),
        ("/presence/open.a,open.b", "", 400, "channels"),
        ("/presence/", "", 400, "channel"),
        ("/ch/.presence.open.a", "", 400, "channel"),
        ("/ch/open.a?presence=1&member=a", "", 403, "forbidden"),
        ("/ch/open.a?presence=yes", "", 400, "presence"),
        ("/ch/chat.7?presence=1", &*long, 400, "member"),
        ("/ch/chat.7?presence=1", &*large, 400, "member"),
    ] {
        let answer = ask(&daemon, get(path, headers));
        let (got, error, message) = refusal(&answer);
        assert_eq!((got, &*error), (status, code), "{path}: {message}");
    }
    let mut head = Http::connect(daemon.addr());
    head.send("HEAD /presence/open.a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.until("\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
    let daemon = Daemon::start(ANYONE);
    for id in ["%00", &*"x".repeat(201)] {
        let answer = daemon.get(&format!("/ch/news?presence=1&wait=0&member={id}"));
        assert_eq!(refusal(&answer).1, "member", "{id}");
    }
}

/// One connection is a client after the other. None of them leaves, because the grace time is long.
fn pass_through(daemon: &Daemon, ids: impl Iterator<Item = String>) {
    let mut client = Http::connect(daemon.addr());
    for id in ids {
        client.get(&format!("/ch/news?wait=0&presence=1&member={id}"));
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn of_ten_thousand_members_only_the_number_is_sent() {
    let daemon = Daemon::start(LONG_GRACE);
    let mut watcher = open(&daemon, "");
    pass_through(&daemon, (0..10_000).map(|number| format!("m{number:05}")));
    let mut messages = 0;
    loop {
        messages += 1;
        if next(&mut watcher) == "10000" {
            break;
        }
    }
    assert!(messages < 1_200, "{messages} messages");
    let (mut path, mut listed) = (String::from("/presence/news"), Vec::new());
    loop {
        let answer = daemon.get(&path).json();
        assert_eq!(answer["count"], 10_000);
        let list = answer["members"].as_array().unwrap();
        assert!(list.len() <= 1000);
        listed.extend(
            list.iter()
                .map(|member| member["id"].as_str().unwrap().to_owned()),
        );
        match answer["next"].as_str() {
            Some(next) => path = format!("/presence/news?after={next}"),
            None => break,
        }
    }
    assert!(listed.len() == 10_000 && listed.is_sorted());
}

#[test]
fn the_unix_socket_lists_the_members() {
    let daemon = Daemon::start(LONG_GRACE);
    pass_through(&daemon, ["b", "a"].map(String::from).into_iter());
    let mut lines = Lines::connect(&daemon.socket_path());
    let mut reply = lines.ask(r#"{"op":"presence","channel":"news"}"#);
    reply["cursor"].take();
    let member = |id| json!({"id": id, "connections": 0});
    let all = json!([member("a"), member("b")]);
    assert_eq!(
        reply,
        json!({"ok": true, "members": all, "count": 2, "cursor": null})
    );
    let reply = lines.ask(r#"{"op":"presence","channel":"news","after":"a"}"#);
    assert_eq!(
        (&reply["members"], &reply["count"]),
        (&json!([member("b")]), &json!(2))
    );
    let refused = lines.ask(r#"{"op":"presence","channel":".presence.news"}"#);
    assert_eq!(refused["error"], "channel");
}

#[test]
fn after_a_restart_members_come_back_and_cursors_stay_good() {
    let daemon = Daemon::start(LONG_GRACE);
    let mut watcher = open(&daemon, "watcher");
    pass_through(&daemon, ["a"].map(String::from).into_iter());
    let (cursor, ..) = watcher.message();
    let root = daemon.root();
    daemon.signal("KILL");
    drop((daemon, watcher));
    let daemon = Daemon::start_in(root, LONG_GRACE, &[]);
    assert_eq!(members(&daemon), json!([]));
    let path = format!("/ch/news?presence=1&member=watcher&since={cursor}");
    let mut watcher = Events::open(&daemon, &path, "");
    assert_eq!(
        next(&mut watcher),
        "joined watcher 1",
        "no gap, and no left"
    );
    // Those who were there are told to ask for the members, because one has not come back.
    assert_eq!(next(&mut watcher), "1");
}

#[test]
fn with_new_settings_a_subscription_that_may_go_on_keeps_its_member() {
    let config = "[[channel]]\nprefix = \"\"\nread = \"closed\"\n\
        [[channel]]\nprefix = \"news\"\nread = \"public\"\npresence = \"anyone\"\n";
    let daemon = Daemon::start(config);
    let mut watcher = open(&daemon, "a");
    crate::reload::reload(&daemon, &format!("{config}presence_grace = \"1s\"\n"));
    assert_eq!(watcher.message_of(daemon.publish("news", "hi")), "hi");
    let _other = open(&daemon, "b");
    assert_eq!(next(&mut watcher), "joined b 2");
}

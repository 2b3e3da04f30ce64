//! Subscribers and histories on the Unix socket: no message is lost or sent twice, and gaps are reported.

use std::thread;

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Lines},
    socket::{connect, publish},
};

fn data_of(message: &Value) -> &str {
    message["data"]
        .as_str()
        .unwrap_or_else(|| panic!("no message: {message}"))
}

#[test]
fn a_subscriber_gets_what_is_kept_and_then_what_comes() {
    let daemon = Daemon::start("");
    let first = daemon.publish("a", "1");
    daemon.publish("other", "no");
    daemon.publish("b", "2");
    let mut all = connect(&daemon);
    let mut rest = connect(&daemon);
    let mut live = connect(&daemon);
    for (client, since) in [
        (&mut all, json!(0)),
        (&mut rest, json!(first.to_string())),
        (&mut live, json!(null)),
    ] {
        let line = json!({"op": "subscribe", "channels": ["a", "b"], "since": since});
        assert_eq!(client.ask(&line.to_string()), json!({"ok": true}));
    }
    let id = daemon.publish("a", "3");
    assert_eq!(
        live.read(),
        Some(json!({"channel": "a", "id": id, "name": "", "data": "3"}))
    );
    for data in ["2", "3"] {
        assert_eq!(data_of(&rest.read().unwrap()), data);
    }
    for data in ["1", "2", "3"] {
        assert_eq!(data_of(&all.read().unwrap()), data);
    }
    // Requests on the same connection are answered in between.
    let reply = all.ask(&publish("elsewhere", "x"));
    assert!(reply["id"].as_u64() > Some(id));
    assert_eq!(
        all.ask(r#"{"op":"subscribe","channels":["a"]}"#)["error"],
        "op"
    );
}

#[test]
fn nothing_is_lost_or_told_twice_while_others_publish() {
    const MESSAGES: usize = 3_000;
    const PUBLISHERS: usize = 3;
    let daemon = Daemon::start("[history]\nmessages = 100000\nbytes = \"64MiB\"");
    let path = daemon.socket_path();
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let mut client = Lines::connect(&path);
                scope.spawn(move || {
                    let channel = format!("c{number}");
                    (0..MESSAGES)
                        .map(|i| {
                            client.ask(&publish(&channel, &i.to_string()))["id"]
                                .as_u64()
                                .unwrap()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        // Subscribers that start at any time, and one that leaves and resumes from its cursor again and again.
        let subscribe = |since: u64| {
            let mut client = Lines::connect(&path);
            let line = json!({"op": "subscribe", "channels": ["c0", "c1", "c2"], "since": since});
            assert_eq!(client.ask(&line.to_string()), json!({"ok": true}));
            client
        };
        let restless = scope.spawn(move || {
            let (mut seen, mut cursor) = (Vec::new(), 0);
            while seen.len() < MESSAGES * PUBLISHERS {
                let mut client = subscribe(cursor);
                for _ in 0..97.min(MESSAGES * PUBLISHERS - seen.len()) {
                    cursor = client.read().unwrap()["id"].as_u64().expect("no gap");
                    seen.push(cursor);
                }
            }
            seen
        });
        let steady = scope.spawn(move || {
            let mut client = subscribe(0);
            let id = |_| client.read().unwrap()["id"].as_u64().expect("no gap");
            (0..MESSAGES * PUBLISHERS).map(id).collect::<Vec<_>>()
        });
        let mut published: Vec<u64> = publishers
            .into_iter()
            .flat_map(|p| p.join().unwrap())
            .collect();
        published.sort_unstable();
        assert!(steady.join().unwrap() == published, "the steady one");
        assert!(restless.join().unwrap() == published, "the restless one");
    });
}

#[test]
fn a_subscriber_that_does_not_read_slows_nobody_and_is_told_of_its_gap() {
    let daemon = Daemon::start("[history]\nbytes = \"256KiB\"");
    let mut slow = connect(&daemon);
    assert_eq!(
        slow.ask(r#"{"op":"subscribe","channels":["news"]}"#),
        json!({"ok": true})
    );
    let mut publisher = connect(&daemon);
    let data = "x".repeat(10_000);
    let mut last = 0;
    for _ in 0..1_000 {
        last = publisher.ask(&publish("news", &data))["id"]
            .as_u64()
            .unwrap();
    }
    let (mut seen, mut gaps) = (0, 0);
    while seen < last {
        let line = slow.read().unwrap();
        let id = line["id"].as_u64();
        if line["gap"] == true {
            gaps += 1;
            let cursor = line["cursor"].as_str().unwrap().parse::<u64>().unwrap();
            assert!(cursor >= seen);
        } else {
            assert!(id > Some(seen), "{id:?} after {seen}");
            seen = id.unwrap();
        }
    }
    assert!(gaps >= 1, "10 MB did not fit into buffers and history");
}

#[test]
fn a_cursor_of_an_earlier_daemon_is_a_gap() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    client.send("{\"op\":\"subscribe\",\"channels\":[\"news\"],\"since\":5}\n");
    assert_eq!(client.read(), Some(json!({"ok": true})));
    let gap = client.read().unwrap();
    assert_eq!(gap["gap"], true);
    let id = daemon.publish("news", "hi");
    assert!(gap["cursor"].as_str().unwrap().parse::<u64>().unwrap() < id);
    assert_eq!(client.read().unwrap()["id"], id);
    let history = connect(&daemon).ask(r#"{"op":"history","channels":["news"],"since":5}"#);
    assert_eq!(
        (
            &history["gap"],
            history["messages"].as_array().unwrap().len()
        ),
        (&json!(true), 1)
    );
}

#[test]
fn a_history_is_complete_however_long() {
    let daemon = Daemon::start("[history]\nbytes = \"16MiB\"");
    let mut client = connect(&daemon);
    let mut published = Vec::new();
    for i in 0..20 {
        // More than one read of the hub returns, and several channels in turn.
        let data = format!("{i}{}", "\u{1}".repeat(100_000));
        published.push(client.ask(&publish(&format!("c{}", i % 3), &data))["id"].clone());
    }
    let history = client.ask(r#"{"op":"history","channels":["c2","c0","c1"]}"#);
    let ids: Vec<Value> = history["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].clone())
        .collect();
    assert_eq!(ids, published);
    assert_eq!(
        (&history["gap"], &history["cursor"]),
        (&json!(false), &json!(published[19].to_string()))
    );
    let rest = json!({"op": "history", "channels": ["c0", "c1", "c2"], "since": published[17]});
    assert_eq!(
        client.ask(&rest.to_string())["messages"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

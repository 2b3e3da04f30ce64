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
}

fn change(op: &str, channels: &[&str], since: Option<u64>) -> String {
    let mut line = json!({"op": op, "channels": channels});
    if let Some(since) = since {
        line["since"] = since.into();
    }
    line.to_string()
}

#[test]
fn channels_come_and_go_on_one_connection() {
    let daemon = Daemon::start("");
    let ok = json!({"ok": true});
    let mut client = connect(&daemon);
    assert_eq!(client.ask(&change("subscribe", &["a"], None)), ok);
    daemon.publish("b", "before b was added");
    assert_eq!(client.ask(&change("subscribe", &["b", "a"], None)), ok);
    daemon.publish("b", "1");
    daemon.publish("a", "2");
    for data in ["1", "2"] {
        assert_eq!(data_of(&client.read().unwrap()), data);
    }
    assert_eq!(
        client.ask(&change("unsubscribe", &["a", "never"], None)),
        ok
    );
    daemon.publish("a", "after a was dropped");
    daemon.publish("b", "3");
    assert_eq!(data_of(&client.read().unwrap()), "3");
    // What was missed is got with a cursor.
    let kept = daemon.publish("c", "4");
    daemon.publish("c", "5");
    let line = change("subscribe", &["a", "c"], Some(kept - 1));
    assert_eq!(client.ask(&line), ok);
    for data in ["4", "5"] {
        assert_eq!(data_of(&client.read().unwrap()), data);
    }
    // Without a channel nothing comes, until one is added again.
    assert_eq!(
        client.ask(&change("unsubscribe", &["a", "b", "c"], None)),
        ok
    );
    daemon.publish("a", "nobody listens");
    assert_eq!(client.ask(&change("subscribe", &["a"], None)), ok);
    daemon.publish("a", "6");
    assert_eq!(data_of(&client.read().unwrap()), "6");
}

#[test]
fn an_added_cursor_repeats_no_other_channel() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let first = daemon.publish("b", "1");
    client.ask(&change("subscribe", &["a"], None));
    daemon.publish("a", "2");
    daemon.publish("b", "3");
    daemon.publish("a", "4");
    for data in ["2", "4"] {
        assert_eq!(data_of(&client.read().unwrap()), data);
    }
    client.ask(&change("subscribe", &["b"], Some(first - 1)));
    daemon.publish("a", "5");
    for data in ["1", "3", "5"] {
        assert_eq!(data_of(&client.read().unwrap()), data);
    }
    // The second channel is as new to the daemon as its cursor is old.
    let reply = client.ask(&change("subscribe", &["c"], Some(5)));
    assert_eq!(reply, json!({"ok": true}));
    assert_eq!(client.read().unwrap()["gap"], true);
    let last = daemon.publish("c", "6");
    assert_eq!(client.read().unwrap()["id"], last);
}

#[test]
fn a_connection_has_100_channels_at_most() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let names: Vec<String> = (0..101).map(|number| format!("c{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ok = json!({"ok": true});
    assert_eq!(client.ask(&change("subscribe", &names[..99], None)), ok);
    let reply = client.ask(&change("subscribe", &names[99..], None));
    assert_eq!(reply["error"], "channels");
    assert!(reply["message"].as_str().unwrap().contains("101 channels"));
    assert_eq!(client.ask(&change("subscribe", &names[..100], None)), ok);
    daemon.publish("c100", "was refused");
    daemon.publish("c99", "has been added");
    assert_eq!(data_of(&client.read().unwrap()), "has been added");
    let reply = client.ask(r#"{"op":"unsubscribe","channels":["c1"],"since":1}"#);
    assert_eq!(reply["error"], "since");
}

#[test]
fn channels_that_come_and_go_lose_nothing_while_others_publish() {
    const MESSAGES: usize = 2_000;
    const CHANNELS: usize = 5;
    let daemon = Daemon::start("[history]\nmessages = 100000\nbytes = \"64MiB\"");
    let path = daemon.socket_path();
    let names: Vec<String> = (0..CHANNELS).map(|number| format!("c{number}")).collect();
    let (published, seen) = thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut client = Lines::connect(&path);
            let mut ids = vec![Vec::new(); CHANNELS];
            for i in 0..MESSAGES {
                // Every channel, in an order that differs from round to round.
                let number = (i * 7 + i / CHANNELS) % CHANNELS;
                let reply = client.ask(&publish(&names[number], "x"));
                ids[number].push(reply["id"].as_u64().unwrap());
            }
            client.ask(&publish("end", "x"));
            ids
        });
        let changing = scope.spawn(|| changes(Lines::connect(&path), &names));
        (publisher.join().unwrap(), changing.join().unwrap())
    });
    let mut count = 0;
    for (number, ids, end) in seen {
        // A channel that was there from one message to another delivered everything in between.
        let published = &published[number];
        let first = ids
            .first()
            .and_then(|first| published.binary_search(first).ok());
        let Some(first) = first else {
            assert!(ids.is_empty(), "never published");
            continue;
        };
        let due = published[first..].iter().take_while(|id| **id <= end);
        assert!(due.eq(ids.iter()), "{ids:?}");
        count += ids.len();
    }
    assert!(count > 100, "{count} messages say nothing");
}

/// Adds and drops channels until the channel `end` has a message. Returns for each time that a channel was there its number,
/// the ids of its messages, and the last id of any channel before the channel was dropped.
fn changes(mut client: Lines, names: &[String]) -> Vec<(usize, Vec<u64>, u64)> {
    let mut seen = Vec::new();
    let mut open: Vec<Option<Vec<u64>>> = vec![None; names.len()];
    client.ask(&change("subscribe", &["end"], None));
    let (mut last, mut asked) = (0, None);
    for turn in 0.. {
        let number = turn * 3 % names.len();
        if asked.is_none() {
            let op = match open[number] {
                None => "subscribe",
                Some(_) => "unsubscribe",
            };
            client.send(format!("{}\n", change(op, &[&names[number]], None)));
            asked = Some(number);
        }
        let line = client.read().unwrap();
        if line["ok"] == true {
            let number = asked.take().expect("a reply to the change");
            match open[number].take() {
                None => open[number] = Some(Vec::new()),
                Some(ids) => seen.push((number, ids, last)),
            }
            continue;
        }
        let id = line["id"].as_u64().expect("no gap");
        assert!(id > last, "{id} after {last}");
        last = id;
        let channel = line["channel"].as_str().unwrap();
        match names.iter().position(|name| name == channel) {
            None => break,
            Some(number) => {
                let ids = open[number].as_mut();
                ids.expect("not after it was dropped").push(id);
            }
        }
    }
    let open = open.into_iter().enumerate();
    seen.extend(open.filter_map(|(number, ids)| Some((number, ids?, last))));
    seen
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

//! nchan's publisher, its paths, and the rights to use them.

use crate::{
    daemon::{Daemon, Http},
    nchan::{NCHAN, PLAIN, after, pair, publish, publisher, start},
    wire::{ask, get, parked, post},
};

#[test]
fn a_publish_is_accepted_without_a_subscriber_and_created_with_one() {
    let daemon = start();
    let answer = publish(&daemon, "a", "one");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let known = "queued messages: 1\r\nlast requested: -1 sec. ago\r\nactive subscribers: 0\r\nlast message id: ";
    let id = answer.body.strip_prefix(known).unwrap();
    assert!(!id.ends_with("\n") && id.contains(':'), "{id}");

    let first = ask(&daemon, get("/nchan/sub/a", ""));
    let mut waiting = parked(&daemon, get("/nchan/sub/a", &after(&first)));
    let json = "Accept: text/json\r\n";
    let put = String::from_utf8(post("/nchan/pub/a", json, b"two")).unwrap();
    let answer = ask(&daemon, put.replacen("POST", "PUT", 1));
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["messages"], 2);
    assert_eq!(answer.json()["subscribers"], 1);
    let second = waiting.answer();
    assert_eq!((second.status, &*second.body), (200, "two"));
    assert_eq!(answer.json()["last_message_id"], pair(&second));

    // An empty message is a message.
    let answer = publish(&daemon, "a", "");
    assert!(
        answer.body.starts_with("queued messages: 3\r\n"),
        "{}",
        answer.body
    );
}

#[test]
fn the_info_of_a_channel_is_plain_or_json() {
    let daemon = start();
    let unknown = publisher(&daemon, "GET", "");
    assert_eq!((unknown.status, &*unknown.body), (404, ""));
    publish(&daemon, "a", "one");
    let answer = publisher(&daemon, "GET", "Accept: application/json\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/json"));
    let id = pair(&ask(&daemon, get("/nchan/sub/a", "")));
    let expected = format!(
        "{{\"messages\": 1, \"requested\": -1, \"subscribers\": 0, \"last_message_id\": \"{id}\" }}"
    );
    assert_eq!(answer.body, expected);
    let mut head = Http::connect(daemon.addr());
    head.send(get("/nchan/pub/a", "").replacen("GET", "HEAD", 1));
    assert!(head.until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_name_is_the_rest_of_the_path_with_its_escapes() {
    let daemon = start();
    for (name, channel) in [
        ("plain", "plain"),
        ("a/b", "a=2Fb"),
        ("a%2Fb", "a=2Fb"),
        ("a%2Cb", "a=2Cb"),
        ("news%2342", "news=2342"),
        ("%D0%B6", "=D0=B6"),
    ] {
        let id = daemon.publish(channel, name);
        let answer = ask(&daemon, get(&format!("/nchan/sub/{name}?x=1"), ""));
        assert!(
            answer.body == name || answer.body == "a/b",
            "{name}: {}",
            answer.body
        );
        publish(&daemon, name, "by nchan");
        let history = daemon.history(channel);
        assert!(history.last().unwrap().0 > id);
        assert_eq!(history.last().unwrap().1, "by nchan", "{name}");
    }
    for path in [
        "/nchan/sub/",
        "/nchan/sub/a,,b",
        "/nchan/pub/",
        "/nchan/pub/a,b",
    ] {
        let answer = ask(&daemon, get(path, ""));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (400, Some("text/plain; charset=utf-8"))
        );
    }
}

#[test]
fn one_path_can_be_both() {
    let both = "publish = \"/ps/\"\nsubscribe = \"/ps/\"\nfirst = \"newest\"\n";
    let daemon = Daemon::start(&format!("{NCHAN}{both}"));
    assert_eq!(ask(&daemon, post("/ps/a", PLAIN, b"one")).status, 202);
    let mut waiting = parked(&daemon, get("/ps/a", ""));
    assert_eq!(ask(&daemon, post("/ps/a", PLAIN, b"two")).status, 201);
    assert_eq!(
        waiting.answer().body,
        "two",
        "a subscriber begins with the next message"
    );
    let delete = get("/ps/a", "").replacen("GET", "DELETE", 1);
    let answer = ask(&daemon, delete);
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD, POST, OPTIONS"))
    );
}

#[test]
fn rights_are_those_of_comet() {
    let rules = "[compat.nchan]\n[[channel]]\nprefix = \"closed\"\nread = \"closed\"\npublish = \"public\"\n";
    let daemon = Daemon::start(rules);
    assert_eq!(publish(&daemon, "a", "x").status, 403);
    for method in ["GET", "DELETE"] {
        let answer = publisher(&daemon, method, "");
        assert_eq!(answer.status, 403, "{method}");
        assert!(
            answer.body.starts_with("publishing over HTTP is off"),
            "{}",
            answer.body
        );
    }
    assert_eq!(publish(&daemon, "closed", "x").status, 202);
    let answer = ask(&daemon, get("/nchan/sub/closed", ""));
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (403, Some("text/plain; charset=utf-8"))
    );
    let two = ask(&daemon, get("/nchan/sub/a,closed", ""));
    assert_eq!(two.status, 403);
}

#[test]
fn without_its_table_there_is_nothing() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    assert_eq!(ask(&daemon, get("/nchan/sub/a", "")).status, 404);
    assert_eq!(publish(&daemon, "a", "x").status, 404);
}

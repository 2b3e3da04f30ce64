//! The protocol of dklab_realplexor: blocks that publishers send, and what waiting clients get. The requests are the bytes
//! that the PHP class and the loader page of the original send.

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Http, wait_for},
    ports::talk,
    wire::{Events, metric},
};

pub(crate) const LINES: &str =
    "[compat.realplexor]\nlisten_in = \"127.0.0.1:0\"\nlisten_wait = \"127.0.0.1:0\"\n";

/// The request of the method `send` of the PHP class.
pub(crate) fn request(identifier: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\nX-Realplexor: identifier={identifier}\r\n\r\n{body}"
    )
}

/// Publishes as the PHP class does, which closes its sending side. Returns the reply.
pub(crate) fn publish(daemon: &Daemon, identifier: &str, body: &str) -> String {
    talk(daemon.port("realplexor_in"), request(identifier, body))
}

pub(crate) const OK: &str =
    "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n";

/// Publishes, which must succeed.
pub(crate) fn sent(daemon: &Daemon, identifier: &str, body: &str) {
    assert_eq!(publish(daemon, identifier, body), OK);
}

/// A client on the WAIT line that has sent this request.
pub(crate) fn ask(daemon: &Daemon, request: &str) -> Http {
    let mut client = Http::connect(daemon.port("realplexor_wait"));
    client.send(request);
    client
}

/// A client that listens: the head of its reply has come. After the head the client gets every block.
pub(crate) fn listen(daemon: &Daemon, identifier: &str) -> Http {
    let path = format!("/?identifier={identifier}&ncrnd=1300000000123");
    let mut client = ask(
        daemon,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    );
    head(&mut client);
    client
}

/// Reads the head and the first line of the body. Returns the head.
pub(crate) fn head(client: &mut Http) -> String {
    let head = client.until("\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"),
        "{head}"
    );
    assert_eq!(client.exactly(3), b" \r\n");
    head
}

/// The blocks of the reply, up to its end: for each block its ids with cursors, and its data.
pub(crate) fn blocks(client: &mut Http) -> Vec<(Value, Value)> {
    let reply = String::from_utf8(client.rest()).unwrap();
    let blocks: Vec<Value> =
        serde_json::from_str(&reply).unwrap_or_else(|e| panic!("{e}: {reply}"));
    let pair = |block: &Value| (block["ids"].clone(), block["data"].clone());
    blocks.iter().map(pair).collect()
}

/// The data of the blocks that a client gets at once.
fn data(daemon: &Daemon, identifier: &str) -> Vec<Value> {
    let blocks = blocks(&mut listen(daemon, identifier));
    blocks.into_iter().map(|(_, data)| data).collect()
}

/// Whether the client waits: it gets a block that is published now, and nothing else.
fn waits(daemon: &Daemon, identifier: &str) -> bool {
    let mut client = listen(daemon, &format!("{identifier},waits_test"));
    sent(daemon, "waits_test", "\"waited\"");
    let blocks = blocks(&mut client);
    blocks.len() == 1 && blocks[0].1 == "waited"
}

#[test]
fn a_waiting_client_gets_a_block_and_the_end_of_the_connection() {
    let daemon = Daemon::start(LINES);
    let mut client = ask(
        &daemon,
        "GET /?identifier=abc HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    let head = head(&mut client);
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(
        lines[2],
        "Cache-Control: no-store, no-cache, must-revalidate"
    );
    assert_eq!(lines[3], "Expires: Mon, 26 Jul 1997 05:00:00 GMT");
    assert_eq!(lines[4], "Content-Type: text/javascript; charset=utf-8");
    sent(&daemon, "abc", "\"hello\"");
    let id = daemon.history("abc")[0].0;
    let cursor = format!("{}.{:06}", id / 1_000_000, id % 1_000_000);
    let reply = String::from_utf8(client.rest()).unwrap();
    let expected = format!(
        "[\n  {{\n    \"ids\": {{ \"abc\": \"{cursor}\" }},\n    \"data\": \"hello\"\n  }}\n]"
    );
    assert_eq!(reply, expected);
    // The next poll waits, and the block is still there for others.
    assert!(waits(&daemon, &format!("{cursor}:abc")));
    assert_eq!(data(&daemon, "0:abc"), ["hello"]);
    assert_eq!(
        data(&daemon, &format!("{cursor}0000:abc,0:abc")),
        ["hello"],
        "the last cursor of an id counts"
    );
}

#[test]
fn a_publisher_without_http_reads_nothing() {
    let daemon = Daemon::start(LINES);
    let reply = talk(
        daemon.port("realplexor_in"),
        "X-Realplexor: identifier=abc\r\n\r\n\"raw\"",
    );
    assert_eq!(reply, "");
    assert_eq!(data(&daemon, "0:abc"), ["raw"]);
    let ignored = talk(
        daemon.port("realplexor_in"),
        "X-Realplexor: identifier=abc\r\n",
    );
    assert_eq!((ignored.as_str(), daemon.history("abc").len()), ("", 1));
}

#[test]
fn a_body_with_its_length_is_taken_before_the_connection_ends() {
    let daemon = Daemon::start(LINES);
    let mut client = listen(&daemon, "abc");
    let mut publisher = Http::connect(daemon.port("realplexor_in"));
    let request = request("abc", "\"hello\"");
    let (first, rest) = request.split_at(request.len() - 3);
    publisher.send(first);
    publisher.send(rest);
    assert_eq!(blocks(&mut client)[0].1, "hello");
    assert_eq!(publisher.answer().status, 200);
    assert!(publisher.is_closed());
}

#[test]
fn a_publisher_is_told_when_its_block_is_on_the_disk() {
    let daemon = Daemon::start(&format!("[store]\ndurability = \"disk\"\n{LINES}"));
    let mut client = listen(&daemon, "abc");
    sent(&daemon, "abc", "1");
    assert_eq!(blocks(&mut client)[0].1, 1);
}

#[test]
fn one_block_of_two_ids_comes_once() {
    let daemon = Daemon::start(LINES);
    let mut both = listen(&daemon, "a,b");
    let mut one = listen(&daemon, "b,other");
    sent(&daemon, "b,a,b,c", "1");
    let ids = blocks(&mut both)[0].0.clone();
    assert_eq!(ids["a"], ids["b"]);
    assert_eq!(ids.as_object().unwrap().len(), 2);
    assert_eq!(blocks(&mut one), [(json!({"b": ids["b"]}), json!(1))]);
    assert_eq!(data(&daemon, "0:a,0:b"), [1]);
}

#[test]
fn a_limited_block_is_for_clients_that_listen_to_one_of_its_limits() {
    let daemon = Daemon::start(LINES);
    let (mut meant, mut other) = (listen(&daemon, "abc,u1"), listen(&daemon, "abc,*u2"));
    let mut alone = listen(&daemon, "abc");
    sent(&daemon, "abc,*u1,*u3", "\"secret\"");
    let got = blocks(&mut meant);
    assert_eq!((got.len(), &got[0].1), (1, &json!("secret")));
    assert_eq!(
        got[0].0.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["abc"]
    );
    sent(&daemon, "abc", "\"all\"");
    for client in [&mut other, &mut alone] {
        let got = blocks(client);
        assert_eq!((got.len(), &got[0].1), (1, &json!("all")));
    }
    assert_eq!(data(&daemon, "0:abc,u3"), ["secret", "all"]);
    assert_eq!(data(&daemon, "0:abc,u2"), ["all"]);
}

#[test]
fn a_publishers_cursor_is_given_back_as_its_text() {
    let daemon = Daemon::start(LINES);
    let (mut before, mut after) = (listen(&daemon, "12.4:def"), listen(&daemon, "12.50:def"));
    let mut now = listen(&daemon, "def");
    sent(&daemon, "12.5:def,abc", "1");
    assert_eq!(blocks(&mut before), [(json!({"def": "12.5"}), json!(1))]);
    assert!(waits(&daemon, "12.50:def"));
    sent(&daemon, "def", "2");
    for client in [&mut after, &mut now] {
        let got = blocks(client);
        assert_eq!((got.len(), &got[0].1), (1, &json!(2)));
    }
    // A client that has got a cursor of the future gets nothing before that.
    sent(&daemon, "99999999999.0000000001:def", "3");
    assert!(waits(&daemon, "99999999999.0000000001:def"));
    let mut late = listen(&daemon, "99999999999.0000000001:def");
    sent(&daemon, "def", "4");
    sent(&daemon, "99999999999.00000000010000000001:def", "5");
    assert_eq!(blocks(&mut late)[0].1, 5);
}

#[test]
fn blocks_come_in_the_order_of_their_cursors() {
    let daemon = Daemon::start(LINES);
    for cursor in ["7", "7.5", "5"] {
        sent(&daemon, &format!("{cursor}:abc"), &format!("\"{cursor}\""));
    }
    assert_eq!(data(&daemon, "0:abc"), ["5", "7", "7.5"]);
    assert_eq!(data(&daemon, "5.0:abc"), ["7", "7.5"]);
    assert!(waits(&daemon, "7.50:abc"));
}

#[test]
fn the_last_30_blocks_of_an_id_are_kept() {
    let daemon = Daemon::start(LINES);
    for number in 1..=33 {
        sent(&daemon, "abc", &number.to_string());
    }
    let expected: Vec<u64> = (4..=33).collect();
    assert_eq!(data(&daemon, "0:abc"), expected);
}

#[test]
fn a_body_that_is_no_json_is_refused() {
    let daemon = Daemon::start(LINES);
    for body in ["", " ", "hello", "{a:1}", "1,2", "\"x", "\"\u{1}\""] {
        let reply = publish(&daemon, "abc", body);
        assert!(
            reply.starts_with("HTTP/1.0 400 Bad Request\r\n"),
            "{body}: {reply}"
        );
        assert!(
            reply.contains("\r\n\r\nthe body is not one JSON value"),
            "{reply}"
        );
    }
    let ids = vec!["id"; 101];
    let ids: Vec<String> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| format!("{id}{n}"))
        .collect();
    for identifier in [
        ids.join(","),
        format!("a,{}", vec!["*0123456789"; 250].join(",")),
        "x".repeat(201),
    ] {
        let reply = publish(&daemon, &identifier, "1");
        assert!(reply.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{reply}");
    }
    sent(&daemon, "abc", "1");
    assert_eq!(data(&daemon, "0:abc"), [1]);
}

#[test]
fn whatever_data_a_message_has_the_reply_is_json() {
    let daemon = Daemon::start(LINES);
    let line_feeds = "{\"x\":\n [\"a\",\r\n\"\u{2028}\"]}";
    sent(&daemon, "abc", line_feeds);
    daemon.publish("abc", "not \"json\"\n");
    daemon.publish("abc", "");
    let mut client = listen(&daemon, "0:abc");
    let reply = String::from_utf8(client.rest()).unwrap();
    assert!(reply.contains("\"data\":\n{\"x\":\n"), "{reply}");
    assert!(
        reply.contains("\\u2028") && !reply.contains('\u{2028}'),
        "{reply}"
    );
    assert_eq!(
        data(&daemon, "0:abc"),
        [
            json!({"x": ["a", "\u{2028}"]}),
            json!("not \"json\"\n"),
            json!("")
        ]
    );
}

#[test]
fn a_wait_without_blocks_ends_with_the_first_line_alone() {
    let daemon = Daemon::start(&format!("{LINES}wait = \"1s\"\n"));
    let mut client = listen(&daemon, "abc");
    assert_eq!(client.rest(), b"");
    assert_eq!(metric(&daemon, "comet_subscribers"), 0);
}

#[test]
fn a_wait_request_can_be_a_post_or_a_line() {
    let daemon = Daemon::start(LINES);
    sent(&daemon, "abc", "1");
    let body = "identifier=0:abc\n";
    let post = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for request in [
        &*post,
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nidentifier=0:abc\n",
        "identifier=0:abc\n",
    ] {
        let mut client = ask(&daemon, request);
        head(&mut client);
        assert_eq!(blocks(&mut client)[0].1, 1, "{request}");
    }
}

#[test]
fn the_list_of_ids_ends_at_the_first_other_character() {
    let daemon = Daemon::start(LINES);
    sent(&daemon, "abc", "\"abc\"");
    sent(&daemon, "a", "\"a\"");
    assert_eq!(data(&daemon, "0:a-b,0:abc"), ["a"]);
    let request = "GET /?identifier=0:a HTTP/1.1\r\nHost: localhost\r\nReferer: http://localhost/?identifier=0:abc\r\n\
        Cookie: identifier=0:abc\r\n\r\n";
    let mut client = ask(&daemon, request);
    head(&mut client);
    assert_eq!(blocks(&mut client)[0].1, "a");
    let mut client = ask(
        &daemon,
        "GET / HTTP/1.1\r\nReferer: http://localhost/?identifier=abc\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.contains("there is no identifier=ID"),
        "{}",
        answer.body
    );
}

#[test]
fn the_cursor_of_the_reply_loses_nothing_between_two_requests() {
    let daemon = Daemon::start(LINES);
    sent(&daemon, "abc", "1");
    let mut client = ask(
        &daemon,
        "GET /?identifier=abc HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    let head = head(&mut client);
    drop(client);
    sent(&daemon, "abc", "2");
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let (_, cursor) = headers
        .find(|(name, _)| *name == "X-Realplexor-Cursor")
        .unwrap();
    assert_eq!(data(&daemon, &format!("{cursor}:abc")), [2]);
}

#[test]
fn messages_of_all_sources_arrive_and_blocks_reach_all_clients() {
    let daemon = Daemon::start(LINES);
    let mut client = listen(&daemon, "abc");
    std::fs::write(daemon.dir().join("abc.comet"), "by file").unwrap();
    assert_eq!(blocks(&mut client)[0].1, "by file");
    let mut events = Events::open(&daemon, "/ch/abc", "");
    sent(&daemon, "5:abc", "{\"x\": 1}");
    let (_, _, message) = events.message();
    assert_eq!(
        (
            message["data"].as_str().unwrap(),
            message["attributes"]["realplexor-cursors"].as_str()
        ),
        ("{\"x\": 1}", Some("5:abc"))
    );
}

#[test]
fn after_a_kill_a_client_gets_exactly_what_it_has_not_seen() {
    let daemon = Daemon::start(LINES);
    sent(&daemon, "abc", "1");
    sent(&daemon, "5:own,*u1", "1");
    let got = blocks(&mut listen(&daemon, "0:abc,0:own,0:u1"));
    assert_eq!(got.len(), 2);
    let cursor = got[1].0["abc"].as_str().unwrap().to_owned();
    sent(&daemon, "abc", "2");
    sent(&daemon, "7:own", "2");
    let root = daemon.root();
    daemon.signal("KILL");
    drop(daemon);
    let daemon = Daemon::start_in(root, LINES, &[]);
    let got = blocks(&mut listen(&daemon, &format!("{cursor}:abc,5:own")));
    assert_eq!(got.iter().map(|(_, data)| data).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(got[0].0, json!({"own": "7"}));
    assert_eq!(data(&daemon, "0:own,0:u1"), [1, 2], "the limit was kept");
    assert_eq!(data(&daemon, "0:own,0:u2"), [2]);
}

#[test]
fn many_clients_get_one_block() {
    let daemon = Daemon::start(LINES);
    let mut clients: Vec<Http> = (0..200)
        .map(|n| listen(&daemon, &format!("all,own{n}")))
        .collect();
    sent(&daemon, "all", "1");
    sent(&daemon, "all", "2");
    for client in &mut clients {
        assert!(matches!(blocks(client).len(), 1 | 2));
    }
    assert!(metric(&daemon, "comet_delivered_total") >= 200);
    wait_for("the end of all", || {
        (metric(&daemon, "comet_subscribers") == 0).then_some(())
    });
}

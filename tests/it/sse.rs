//! Server-sent events: cursors, gaps, heartbeats, and slow readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{
    daemon::{Daemon, Http, wait_for},
    wire::{
        Events, ask, data, descriptors, get, is_sign_of_life, metric, parked, post, refusal,
        wait_for_all_workers, wait_for_subscribers,
    },
};

/// A long history, so that slow readers on a busy machine still find all messages.
const MUCH_HISTORY: &str = "[history]\nmessages = 1000000\nbytes = 134217728\n";

#[test]
fn a_message_is_an_event_with_its_id() {
    let daemon = Daemon::start("");
    let mut events = Events::open(&daemon, "/ch/a", "");
    let id = daemon.publish("a", "one\nline");
    let expected = format!(
        "id: {id}\ndata: {{\"channel\":\"a\",\"id\":{id},\"name\":\"\",\"data\":\"one\\nline\"}}"
    );
    assert_eq!(events.next(), Some(expected));
    assert_eq!(events.message_of(daemon.publish("a", "two")), "two");
}

#[test]
fn is_asked_for_by_a_header_or_by_the_url() {
    let daemon = Daemon::start("");
    for (path, headers) in [
        ("/ch/a?as=sse", ""),
        ("/ch/a", "Accept: text/event-stream\r\n"),
        (
            "/ch/a",
            "Accept: text/html;q=0.5, text/event-stream;q=0.9\r\n",
        ),
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(get(path, headers));
        Events::read_head(client);
    }
    for (path, headers) in [
        ("/ch/a?wait=0", "Accept: */*\r\n"),
        ("/ch/a?wait=0&as=poll", "Accept: text/event-stream\r\n"),
    ] {
        assert!(data(&ask(&daemon, get(path, headers))).is_empty());
    }
}

#[test]
fn a_stream_resumes_after_its_cursor() {
    let daemon = Daemon::start("");
    let ids: Vec<u64> = ["one", "two", "three"]
        .map(|text| daemon.publish("a", text))
        .into();
    let last = |n: usize| format!("Last-Event-ID: {}\r\n", ids[n]);
    let cases = [
        (format!("?since={}", ids[0]), String::new(), "two"),
        ("?since=0".to_owned(), String::new(), "one"),
        (String::new(), last(1), "three"),
        // A browser repeats the URL when it reconnects, so the header is newer.
        (format!("?since={}", ids[0]), last(1), "three"),
        ("?since=0".to_owned(), last(0), "two"),
        (
            format!("?since={}", ids[0]),
            "Last-Event-ID: \r\n".to_owned(),
            "two",
        ),
    ];
    for (query, headers, first) in cases {
        let mut events = Events::open(&daemon, &format!("/ch/a{query}"), &headers);
        let (_, kind, message) = events.message();
        assert_eq!(
            (&*kind, &message["data"]),
            ("", &first.into()),
            "{query} {headers}"
        );
    }
}

/// The backlog and messages that are published while it is sent join without loss, repetition or wrong order.
#[test]
fn streams_that_join_while_messages_come_miss_none() {
    let daemon = Daemon::start(MUCH_HISTORY);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                daemon.publish(["a", "b"][n % 2], "x");
                n += 1;
            }
        });
        for _ in 0..20 {
            let mut client = Http::connect(daemon.addr());
            client.send(get("/ch/a,b?wait=0", ""));
            let since = client.answer().json()["cursor"]
                .as_str()
                .unwrap()
                .to_owned();
            let mut events = Events::open(&daemon, &format!("/ch/a,b?since={since}"), "");
            let mut last = since.parse::<u64>().unwrap();
            let mut got = Vec::new();
            for _ in 0..50 {
                let (id, kind, _) = events.message();
                assert!(kind.is_empty() && id > last, "{kind} {id} after {last}");
                last = id;
                got.push(id);
            }
            // All messages between the two, read in another way.
            let (mut all, mut cursor) = (Vec::new(), since);
            while all.len() < got.len() {
                client.send(get(&format!("/ch/a,b?since={cursor}"), ""));
                let answer = client.answer().json();
                all.extend(
                    answer["messages"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|m| m["id"].as_u64().unwrap()),
                );
                cursor = answer["cursor"].as_str().unwrap().to_owned();
            }
            assert_eq!(got, all[..got.len()]);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// "From now on" begins with the request of the stream, not with the moment at which its opening was read.
#[test]
fn what_is_published_on_seeing_the_opening_arrives() {
    let daemon = Daemon::start("");
    for n in 0..200 {
        let mut events = Events::open(&daemon, "/ch/a", "");
        let id = daemon.publish("a", &n.to_string());
        assert_eq!(events.message().0, id);
    }
}

#[test]
fn a_sign_of_life_moves_the_cursor() {
    let daemon = Daemon::start("[http]\nheartbeat = \"200ms\"\n");
    let mut events = Events::open(&daemon, "/ch/quiet", "");
    let id = daemon.publish("loud", "x");
    wait_for("the cursor", || {
        let event = events.next()?;
        assert!(event.contains("\nevent: cursor\n"), "{event}"); // onmessage does not see it
        let data = format!("data: {{\"cursor\":\"{id}\",\"heartbeat\":0.2}}");
        (event == format!("id: {id}\nevent: cursor\n{data}")).then_some(())
    });
    // The stream continues.
    assert_eq!(events.message_of(daemon.publish("quiet", "hello")), "hello");
}

#[test]
fn a_gap_is_an_event_of_its_own() {
    let daemon = Daemon::start("[history]\nbytes = 65536\n");
    let first = daemon.publish("a", "first");
    let large = "x".repeat(40_000);
    daemon.publish("a", &large);
    let last = daemon.publish("a", &large);
    let mut events = Events::open(&daemon, &format!("/ch/a?since={first}"), "");
    let (id, kind, told) = events.message();
    assert_eq!((&*kind, &told["gap"]), ("gap", &true.into()));
    // A client that disconnects here reconnects and gets the message.
    assert!(first < id && id < last);
    assert_eq!(told["cursor"], id.to_string());
    assert_eq!(events.message().0, last);
    // A cursor of the future, and one of an earlier daemon.
    for (channel, since) in [("b", u64::MAX), ("c", 1)] {
        let mut events = Events::open(&daemon, &format!("/ch/{channel}?since={since}"), "");
        assert_eq!(&*events.message().1, "gap");
        assert_eq!(events.message_of(daemon.publish(channel, "x")), "x");
    }
}

#[test]
fn a_slow_reader_gets_all_and_holds_up_nobody() {
    let daemon = Daemon::start(
        "workers = 1\n[http]\nwrite_time = \"10m\"\n[history]\nmessages = 100000\nbytes = 268435456\n",
    );
    let mut slow = Events::open(&daemon, "/ch/a", "");
    let mut quick = Events::open(&daemon, "/ch/a", "");
    let text = "x".repeat(100_000);
    let ids: Vec<u64> = (0..200)
        .map(|n| {
            let id = daemon.publish("a", &format!("{n} {text}"));
            assert_eq!(quick.message().0, id); // though the slow one's socket is full
            id
        })
        .collect();
    for (n, id) in ids.iter().enumerate() {
        let (got, kind, message) = slow.message();
        assert_eq!((got, &*kind), (*id, ""));
        assert!(
            message["data"]
                .as_str()
                .unwrap()
                .starts_with(&format!("{n} "))
        );
    }
    assert_eq!(slow.message_of(daemon.publish("a", "live")), "live");
}

#[test]
fn a_reader_that_is_too_slow_is_told_of_the_gap() {
    let daemon = Daemon::start("[http]\nwrite_time = \"10m\"\n[history]\nbytes = 1048576\n");
    let mut slow = Events::open(&daemon, "/ch/a", "");
    let text = "x".repeat(100_000);
    let ids: Vec<u64> = (0..300)
        .map(|n| daemon.publish("a", &format!("{n} {text}")))
        .collect();
    let (mut expected, mut gaps) = (ids.iter().copied().peekable(), 0);
    loop {
        let (id, kind, told) = slow.message();
        if kind == "gap" {
            gaps += 1;
            assert_eq!(told["cursor"], id.to_string());
            while expected.next_if(|next| *next <= id).is_some() {}
        } else {
            assert_eq!(
                Some(id),
                expected.next(),
                "in order, and none missing but by a gap"
            );
        }
        if Some(&id) == ids.last() {
            break;
        }
    }
    assert!(gaps > 0);
}

#[test]
fn a_reader_that_takes_nothing_is_cut() {
    let daemon = Daemon::start("[http]\nwrite_time = \"300ms\"\n");
    let slow = Events::open(&daemon, "/ch/a", "");
    wait_for_subscribers(&daemon, 1);
    let text = "x".repeat(100_000);
    wait_for("the cut", || {
        daemon.publish("a", &text);
        (metric(&daemon, "comet_subscribers") == 0).then_some(())
    });
    drop(slow);
}

#[test]
fn clients_that_leave_a_stream_leave_nothing_behind() {
    let daemon = Daemon::start("");
    wait_for_all_workers(&daemon);
    let before = descriptors(&daemon);
    let streams: Vec<Events> = (0..50)
        .map(|_| Events::open(&daemon, "/ch/a", ""))
        .collect();
    wait_for_subscribers(&daemon, 50);
    drop(streams);
    wait_for_subscribers(&daemon, 0);
    wait_for("the descriptors", || {
        (descriptors(&daemon) <= before).then_some(())
    });
}

/// HTTP/1.0 has no chunks: the stream ends with the connection.
#[test]
fn http_1_0_gets_a_stream_without_chunks() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, "GET /ch/a?as=sse HTTP/1.0\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert!(
        !head.contains("transfer-encoding") && head.contains("connection: close"),
        "{head}"
    );
    assert!(is_sign_of_life(&client.until("\n\n")));
    let id = daemon.publish("a", "x");
    assert!(
        client
            .until("\n\n")
            .starts_with(&format!("id: {id}\ndata: "))
    );
}

#[test]
fn data_that_is_no_text_and_line_ends_arrive() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let mut events = Events::open(&daemon, "/ch/a", "");
    ask(&daemon, post("/ch/a", "", b"\xff\x00"));
    let message = events.message().2;
    assert_eq!(
        (&message["data"], &message["encoding"]),
        (&"/wA=".into(), &"base64".into())
    );
    for text in ["a\r\n\r\nb", "\n\ndata: forged\n\n", "\u{2028}\u{2029}\0"] {
        assert_eq!(events.message_of(daemon.publish("a", text)), text);
    }
}

#[test]
fn a_wrong_cursor_is_refused_before_the_stream_begins() {
    let daemon = Daemon::start("");
    let answer = ask(&daemon, get("/ch/a?as=sse&since=x", ""));
    assert_eq!((refusal(&answer).0, &*refusal(&answer).1), (400, "since"));
}

#[test]
fn many_streams_get_every_message_in_order() {
    let daemon = Arc::new(Daemon::start(MUCH_HISTORY));
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let mut events = Events::open(&daemon, "/ch/a", "");
            thread::spawn(move || (0..200).map(|_| events.message().0).collect::<Vec<u64>>())
        })
        .collect();
    wait_for_subscribers(&daemon, 20);
    let ids: Vec<u64> = (0..200)
        .map(|n| daemon.publish("a", &n.to_string()))
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), ids);
    }
}

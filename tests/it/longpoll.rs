//! Long-polls: all ways in which a client may use one connection, and the content of the answers.

use crate::{
    daemon::{Daemon, Http, wait_for},
    wire::{
        ask, cursor, data, descriptors, get, half_close, metric, parked, post,
        wait_for_all_workers, wait_for_subscribers,
    },
};

const PUBLISHING: &str = "[http]\npublish = true\n";

#[test]
fn a_parked_poll_gets_the_message() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/ch/news", ""));
    let id = daemon.publish("news", "hi");
    let answer = client.answer();
    assert_eq!(answer.status, 200);
    let expected = format!(
        "{{\"cursor\":\"{id}\",\"gap\":false,\"messages\":[{{\"channel\":\"news\",\"id\":{id},\"name\":\"\",\"data\":\"hi\"}}]}}"
    );
    assert_eq!(answer.body, expected);
    assert_eq!(answer.header("etag"), Some(&*format!("\"{id}\"")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("connection"), None);
}

#[test]
fn polls_follow_each_other_on_one_connection() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/news?wait=0", ""));
    let mut seen = cursor(&client.answer());
    for round in 0..20 {
        client.send(get(&format!("/ch/news?since={seen}"), ""));
        wait_for_subscribers(&daemon, 1);
        daemon.publish("news", &round.to_string());
        let answer = client.answer();
        assert_eq!(data(&answer), [round.to_string()]);
        seen = cursor(&answer);
    }
}

#[test]
fn nothing_is_lost_between_polls() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/news?wait=0", ""));
    let mut seen = cursor(&client.answer());
    let mut got = Vec::new();
    for message in 0..300 {
        daemon.publish("news", &message.to_string());
        if message % 7 == 0 {
            client.send(get(&format!("/ch/news?since={seen}"), ""));
            let answer = client.answer();
            seen = cursor(&answer);
            got.extend(data(&answer));
        }
    }
    client.send(get(&format!("/ch/news?since={seen}"), ""));
    got.extend(data(&client.answer()));
    let all: Vec<String> = (0..300).map(|message| message.to_string()).collect();
    assert_eq!(got, all);
}

#[test]
fn two_pipelined_polls_are_answered_one_after_the_other() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/ch/a", "") + &get("/ch/b", ""));
    daemon.publish("a", "first");
    assert_eq!(data(&client.answer()), ["first"]);
    wait_for_subscribers(&daemon, 1);
    daemon.publish("b", "second");
    assert_eq!(data(&client.answer()), ["second"]);
}

#[test]
fn answers_at_once_and_a_poll_may_come_in_one_segment() {
    let daemon = Daemon::start("");
    let mut client = parked(
        &daemon,
        get("/healthz", "") + &get("/healthz", "") + &get("/ch/a", ""),
    );
    assert_eq!(client.answer().body, "ok\n");
    assert_eq!(client.answer().body, "ok\n");
    daemon.publish("a", "third");
    assert_eq!(data(&client.answer()), ["third"]);
}

#[test]
fn a_request_behind_a_poll_waits_for_its_turn() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/ch/a", "") + &get("/healthz", ""));
    daemon.publish("a", "poll");
    assert_eq!(data(&client.answer()), ["poll"]);
    assert_eq!(client.answer().body, "ok\n");
}

/// Bytes that arrive while a poll is parked cause no further edge-triggered event.
#[test]
fn a_request_sent_while_a_poll_is_parked_is_not_forgotten() {
    let daemon = Daemon::start("");
    for request in [get("/healthz", ""), get("/ch/a?since=0", "")] {
        let mut client = parked(&daemon, get("/ch/a", ""));
        client.send(&request);
        // Another request on the same thread's loop, so that the thread has probably noticed the bytes.
        assert_eq!(daemon.get("/healthz").status, 200);
        daemon.publish("a", "poll");
        assert!(data(&client.answer()).contains(&"poll".to_owned()));
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn half_a_request_behind_a_poll_is_completed_later() {
    let daemon = Daemon::start("");
    let second = get("/healthz", "");
    let (begin, end) = second.split_at(11);
    let mut client = parked(&daemon, get("/ch/a", "") + begin);
    daemon.publish("a", "poll");
    assert_eq!(data(&client.answer()), ["poll"]);
    client.send(end);
    assert_eq!(client.answer().body, "ok\n");
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let daemon = Daemon::start("");
    let before = metric(&daemon, "comet_subscribers");
    let mut client = Http::connect(daemon.addr());
    for byte in get("/ch/a", "X-Some: thing\r\n").bytes() {
        client.send([byte]);
    }
    wait_for_subscribers(&daemon, before + 1);
    daemon.publish("a", "poll");
    assert_eq!(data(&client.answer()), ["poll"]);
}

/// The request is cut at every position, also where HTTP/2's preface could still begin.
#[test]
fn a_request_may_be_split_anywhere() {
    let daemon = Daemon::start(PUBLISHING);
    let request = post("/ch/a", "", b"body");
    let mut client = Http::connect(daemon.addr());
    for at in 1..request.len() {
        client.send(&request[..at]);
        assert_eq!(daemon.get("/healthz").status, 200); // the first part is likely to be read alone
        client.send(&request[at..]);
        assert_eq!(client.answer().status, 201, "split at {at}");
    }
}

#[test]
fn clients_that_leave_while_parked_leave_nothing_behind() {
    let daemon = Daemon::start("");
    wait_for_all_workers(&daemon);
    let before = descriptors(&daemon);
    let mut clients = Vec::new();
    for n in 0..50 {
        let mut client = Http::connect(daemon.addr());
        client.send(get(&format!("/ch/a,b{n}"), ""));
        clients.push(client);
    }
    wait_for_subscribers(&daemon, 50);
    assert!(descriptors(&daemon) > before + 40); // those that asked for figures may still have counted
    drop(clients);
    wait_for_subscribers(&daemon, 0);
    wait_for("the descriptors", || {
        (descriptors(&daemon) <= before).then_some(())
    });
}

#[test]
fn a_client_that_resets_while_parked_is_gone() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/ch/a", "") + &get("/healthz", ""));
    daemon.publish("a", "x");
    wait_for_subscribers(&daemon, 0);
    // Closing with unread bytes sends a reset.
    client.send(get("/ch/a", ""));
    wait_for_subscribers(&daemon, 1);
    drop(client);
    wait_for_subscribers(&daemon, 0);
}

/// epoll may report the request and the end as one event. No second event reports the end after the poll was parked.
#[test]
fn an_end_that_comes_with_the_request_is_seen() {
    let daemon = Daemon::start("workers = 1");
    let mut clients: Vec<Http> = (0..50).map(|_| Http::connect(daemon.addr())).collect();
    for client in &mut clients {
        client.send(get("/ch/a", ""));
        half_close(client);
    }
    for client in &mut clients {
        assert!(data(&client.answer()).is_empty());
        assert!(client.is_closed());
    }
    wait_for_subscribers(&daemon, 0);
}

/// A request that fills the daemon's buffer to the last byte may have more bytes behind it, which no other event
/// reports.
#[test]
fn requests_that_fill_the_buffer_to_the_last_byte_are_answered() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    for total in [4095, 4096, 4097, 8191, 8192] {
        let mut requests = get("/healthz", "").into_bytes();
        while requests.len() < total {
            let room = total - requests.len();
            let fill = get("/healthz", "").len();
            let padding = if room < 2 * fill {
                room.saturating_sub(fill + "X: \r\n".len())
            } else {
                0
            };
            let header = format!("X: {:x<padding$}\r\n", "");
            requests.extend_from_slice(get("/healthz", &header).as_bytes());
        }
        let count = requests.windows(4).filter(|end| end == b"\r\n\r\n").count();
        client.send(&requests);
        for _ in 0..count {
            assert_eq!(client.answer().status, 200);
        }
    }
}

#[test]
fn a_poll_that_does_not_wait_is_answered_with_what_there_is() {
    let daemon = Daemon::start("");
    let id = daemon.publish("a", "kept");
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/a?wait=0&since=0", ""));
    assert_eq!(data(&client.answer()), ["kept"]);
    client.send(get("/ch/a?wait=0", ""));
    let answer = client.answer();
    assert_eq!(
        answer.body,
        format!("{{\"cursor\":\"{id}\",\"gap\":false,\"messages\":[]}}")
    );
    assert_eq!(answer.header("etag"), Some(&*format!("\"{id}\"")));
}

/// With one worker the answers come in the order of the requests, except for requests that had to wait.
#[test]
fn a_poll_that_does_not_wait_is_answered_before_what_is_asked_later() {
    let daemon = Daemon::start("workers = 1");
    let [mut poll, mut other] = [(); 2].map(|()| Http::connect(daemon.addr()));
    wait_for("both", || {
        (metric(&daemon, "comet_http_connections") == 3).then_some(())
    });
    poll.send(get("/ch/a?wait=0", ""));
    other.send(get("/healthz", ""));
    assert_eq!(other.answer().body, "ok\n");
    poll.stream.set_nonblocking(true).unwrap();
    assert!(poll.stream.peek(&mut [0]).unwrap() > 0);
}

#[test]
fn a_poll_whose_wait_is_over_gets_an_empty_list() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/ch/a?wait=1", ""));
    let answer = client.answer();
    assert_eq!((answer.status, data(&answer).len()), (200, 0));
    // The connection stays open.
    client.send(get("/healthz", ""));
    assert_eq!(client.answer().body, "ok\n");
}

#[test]
fn an_empty_answer_moves_the_cursor() {
    let daemon = Daemon::start("workers = 1");
    let mut client = parked(&daemon, get("/ch/quiet?wait=1", ""));
    let id = daemon.publish("loud", "x");
    let answer = client.answer();
    assert_eq!((data(&answer).len(), cursor(&answer)), (0, id));
}

#[test]
fn several_channels_share_one_cursor() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/ch/a,b,c", ""));
    daemon.publish("b", "one");
    let answer = client.answer();
    assert_eq!(data(&answer), ["one"]);
    let mut ids = Vec::new();
    for (channel, text) in [("c", "two"), ("a", "three"), ("other", "no"), ("b", "four")] {
        ids.push(daemon.publish(channel, text));
    }
    client.send(get(&format!("/ch/a,b,c?since={}", cursor(&answer)), ""));
    let answer = client.answer();
    assert_eq!(data(&answer), ["two", "three", "four"]);
    let channels: Vec<_> = answer.json()["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["channel"].clone())
        .collect();
    assert_eq!(channels, ["c", "a", "b"]);
    assert_eq!(cursor(&answer), ids[3]);
}

#[test]
fn a_name_that_is_listed_twice_or_encoded_counts_once() {
    let daemon = Daemon::start("");
    daemon.publish("a+b", "x");
    let answer = ask(&daemon, get("/ch/a+b,a%2Bb,a%2bb?since=0", ""));
    assert_eq!(data(&answer), ["x"]);
}

#[test]
fn a_cursor_is_an_id_a_time_or_an_entity_tag() {
    let daemon = Daemon::start("");
    let ids: Vec<u64> = ["one", "two", "three"]
        .map(|text| daemon.publish("a", text))
        .into();
    let time = |id: u64| {
        let seconds = rfc3339(id / 1_000_000);
        format!("{seconds}.{:06}Z", id % 1_000_000)
    };
    let cases = [
        ("since=0".to_owned(), String::new(), 3),
        (format!("since={}", ids[0]), String::new(), 2),
        (format!("since={}", time(ids[1])), String::new(), 1),
        (format!("since={}", ids[2]), String::new(), 0),
        (
            String::new(),
            format!("If-None-Match: \"{}\"\r\n", ids[0]),
            2,
        ),
        (
            String::new(),
            format!("If-None-Match: W/\"{}\"\r\n", ids[1]),
            1,
        ),
        // The URL's cursor is newer than the header's, because no client repeats the URL of a poll by itself.
        (
            format!("since={}", ids[1]),
            format!("If-None-Match: \"{}\"\r\n", ids[0]),
            1,
        ),
        (String::new(), String::new(), 0),
    ];
    for (query, headers, count) in cases {
        let answer = ask(&daemon, get(&format!("/ch/a?wait=0&{query}"), &headers));
        assert_eq!(data(&answer).len(), count, "{query} {headers}");
        assert_eq!(answer.json()["gap"], false, "{query} {headers}");
        assert_eq!(cursor(&answer), ids[2]);
    }
}

/// Formats seconds since the epoch as `YYYY-MM-DDTHH:MM:SS` (days to civil, Howard Hinnant's algorithm).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}")
}

#[test]
fn a_gap_is_told_and_the_poll_goes_on() {
    let daemon = Daemon::start("[history]\nbytes = 65536\n");
    let first = daemon.publish("a", "first");
    let large = "x".repeat(40_000);
    daemon.publish("a", &large);
    let last = daemon.publish("a", &large); // pushes both out
    let answer = ask(&daemon, get(&format!("/ch/a?since={first}"), ""));
    assert_eq!(
        (answer.json()["gap"].as_bool(), cursor(&answer)),
        (Some(true), last)
    );
    assert_eq!(data(&answer).len(), 1);
    // A cursor older than the daemon or newer than any message is answered at once, even without a message.
    for since in ["1", "99999999999999999"] {
        let answer = ask(&daemon, get(&format!("/ch/empty?since={since}"), ""));
        assert_eq!(
            (answer.json()["gap"].as_bool(), cursor(&answer)),
            (Some(true), last),
            "{since}"
        );
    }
    // 0 requests all kept messages.
    let answer = ask(&daemon, get("/ch/a?since=0", ""));
    assert_eq!(answer.json()["gap"], false);
}

#[test]
fn messages_larger_than_socket_buffers_arrive_whole() {
    let daemon =
        Daemon::start("[http]\npublish = true\nmax_body = 4194304\n[history]\nbytes = 16777216\n");
    let text = "0123456789abcdef".repeat(4 << 20 >> 4);
    let mut clients: Vec<Http> = (0..4)
        .map(|_| parked(&daemon, get("/ch/a", "") + &get("/healthz", "")))
        .collect();
    assert_eq!(ask(&daemon, post("/ch/a", "", text.as_bytes())).status, 201);
    // The first client has not read yet. Another client is served anyway.
    assert_eq!(daemon.get("/healthz").status, 200);
    for client in &mut clients {
        let answer = client.answer();
        let got = data(&answer);
        assert!(
            got.len() == 1 && got[0] == text,
            "{} bytes",
            answer.body.len()
        );
        assert_eq!(client.answer().body, "ok\n"); // the connection is where it should be
    }
}

/// One answer has a limited number of bytes. The cursor says where the next request continues.
#[test]
fn a_long_backlog_comes_in_parts() {
    let daemon = Daemon::start("");
    let messages: Vec<String> = (0..30)
        .map(|n| format!("{n:02}{}", "x".repeat(30_000)))
        .collect();
    for message in &messages {
        daemon.publish("a", message);
    }
    let mut client = Http::connect(daemon.addr());
    let (mut got, mut answers, mut since) = (Vec::new(), 0, 0);
    while got.len() < messages.len() {
        client.send(get(&format!("/ch/a?since={since}"), ""));
        let answer = client.answer();
        assert_eq!(answer.json()["gap"], false);
        assert!(cursor(&answer) > since);
        (since, answers) = (cursor(&answer), answers + 1);
        got.extend(data(&answer));
    }
    assert!(got == messages && answers > 1, "{answers} answers");
}

#[test]
fn data_that_is_no_text_is_base64() {
    let daemon = Daemon::start(PUBLISHING);
    let cases: [(&[u8], &str, Option<&str>); 5] = [
        (b"\xff\x00", "/wA=", Some("base64")),
        (b"", "", None),
        (b"a\0b", "a\0b", None),
        ("\u{2028}\"\\<é".as_bytes(), "\u{2028}\"\\<é", None),
        (b"\xed\xa0\x80", "7aCA", Some("base64")), // half a surrogate pair
    ];
    for (bytes, text, encoding) in cases {
        let mut client = parked(&daemon, get("/ch/a", ""));
        assert_eq!(
            ask(&daemon, post("/ch/a?name=%C3%A9t%C3%A9", "", bytes)).status,
            201
        );
        let message = client.answer().json()["messages"][0].clone();
        assert_eq!(message["data"], text);
        assert_eq!(message["encoding"].as_str(), encoding);
        assert_eq!(message["name"], "été");
    }
}

/// The client asks the daemon to close the connection. The answer has its full length before the close.
#[test]
fn connection_close_is_honoured_by_polls() {
    let daemon = Daemon::start("");
    for headers in ["Connection: close\r\n", "Connection: foo , CLOSE\r\n"] {
        let mut client = parked(&daemon, get("/ch/a", headers));
        daemon.publish("a", "last");
        let answer = client.answer();
        assert_eq!(
            (data(&answer), answer.header("connection")),
            (vec!["last".to_owned()], Some("close"))
        );
        assert!(client.is_closed());
    }
}

/// If a socket with unread bytes is closed, the system discards the part of the answer that the client has not
/// received.
#[test]
fn bytes_behind_the_last_poll_do_not_cost_its_answer() {
    let daemon = Daemon::start("");
    let text = "x".repeat(200_000);
    let more = get("/ch/a", "");
    let mut closing = parked(&daemon, get("/ch/a", "Connection: close\r\n"));
    closing.send(&more);
    assert_eq!(daemon.get("/healthz").status, 200); // it has seen that more came
    daemon.publish("a", &text);
    wait_for_subscribers(&daemon, 0);
    assert!(data(&closing.answer()) == [text.as_str()]);

    // The same holds if the daemon closes the connection.
    let mut stopped = parked(&daemon, get("/ch/a", ""));
    stopped.send(&more);
    assert_eq!(daemon.get("/healthz").status, 200); // it has seen that more came
    daemon.publish("a", &text);
    assert!(daemon.stop().success());
    assert!(data(&stopped.answer()) == [text.as_str()]);
}

#[test]
fn many_clients_of_one_channel_get_the_same_answer() {
    let daemon = Daemon::start("");
    let mut clients: Vec<Http> = (0..300).map(|_| Http::connect(daemon.addr())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let close = if n % 3 == 0 {
            "Connection: close\r\n"
        } else {
            ""
        };
        client.send(get("/ch/a", close));
    }
    wait_for_subscribers(&daemon, 300);
    let id = daemon.publish("a", "all");
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!(
            (cursor(&answer), data(&answer)),
            (id, vec!["all".to_owned()])
        );
    }
    assert_eq!(metric(&daemon, "comet_delivered_total"), 300);
}

/// The daemon keeps no buffer of hyper for a connection without a request, or with a waiting poll. Each such buffer has
/// 8 KiB.
#[test]
fn waiting_connections_cost_little_memory() {
    const CONNECTIONS: u64 = 400;
    let daemon = Daemon::start("");
    let private = || {
        let smaps =
            std::fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid())).unwrap();
        let line = smaps
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    // Few at a time, because the allocator would keep the memory that hyper needs for many at once.
    let park = || {
        let before = metric(&daemon, "comet_subscribers");
        let mut clients = Vec::new();
        for n in 1..=CONNECTIONS {
            let mut client = Http::connect(daemon.addr());
            client.send(get("/ch/a", &format!("Cookie: {}\r\n", "c".repeat(2000))));
            clients.push(client);
            if n % 20 == 0 {
                wait_for_subscribers(&daemon, before + n);
            }
        }
        clients
    };
    drop(park()); // what the allocator takes once is not a connection's
    wait_for_subscribers(&daemon, 0);

    let before = private();
    let idle: Vec<Http> = (0..CONNECTIONS)
        .map(|_| Http::connect(daemon.addr()))
        .collect();
    wait_for("connections", || {
        (metric(&daemon, "comet_http_connections") == CONNECTIONS + 1).then_some(())
    });
    let held = park();
    let each = private().saturating_sub(before) / (2 * CONNECTIONS);
    assert!(each < 2 << 10, "{each} bytes a connection");
    drop((idle, held));
}

/// A client that reads its answer slowly, and a client that reads nothing, delay no other client.
#[test]
fn a_poll_that_is_not_read_is_cut() {
    let daemon = Daemon::start(
        "workers = 1\n[http]\npublish = true\nmax_body = 8388608\nwrite_time = \"300ms\"\n[history]\nbytes = 16777216\n",
    );
    let idle = metric(&daemon, "comet_http_connections");
    let mut client = parked(&daemon, get("/ch/a", ""));
    let text = "x".repeat(8 << 20);
    assert_eq!(ask(&daemon, post("/ch/a", "", text.as_bytes())).status, 201);
    wait_for("the cut", || {
        (metric(&daemon, "comet_http_connections") == idle).then_some(())
    });
    assert!(client.rest().len() < text.len());
    assert_eq!(daemon.get("/healthz").status, 200);
}

//! Long-polls: all ways in which a client may use one connection, and the content of the answers.

use crate::{
    daemon::{Daemon, Http},
    wire::{ask, cursor, data, get, metric, parked, post, wait_for_subscribers},
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
fn no_message_is_lost_between_polls() {
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
fn a_poll_that_does_not_wait_gets_the_present_messages() {
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
fn a_gap_is_reported_and_the_next_poll_continues() {
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
fn data_that_is_not_text_is_base64() {
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

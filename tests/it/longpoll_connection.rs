//! Long-polls on one connection: pipelined requests, requests that are cut anywhere, and clients that leave.

use crate::{
    daemon::{Daemon, Http, wait_for},
    wire::{
        ask, data, descriptors, get, half_close, metric, parked, post, wait_for_all_workers,
        wait_for_subscribers,
    },
};

const PUBLISHING: &str = "[http]\npublish = true\n";

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
fn a_plain_request_and_a_poll_may_come_in_one_segment() {
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
fn a_request_after_a_waiting_poll_waits_for_its_answer() {
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
fn a_partial_request_after_a_poll_is_completed_later() {
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
fn clients_that_close_waiting_polls_free_all_resources() {
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
fn a_reset_ends_a_waiting_poll() {
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
fn a_close_in_the_same_event_as_the_request_is_noticed() {
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

/// With one worker the answers come in the order of the requests, except for requests that had to wait.
#[test]
fn a_poll_that_does_not_wait_is_answered_before_later_requests() {
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

/// The client asks the daemon to close the connection. The answer has its full length before the close.
#[test]
fn polls_obey_connection_close() {
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
fn unread_bytes_after_the_last_poll_do_not_cut_its_answer() {
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

/// The daemon keeps no buffer of hyper for a connection without a request, or with a waiting poll. Each such buffer has
/// 8 KiB.
#[test]
fn waiting_connections_take_little_memory() {
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
fn a_client_that_does_not_read_its_answer_is_disconnected() {
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

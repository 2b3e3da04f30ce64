//! SIGTERM: each waiting client gets an answer, and no acknowledged message is lost.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    daemon::{Daemon, Http, wait_for},
    http2, wire,
    wire::{Events, cursor, data, get, parked, post, refusal, wait_for_subscribers},
};

/// Whether the event moves the client's cursor to this id.
fn tells(event: Option<String>, id: u64) -> bool {
    event.is_some_and(|event| event.lines().next() == Some(&format!("id: {id}")))
}

#[test]
fn polls_get_their_cursor_and_the_process_ends_well() {
    let daemon = Daemon::start("");
    let id = daemon.publish("other", "x");
    let mut client = parked(&daemon, get("/ch/a", ""));
    let mut idle = Http::connect(daemon.addr());
    idle.send(get("/healthz", ""));
    idle.answer();
    let status = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let answer = client.answer();
    assert_eq!(
        (answer.status, cursor(&answer), data(&answer).len()),
        (200, id, 0)
    );
    assert_eq!(answer.json()["gap"], false);
    assert_eq!(answer.json()["retry"], 500);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed() && idle.is_closed());
}

#[test]
fn interrupt_from_the_keyboard_ends_it_as_well() {
    let daemon = Daemon::start("");
    let mut client = parked(&daemon, get("/ch/a", ""));
    daemon.signal("INT");
    assert_eq!(client.answer().status, 200);
    wait_for("the end", || {
        TcpStream::connect(daemon.addr()).is_err().then_some(())
    });
}

#[test]
fn streams_end_with_their_last_chunk() {
    let daemon = Daemon::start("");
    let id = daemon.publish("other", "x");
    let mut events = Events::open(&daemon, "/ch/a", "");
    let mut frame = parked(&daemon, get("/ch/a?as=iframe&callback=f", ""));
    let mut clock = parked(&daemon, get("/clock.php", ""));
    assert!(daemon.stop().success());
    let last = events.next().unwrap();
    // One line for the browser, and one for scripts.
    let data = format!("data: {{\"cursor\":\"{id}\",\"heartbeat\":15,\"retry\":500}}");
    let lines = [&format!("id: {id}"), "event: cursor", &data, "retry: 500"];
    assert_eq!(last.lines().collect::<Vec<_>>(), lines);
    assert_eq!(events.next(), None);
    assert!(events.is_closed());
    let answer = frame.answer(); // all chunks, up to the last
    assert!(answer.status == 200 && frame.is_closed());
    let end = "<script>parent.f({\"retry\":500})</script>\n";
    assert!(answer.body.ends_with(end), "{}", answer.body);
    assert!(clock.answer().status == 200 && clock.is_closed());
}

/// A browser keeps the last event's retry time until it gets another one.
#[test]
fn a_stream_begins_with_the_time_for_its_next_return() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/a?as=sse", ""));
    client.until("\nretry: 3000\n\n");
}

#[test]
fn clients_are_asked_back_over_a_window() {
    let daemon = Daemon::start("");
    let mut clients: Vec<Http> = (0..400).map(|_| Http::connect(daemon.addr())).collect();
    for client in &mut clients {
        client.send(get("/ch/a", ""));
    }
    wait_for_subscribers(&daemon, 400);
    assert!(daemon.stop().success());
    let retries = clients
        .iter_mut()
        .map(|client| client.answer().json()["retry"].as_u64());
    let mut retries: Vec<u64> = retries.map(Option::unwrap).collect();
    retries.sort_unstable();
    // The times rise by 2,000 clients a second, beginning with half a second. One connection more or less may have been
    // open.
    assert_eq!(retries[0], 500);
    let last = retries[399];
    assert!((699..705).contains(&last), "{last}");
    let in_half = retries.partition_point(|retry| *retry < 600);
    assert!((195..205).contains(&in_half), "{in_half}");
}

/// Requests that are in the kernel when the daemon is told to stop, on connections that the daemon does not read just
/// then.
#[test]
fn what_has_come_before_the_stop_is_answered() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let mut clients: Vec<Http> = (0..40).map(|_| Http::connect(daemon.addr())).collect();
    for client in &mut clients {
        client.send(get("/healthz", ""));
        assert_eq!(client.answer().status, 200);
    }
    daemon.signal("STOP");
    daemon.signal("TERM");
    for (n, client) in clients.iter_mut().enumerate() {
        match n % 3 {
            0 => client.send(get("/ch/a", "")),
            1 => client.send(post("/ch/a", "", b"x")),
            _ => client.send(get("/healthz", "")),
        }
    }
    daemon.signal("CONT");
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.answer();
        match n % 3 {
            0 => assert!(answer.json()["cursor"].is_string(), "{answer:?}"),
            // The request was read before the daemon noticed the signal, or after it.
            1 => assert!(matches!(answer.status, 201 | 503), "{answer:?}"),
            _ => assert_eq!(answer.status, 200),
        }
    }
}

/// Publishes by POST until the daemon refuses or has ended. Returns the last acknowledged id.
fn post_on_and_on(addr: SocketAddr, published: &AtomicUsize) -> u64 {
    let (mut last, request) = (0, post("/ch/a", "", &vec![b'x'; 4 << 20]));
    let mut stream = TcpStream::connect(addr).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    while stream.write_all(&request).is_ok() {
        let (mut line, mut status, mut length) = (String::new(), String::new(), 0);
        while matches!(answers.read_line(&mut line), Ok(1..)) && line != "\r\n" {
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            status = if status.is_empty() {
                line.clone()
            } else {
                status
            };
            line.clear();
        }
        let mut body = vec![0; length];
        if !status.starts_with("HTTP/1.1 201 ") || answers.read_exact(&mut body).is_err() {
            break;
        }
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        last = answer["id"].as_u64().unwrap();
        published.fetch_add(1, Ordering::Relaxed);
    }
    last
}

/// The ids of a stream's messages, up to its end.
fn ids_of(mut events: Events) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some(event) = events.next() {
        if let Some((id, _)) = event.split_once("\ndata: {\"channel\"") {
            ids.push(id.strip_prefix("id: ").unwrap().parse().unwrap());
        }
    }
    ids
}

/// A publish with a large body keeps a worker busy for some time. Meanwhile other workers could already send their last
/// events.
#[test]
fn no_post_is_acknowledged_after_the_last_answers() {
    for round in 0..4 {
        let config = "grace = \"20s\"\nworkers = 4\n[history]\nbytes = 0\n[http]\npublish = true\nmax_body = \"16MiB\"\n";
        let daemon = Daemon::start(config);
        let mut waiting: Vec<Http> = (0..12)
            .map(|_| parked(&daemon, get("/ch/quiet", "")))
            .collect();
        let published = Arc::new(AtomicUsize::new(0));
        let publishers: Vec<_> = (0..6)
            .map(|_| {
                let (addr, published) = (daemon.addr(), published.clone());
                thread::spawn(move || post_on_and_on(addr, &published))
            })
            .collect();
        wait_for("messages", || {
            (published.load(Ordering::Relaxed) > 4 + round).then_some(())
        });
        assert!(daemon.stop().success());
        let acknowledged = publishers.into_iter().map(|p| p.join().unwrap()).max();
        // Each client has all messages up to its cursor.
        for client in &mut waiting {
            let cursor = cursor(&client.answer());
            assert!(acknowledged <= Some(cursor), "{acknowledged:?} > {cursor}");
        }
    }
}

#[test]
fn old_clients_get_what_keeps_their_loops_alive() {
    let daemon = Daemon::start("");
    let mut novcomet = parked(&daemon, get("/comet.php?&subscribed[a]=9999999999&1", ""));
    let mut chat = parked(&daemon, get("/chat.php?timestamp=0", ""));
    assert!(daemon.stop().success());
    let answer = novcomet.answer();
    assert_eq!((answer.status, answer.body.trim_end()), (200, "{\"s\":0}"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(chat.answer().status, 503); // it comes back in 5 s; a 2xx would be shown
}

#[test]
fn http_2_streams_are_ended_too() {
    let daemon = Daemon::start("");
    let id = daemon.publish("other", "x");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let poll = tokio::spawn({
            let client = client.clone();
            async move { client.json("/ch/a").await }
        });
        let stream = client.get("/ch/a?as=sse").await;
        while wire::metric(&daemon, "comet_subscribers") != 2 {
            tokio::task::yield_now().await;
        }
        daemon.signal("TERM");
        let (status, poll) = poll.await.unwrap();
        assert_eq!((status, &poll["cursor"]), (200, &id.to_string().into()));
        let rest = http_body_util::BodyExt::collect(stream.into_body())
            .await
            .unwrap()
            .to_bytes();
        let rest = String::from_utf8(rest.into()).unwrap();
        let last = rest.trim_end().rsplit("\n\n").next();
        assert!(tells(last.map(str::to_owned), id), "{rest}");
    });
    assert!(daemon.stop().success());
}

/// The client's head was incomplete when the daemon was told to stop. The client gets an answer from its own cursor,
/// not with all kept messages.
#[test]
fn a_poll_that_comes_while_the_daemon_stops_gets_no_old_messages() {
    let daemon = Daemon::start("workers = 1");
    daemon.publish("a", "old");
    let last = daemon.publish("a", "older than the poll");
    let polls = ["/ch/a".to_owned(), format!("/ch/a?since={last}")];
    let mut late: Vec<Http> = polls
        .iter()
        .map(|path| {
            let mut client = Http::connect(daemon.addr());
            client.send(format!("GET {path} HTTP/1.1\r\n"));
            client
        })
        .collect();
    let mut events = Http::connect(daemon.addr());
    events.send("GET /ch/a?as=sse HTTP/1.1\r\n");
    let mut witness = parked(&daemon, get("/ch/a", ""));
    daemon.signal("TERM");
    assert_eq!(witness.answer().status, 200); // from here on the worker is stopping
    for client in &mut late {
        client.send("Host: localhost\r\n\r\n");
        let answer = client.answer();
        assert_eq!(
            (answer.status, cursor(&answer), data(&answer).len()),
            (200, last, 0)
        );
        assert_eq!(answer.header("connection"), Some("close"));
    }
    events.send("Host: localhost\r\n\r\n");
    let mut events = Events::read_head(events);
    assert!(tells(events.next(), last));
    assert_eq!(events.next(), None);
}

#[test]
fn a_publish_that_comes_too_late_is_not_acknowledged() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let request = post("/ch/a", "", b"late");
    let (begin, end) = request.split_at(request.len() - 2);
    let [mut client, mut early] = [(); 2].map(|()| Http::connect(daemon.addr()));
    client.send(begin);
    early.send(post("/ch/a", "", b"early"));
    assert_eq!(early.answer().status, 201);
    let mut witness = parked(&daemon, get("/ch/a", ""));
    daemon.signal("TERM");
    assert!(data(&witness.answer()).is_empty());
    client.send(end);
    let answer = client.answer();
    assert_eq!(
        (refusal(&answer).0, &*refusal(&answer).1),
        (503, "stopping")
    );
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn two_hundred_who_wait_get_what_was_just_published() {
    let daemon = Daemon::start("");
    let mut clients: Vec<Http> = (0..200).map(|_| Http::connect(daemon.addr())).collect();
    for client in &mut clients {
        client.send(get("/ch/a", ""));
    }
    wait_for_subscribers(&daemon, 200);
    daemon.publish("a", "last words");
    assert!(daemon.stop().success());
    for client in &mut clients {
        assert_eq!(data(&client.answer()), ["last words"]);
    }
}

/// All messages with an id have arrived at the subscribers before the streams end.
#[test]
fn streams_carry_every_acknowledged_message_to_the_end() {
    // With this long history, slow readers on a busy machine still find all messages.
    let daemon = Daemon::start("[history]\nmessages = 1000000\nbytes = 134217728\n");
    let streams: Vec<Events> = (0..50)
        .map(|_| Events::open(&daemon, "/ch/a", ""))
        .collect();
    let published = Arc::new(AtomicUsize::new(0));
    let publisher = {
        let published = published.clone();
        let mut stream = UnixStream::connect(daemon.socket_path()).unwrap();
        thread::spawn(move || {
            let mut replies = BufReader::new(stream.try_clone().unwrap());
            let (mut ids, mut reply) = (Vec::new(), String::new());
            while stream
                .write_all(b"{\"op\":\"publish\",\"channel\":\"a\",\"data\":\"\"}\n")
                .is_ok()
                && matches!(replies.read_line(&mut reply), Ok(1..))
            {
                let json: serde_json::Value = serde_json::from_str(&reply).unwrap();
                ids.extend(json["id"].as_u64());
                published.store(ids.len(), Ordering::Relaxed);
                reply.clear();
            }
            ids
        })
    };
    let readers: Vec<_> = streams
        .into_iter()
        .map(|events| thread::spawn(move || ids_of(events)))
        .collect();
    wait_for("messages", || {
        (published.load(Ordering::Relaxed) > 100).then_some(())
    });
    assert!(daemon.stop().success());
    let acknowledged = publisher.join().unwrap();
    for reader in readers {
        let ids = reader.join().unwrap();
        // Later messages were published, but their publisher had left.
        assert!(
            ids.starts_with(&acknowledged),
            "{} of {}",
            ids.len(),
            acknowledged.len()
        );
    }
}

#[test]
fn a_client_that_takes_nothing_does_not_keep_the_process() {
    let daemon = Daemon::start("grace = \"1s\"\n");
    let mut stuck = Events::open(&daemon, "/ch/a", "");
    let text = "x".repeat(100_000);
    for _ in 0..100 {
        daemon.publish("a", &text);
    }
    let mut client = parked(&daemon, get("/ch/b", ""));
    let status = daemon.stop();
    assert_eq!(status.code(), Some(0));
    assert_eq!(client.answer().status, 200);
    assert!(stuck.next().is_some()); // what was on the way
}

#[test]
fn a_daemon_that_stops_takes_no_new_connections() {
    let daemon = Daemon::start("workers = 1\n");
    let mut witness = parked(&daemon, get("/ch/a", ""));
    let addr = daemon.addr();
    assert!(daemon.stop().success());
    witness.answer();
    let mut rest = Vec::new();
    witness.stream.read_to_end(&mut rest).unwrap();
    assert!(TcpStream::connect(addr).is_err());
}

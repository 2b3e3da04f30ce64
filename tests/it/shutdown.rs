//! SIGTERM: nobody who waits is left without an answer, and nothing that was acknowledged is lost on the way.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
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

/// The event moves the client's cursor to this id.
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
    assert!(tells(events.next(), id));
    assert_eq!(events.next(), None);
    assert!(events.is_closed());
    for client in [&mut frame, &mut clock] {
        let answer = client.answer(); // all chunks, up to the last
        assert!(answer.status == 200 && client.is_closed());
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

/// Its head was not complete when the daemon was told to stop: it is answered from its own cursor, not with all
/// that is kept.
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
        client.send("Host: x\r\n\r\n");
        let answer = client.answer();
        assert_eq!(
            (answer.status, cursor(&answer), data(&answer).len()),
            (200, last, 0)
        );
        assert_eq!(answer.header("connection"), Some("close"));
    }
    events.send("Host: x\r\n\r\n");
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

/// All that a publisher has an id for is at those who listen before their streams end.
#[test]
fn streams_carry_every_acknowledged_message_to_the_end() {
    // Whoever reads late, on a busy machine, still finds it.
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
        .map(|mut events| {
            thread::spawn(move || {
                let mut ids = Vec::new();
                while let Some(event) = events.next() {
                    if let Some((id, _)) = event.split_once("\ndata: {\"channel\"") {
                        ids.push(id.strip_prefix("id: ").unwrap().parse::<u64>().unwrap());
                    }
                }
                ids
            })
        })
        .collect();
    wait_for("messages", || {
        (published.load(Ordering::Relaxed) > 100).then_some(())
    });
    assert!(daemon.stop().success());
    let acknowledged = publisher.join().unwrap();
    for reader in readers {
        let ids = reader.join().unwrap();
        // What is more was published, and its publisher gone.
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

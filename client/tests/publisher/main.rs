//! The publisher against a peer that plays the daemon on its worst days. Good days are tested with the daemon.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod peer;
mod spool;

use std::{
    io::BufRead,
    os::fd::AsRawFd,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use comet_client::{
    Acknowledge::{self, Buffered, Each, Later},
    Client, Error, Options, Outcome,
};

use peer::{PATIENCE, Peer, Visitor, message};

fn publish(
    client: &mut Client,
    data: &str,
    acknowledge: Acknowledge,
) -> Result<Option<u64>, Error> {
    let outcome = client.publish(message(data), acknowledge)?;
    assert_ne!(outcome, Outcome::Spooled);
    Ok(outcome.id())
}

/// A peer that replies to everything and reports it: the id of a message is its place.
fn echo(accept: &dyn Fn() -> Visitor, report: &std::sync::mpsc::Sender<String>) {
    let (mut visitor, mut id) = (accept(), 0);
    while let Some((data, _)) = visitor.read() {
        id += 1;
        if data.starts_with("bad") {
            visitor.refuse("data");
        } else {
            visitor.reply(id);
        }
        report.send(data).unwrap();
    }
}

fn echo_peer() -> (Peer, Receiver<String>) {
    let (report, reported) = channel();
    (Peer::start(move |accept| echo(accept, &report)), reported)
}

#[test]
fn every_way_to_publish_keeps_the_order_and_flush_tells_what_went_wrong() {
    let (peer, reported) = echo_peer();
    let mut client = peer.client(PATIENCE, None);
    // More replies than any socket buffer holds: a client that let them lie would stop the peer, and itself.
    for i in 0..20_000 {
        publish(
            &mut client,
            &format!("{i}"),
            if i % 3 == 0 { Later } else { Buffered },
        )
        .unwrap();
    }
    // Sent together with the last: a refusal with nothing due behind it ends the connection, and this peer has one.
    publish(&mut client, "bad 1", Buffered).unwrap();
    publish(&mut client, "bad 2", Buffered).unwrap();
    assert_eq!(publish(&mut client, "last", Each).unwrap(), Some(20_003));
    let error = client.flush().unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, message } if code == "data" && message == "told so")
    );
    client.flush().expect("an error is told once");
    drop(client);
    peer.done();
    let mut expected: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
    expected.extend(["bad 1", "bad 2", "last"].map(String::from));
    assert_eq!(reported.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn buffered_messages_wait_for_a_flush_or_for_the_end() {
    let (peer, reported) = echo_peer();
    let mut client = peer.client(PATIENCE, None);
    publish(&mut client, "a", Buffered).unwrap();
    publish(&mut client, "b", Buffered).unwrap();
    assert!(reported.try_recv().is_err());
    client.flush().unwrap();
    assert_eq!([(); 2].map(|()| reported.recv().unwrap()), ["a", "b"]);
    publish(&mut client, "c", Buffered).unwrap();
    drop(client);
    peer.done();
    assert_eq!(reported.iter().collect::<String>(), "c");
}

#[test]
fn a_daemon_that_came_back_gets_the_next_message_once() {
    let (closed, wait) = channel();
    let peer = Peer::start(move |accept| {
        let mut first = accept();
        assert_eq!(first.read().unwrap().0, "one");
        first.reply(1);
        drop(first);
        closed.send(()).unwrap();
        let mut second = accept();
        assert_eq!(second.read().unwrap().0, "two");
        second.reply(2);
        assert!(second.read().is_none());
    });
    let mut client = peer.client(PATIENCE, None);
    assert_eq!(publish(&mut client, "one", Each).unwrap(), Some(1));
    wait.recv().unwrap();
    assert_eq!(publish(&mut client, "two", Each).unwrap(), Some(2));
    drop(client);
    peer.done();
}

#[test]
fn a_lost_acknowledgement_is_an_unknown_outcome_and_nothing_is_repeated() {
    let peer = Peer::start(|accept| {
        assert_eq!(accept().read().unwrap().0, "one");
        let mut second = accept();
        assert_eq!(second.read().unwrap().0, "two");
        second.reply(2);
    });
    let mut client = peer.client(PATIENCE, None);
    let error = publish(&mut client, "one", Each).unwrap_err();
    assert!(matches!(error, Error::Unknown { pending: 1 }), "{error}");
    assert_eq!(publish(&mut client, "two", Each).unwrap(), Some(2));
    peer.done();
}

#[test]
fn with_a_key_a_lost_acknowledgement_is_asked_for_again() {
    let peer = Peer::start(|accept| {
        let first = accept().read().unwrap();
        assert!(first.1.as_ref().unwrap().starts_with("shop-"));
        let mut second = accept();
        assert_eq!(second.read().unwrap(), first);
        second.reply(7);
    });
    let mut client = peer.client(PATIENCE, Some("shop"));
    assert_eq!(publish(&mut client, "one", Each).unwrap(), Some(7));
    peer.done();
}

#[test]
fn with_a_key_all_that_was_lost_is_asked_for_again_in_order() {
    for acknowledged in [true, false] {
        let peer = Peer::start(move |accept| {
            let mut first = accept();
            let earlier = first.read().unwrap();
            if acknowledged {
                first.reply(1);
            }
            let lost = first.read().unwrap();
            drop(first);
            let mut second = accept();
            if !acknowledged {
                assert_eq!(second.read().unwrap(), earlier);
                second.reply(1);
            }
            assert_eq!(second.read().unwrap(), lost);
            second.reply(2);
        });
        let mut client = peer.client(PATIENCE, Some("shop"));
        publish(&mut client, "earlier", Later).unwrap();
        assert_eq!(publish(&mut client, "lost", Each).unwrap(), Some(2));
        client.flush().unwrap();
        peer.done();
    }
}

#[test]
fn what_has_no_key_stays_in_doubt_beside_what_has() {
    let peer = Peer::start(move |accept| {
        let mut first = accept();
        assert_eq!(first.read().unwrap().0, "doubtful");
        let lost = first.read().unwrap();
        assert_eq!(lost.1.as_deref(), Some("own"));
        drop(first);
        let mut second = accept();
        assert_eq!(second.read().unwrap(), lost);
        second.reply(2);
    });
    let mut client = peer.client(PATIENCE, None);
    publish(&mut client, "doubtful", Later).unwrap();
    let mut keyed = message("keyed");
    keyed.key = Some("own".into());
    assert_eq!(client.publish(keyed, Each).unwrap(), Outcome::Published(2));
    let error = client.flush().unwrap_err();
    assert!(matches!(error, Error::Unknown { pending: 1 }), "{error}");
    peer.done();
}

#[test]
fn a_late_reply_never_answers_a_later_message() {
    let (answer, late) = channel::<()>();
    let peer = Peer::start(move |accept| {
        let next = || {
            let mut visitor = accept();
            visitor.read().map(|(data, _)| (visitor, data))
        };
        loop {
            match next() {
                Some((mut visitor, data)) if data == "1" => {
                    late.recv().unwrap();
                    visitor.reply(1);
                }
                Some((mut visitor, data)) if data == "2" => return visitor.reply(2),
                _ => {}
            }
        }
    });
    let mut client = peer.client(Duration::from_millis(200), None);
    // On a busy machine a call may be too late even to send, or to hear the second reply.
    loop {
        match publish(&mut client, "1", Each).unwrap_err() {
            Error::Timeout { pending: 0, .. } => {}
            Error::Timeout { pending: 1, .. } => break,
            error => panic!("{error}"),
        }
    }
    answer.send(()).unwrap();
    match publish(&mut client, "2", Each) {
        Err(Error::Timeout { .. }) => {}
        reply => assert_eq!(reply.unwrap(), Some(2)),
    }
}

#[test]
fn the_last_words_before_a_close_are_the_answer() {
    let peer = Peer::start(|accept| {
        let mut visitor = accept();
        // Never reads the line, as a daemon does with one over its limit.
        visitor.refuse("line");
    });
    let mut client = peer.client(PATIENCE, None);
    let error = publish(&mut client, &"x".repeat(8 << 20), Each).unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, .. } if code == "line"),
        "{error}"
    );
    peer.done();
}

#[test]
fn what_follows_a_refusal_goes_over_a_new_connection() {
    let peer = Peer::start(|accept| {
        let mut first = accept();
        assert_eq!(first.read().unwrap().0, "bad");
        first.refuse("line");
        // It reads on, but only to be polite: what comes is nobody's any more.
        assert!(first.read().is_none());
        let mut second = accept();
        assert_eq!(second.read().unwrap().0, "good");
        second.reply(2);
    });
    let mut client = peer.client(PATIENCE, None);
    let error = publish(&mut client, "bad", Each).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(publish(&mut client, "good", Each).unwrap(), Some(2));
    peer.done();
}

#[test]
fn strange_answers_are_reported_and_end_the_connection() {
    let peer = Peer::start(|accept| {
        let mut first = accept();
        first.read().unwrap();
        first.write(b"HTTP/1.1 400 Bad Request\r\n");
        assert!(first.read().is_none());
        let mut second = accept();
        second.read().unwrap();
        second.reply(2);
    });
    let mut client = peer.client(PATIENCE, None);
    let error = publish(&mut client, "one", Each).unwrap_err();
    assert!(
        matches!(&error, Error::Protocol(text) if text.starts_with("HTTP/1.1 400")),
        "{error}"
    );
    assert_eq!(publish(&mut client, "two", Each).unwrap(), Some(2));
    peer.done();
}

#[test]
fn a_request_is_one_line_and_gets_one() {
    let peer = Peer::start(|accept| {
        let mut visitor = accept();
        let mut line = String::new();
        visitor.input.read_line(&mut line).unwrap();
        assert_eq!(line, "{\"op\":\"status\"}\n");
        visitor.write(b"{\"ok\":true,\"channels\":3}\n");
    });
    let mut client = peer.client(PATIENCE, None);
    assert!(matches!(client.request("a\nb"), Err(Error::Line)));
    assert_eq!(
        client.request("{\"op\":\"status\"}").unwrap(),
        "{\"ok\":true,\"channels\":3}"
    );
    peer.done();
}

#[test]
fn connecting_to_a_daemon_that_accepts_nobody_ends_in_time() {
    use nix::{errno::Errno, sys::socket::*};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("comet.sock");
    let address = UnixAddr::new(&path).unwrap();
    let open = |flags| socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let listener = open(SockFlag::empty());
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut crowd = Vec::new();
    loop {
        let socket = open(SockFlag::SOCK_NONBLOCK);
        let result = connect(socket.as_raw_fd(), &address);
        crowd.push(socket);
        match result {
            Ok(()) => {}
            Err(Errno::EAGAIN) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let mut client = Client::new(Options {
        socket: Some(path),
        timeout: Duration::from_millis(20),
        ..Options::default()
    });
    let error = publish(&mut client, "one", Each).unwrap_err();
    assert!(
        matches!(error, Error::Timeout { pending: 0, .. }),
        "{error}"
    );
}

#[test]
fn no_daemon_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut client = Client::new(Options {
        socket: Some(directory.path().join("none")),
        ..Options::default()
    });
    let error = publish(&mut client, "one", Each).unwrap_err().to_string();
    assert!(
        error.ends_with("No such file or directory (does the daemon run?)"),
        "{error}"
    );
}

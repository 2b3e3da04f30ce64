//! The publisher against a test peer that behaves like a daemon with faults. A healthy daemon is tested in `tests/`.

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
    proto::line::ErrorCode,
};

use peer::{PATIENCE, Peer, PeerConnection, message};

fn publish(
    client: &mut Client,
    data: &str,
    acknowledge: Acknowledge,
) -> Result<Option<u64>, Error> {
    let outcome = client.publish(message(data), acknowledge)?;
    assert_ne!(outcome, Outcome::Spooled);
    Ok(outcome.id())
}

/// A peer that replies to each message and reports its data. The id of a message is its number.
fn echo(accept: &dyn Fn() -> PeerConnection, report: &std::sync::mpsc::Sender<String>) {
    let (mut connection, mut id) = (accept(), 0);
    while let Some((data, _)) = connection.read() {
        id += 1;
        if data.starts_with("bad") {
            connection.refuse(&ErrorCode::Data);
        } else {
            connection.reply(id);
        }
        report.send(data).unwrap();
    }
}

fn echo_peer() -> (Peer, Receiver<String>) {
    let (report, reported) = channel();
    (Peer::start(move |accept| echo(accept, &report)), reported)
}

#[test]
fn messages_keep_their_order_and_flush_reports_the_first_error() {
    let (peer, reported) = echo_peer();
    let mut client = peer.client(PATIENCE, None);
    // More replies than a socket buffer holds: if the client did not read them, the peer and then the client would block.
    for i in 0..20_000 {
        publish(
            &mut client,
            &format!("{i}"),
            if i % 3 == 0 { Later } else { Buffered },
        )
        .unwrap();
    }
    // Sent together with the last message, because a refusal without later messages ends the connection, and this peer accepts only one.
    publish(&mut client, "bad 1", Buffered).unwrap();
    publish(&mut client, "bad 2", Buffered).unwrap();
    assert_eq!(publish(&mut client, "last", Each).unwrap(), Some(20_003));
    let error = client.flush().unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, message } if *code == ErrorCode::Data && message == "wrong data")
    );
    client.flush().expect("an error is reported once");
    drop(client);
    peer.done();
    let mut expected: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
    expected.extend(["bad 1", "bad 2", "last"].map(String::from));
    assert_eq!(reported.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn buffered_messages_are_sent_by_a_flush_or_when_the_client_is_dropped() {
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
fn a_restarted_daemon_gets_the_next_message_once() {
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
fn without_a_key_a_lost_acknowledgement_is_an_error_and_nothing_is_sent_again() {
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
fn with_a_key_an_unacknowledged_message_is_sent_again() {
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
fn with_keys_all_unacknowledged_messages_are_sent_again_in_order() {
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
fn only_messages_with_a_key_are_sent_again() {
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
fn a_late_reply_is_never_taken_for_a_later_message() {
    let (answer, late) = channel::<()>();
    let peer = Peer::start(move |accept| {
        let next = || {
            let mut connection = accept();
            connection.read().map(|(data, _)| (connection, data))
        };
        loop {
            match next() {
                Some((mut connection, data)) if data == "1" => {
                    late.recv().unwrap();
                    connection.reply(1);
                }
                Some((mut connection, data)) if data == "2" => return connection.reply(2),
                _ => {}
            }
        }
    });
    let mut client = peer.client(Duration::from_millis(200), None);
    // On a busy machine a call may time out before it has sent the message, or before it gets the second reply.
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
fn an_error_before_the_close_is_the_answer() {
    let peer = Peer::start(|accept| {
        let mut connection = accept();
        // Never reads the line, like a daemon that refuses a line over its limit.
        connection.refuse(&ErrorCode::Line);
    });
    let mut client = peer.client(PATIENCE, None);
    let error = publish(&mut client, &"x".repeat(8 << 20), Each).unwrap_err();
    assert!(
        matches!(&error, Error::Refused { code, .. } if *code == ErrorCode::Line),
        "{error}"
    );
    peer.done();
}

#[test]
fn after_a_refusal_the_next_message_uses_a_new_connection() {
    let peer = Peer::start(|accept| {
        let mut first = accept();
        assert_eq!(first.read().unwrap().0, "bad");
        first.refuse(&ErrorCode::Line);
        // Like the daemon, the peer reads to the end of the connection, but the client must send nothing more.
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
fn a_request_is_one_line_and_gets_one_reply() {
    let peer = Peer::start(|accept| {
        let mut connection = accept();
        let mut line = String::new();
        connection.input.read_line(&mut line).unwrap();
        assert_eq!(line, "{\"op\":\"status\"}\n");
        connection.write(b"{\"ok\":true,\"channels\":3}\n");
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
fn connecting_to_a_daemon_that_accepts_no_connection_times_out() {
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
fn a_missing_daemon_is_reported_at_once() {
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

//! Messages that a client leaves in the spool, and what happens to them when the daemon is back.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use comet_client::{
    Acknowledge::{self, Buffered, Each, Later},
    Client, Error, Options, Outcome, SPOOL_SUFFIX, SpoolUse,
    proto::line::{ErrorCode, Request},
};
use tempfile::TempDir;

use super::peer::{PATIENCE, Peer, PeerConnection, message};

/// A directory for a socket and the spool beside it.
struct SocketWithSpool {
    root: TempDir,
}

impl SocketWithSpool {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root }
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("comet.sock")
    }

    fn spool(&self) -> PathBuf {
        self.root.path().join("comet.spool")
    }

    fn peer(&self, script: impl FnOnce(&dyn Fn() -> PeerConnection) + Send + 'static) -> Peer {
        Peer::start_at(&self.socket(), script)
    }

    fn client(&self, timeout: Duration) -> Client {
        Client::new(Options {
            socket: Some(self.socket()),
            timeout,
            ..Options::default()
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.spool()).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> = paths
            .filter(|path| path.to_string_lossy().ends_with(SPOOL_SUFFIX))
            .collect();
        paths.sort();
        paths
    }

    /// Data and key of each message in the spool.
    fn spooled(&self) -> Vec<(String, String)> {
        let lines = self.files().into_iter().map(|path| fs::read(path).unwrap());
        let pair = |line: Vec<u8>| {
            let Request::Publish(publish) = Request::parse(&line).unwrap() else {
                panic!("a publish")
            };
            let data = String::from_utf8(publish.data.into_owned()).unwrap();
            (data, publish.key.unwrap().into_owned())
        };
        lines.map(pair).collect()
    }

    fn spooled_data(&self) -> Vec<String> {
        self.spooled().into_iter().map(|(data, _)| data).collect()
    }
}

fn publish(client: &mut Client, data: &str, acknowledge: Acknowledge) -> Outcome {
    client.publish_or_spool(message(data), acknowledge).unwrap()
}

#[test]
fn a_restarted_daemon_gets_spooled_messages_before_new_ones() {
    let place = SocketWithSpool::new();
    let mut client = place.client(PATIENCE);
    // More than one batch.
    let waiting: Vec<String> = (0..150).map(|i| i.to_string()).collect();
    for data in &waiting {
        assert_eq!(publish(&mut client, data, Each), Outcome::Spooled);
    }
    let expected = place.spooled();
    let data: Vec<&String> = expected.iter().map(|(data, _)| data).collect();
    assert_eq!(data, waiting.iter().collect::<Vec<_>>());
    fs::remove_file(&place.files()[0]).unwrap(); // as if a daemon had taken it
    let peer = place.peer(move |accept| {
        let mut connection = accept();
        for (data, key) in expected.into_iter().skip(1) {
            assert_eq!(connection.read().unwrap(), (data, Some(key)));
            connection.reply(1);
        }
        assert_eq!(connection.read().unwrap().0, "new");
        connection.reply(2);
        assert_eq!(connection.read().unwrap().0, "plain");
        connection.reply(3);
    });
    assert_eq!(publish(&mut client, "new", Each), Outcome::Published(2));
    assert!(place.files().is_empty());
    let plain = client.publish(message("plain"), Each).unwrap();
    assert_eq!(plain, Outcome::Published(3));
    peer.done();
}

#[test]
fn an_unacknowledged_message_goes_to_the_spool_with_its_key() {
    let place = SocketWithSpool::new();
    let (keys, sent) = std::sync::mpsc::channel();
    let peer = place.peer(move |accept| {
        for _ in 0..2 {
            keys.send(accept().read().unwrap()).unwrap();
        }
    });
    let mut client = place.client(PATIENCE);
    assert_eq!(publish(&mut client, "one", Each), Outcome::Spooled);
    peer.done();
    let [(data, key)] = &place.spooled()[..] else {
        panic!("one message")
    };
    assert_eq!(sent.recv().unwrap(), (data.clone(), Some(key.clone())));
    assert_eq!(sent.recv().unwrap(), (data.clone(), Some(key.clone())));
}

#[test]
fn after_one_timeout_later_calls_do_not_wait_for_the_daemon() {
    let place = SocketWithSpool::new();
    let _silent = UnixListener::bind(place.socket()).unwrap();
    let timeout = Duration::from_secs(5);
    let mut client = place.client(timeout);
    let start = Instant::now();
    assert_eq!(publish(&mut client, "one", Each), Outcome::Spooled);
    let first = start.elapsed();
    assert!(first < timeout, "{first:?}");
    for data in ["two", "three"] {
        assert_eq!(publish(&mut client, data, Each), Outcome::Spooled);
    }
    // The later calls did not wait for the daemon again.
    assert!(start.elapsed() < 2 * first, "{:?}", start.elapsed());
    assert_eq!(place.spooled_data(), ["one", "two", "three"]);
}

#[test]
fn unacknowledged_messages_are_spooled_in_order_and_flush_counts_them() {
    let place = SocketWithSpool::new();
    let peer = place.peer(|accept| {
        let mut connection = accept();
        assert_eq!(connection.read().unwrap().0, "acknowledged");
        connection.reply(1);
        assert_eq!(connection.read().unwrap().0, "sent");
    });
    let mut client = place.client(PATIENCE);
    assert_eq!(
        publish(&mut client, "acknowledged", Each),
        Outcome::Published(1)
    );
    assert_eq!(publish(&mut client, "sent", Later), Outcome::OnItsWay);
    peer.done();
    assert_eq!(
        publish(&mut client, "gathered", Buffered),
        Outcome::OnItsWay
    );
    assert_eq!(client.flush().unwrap(), 2);
    assert_eq!(client.flush().unwrap(), 0);
    assert_eq!(publish(&mut client, "dropped", Buffered), Outcome::OnItsWay);
    drop(client);
    assert_eq!(place.spooled_data(), ["sent", "gathered", "dropped"]);
}

#[test]
fn a_message_is_spooled_when_there_are_too_many_connections_but_not_when_it_is_refused() {
    let place = SocketWithSpool::new();
    let peer = place.peer(|accept| {
        accept().refuse(&ErrorCode::Connections);
        let mut second = accept();
        assert_eq!(second.read().unwrap().0, "one");
        second.reply(1);
        assert_eq!(second.read().unwrap().0, "two");
        second.refuse(&ErrorCode::Data);
    });
    let mut client = place.client(PATIENCE);
    assert_eq!(publish(&mut client, "one", Each), Outcome::Spooled);
    let refused = client.publish_or_spool(message("two"), Each).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    assert!(place.files().is_empty());
    peer.done();
}

#[test]
fn only_calls_that_ask_use_the_spool_unless_the_options_say_otherwise() {
    let place = SocketWithSpool::new();
    let elsewhere = place.root.path().join("elsewhere");
    let spools = |spool: SpoolUse, asks: bool| {
        let mut client = Client::new(Options {
            socket: Some(place.socket()),
            spool,
            ..Options::default()
        });
        let result = match asks {
            true => client.publish_or_spool(message("x"), Each),
            false => client.publish(message("x"), Each),
        };
        match result {
            Ok(outcome) => outcome == Outcome::Spooled,
            Err(error) => {
                assert!(matches!(error, Error::Connect { .. }), "{error}");
                false
            }
        }
    };
    let cases = [
        SpoolUse::Asked,
        SpoolUse::Off,
        SpoolUse::On,
        SpoolUse::In(elsewhere.clone()),
    ];
    let spooled = cases.map(|case| (spools(case.clone(), false), spools(case, true)));
    assert_eq!(
        spooled,
        [(false, true), (false, false), (true, true), (true, true)]
    );
    assert_eq!(
        (
            place.files().len(),
            fs::read_dir(elsewhere).unwrap().count()
        ),
        (3, 2)
    );
}

#[test]
fn an_error_of_the_spool_also_names_the_error_of_the_daemon() {
    let place = SocketWithSpool::new();
    fs::write(place.spool(), "in the way").unwrap();
    let mut client = place.client(PATIENCE);
    publish(&mut client, "gathered", Buffered);
    let error = client.publish_or_spool(message("one"), Each).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot connect to ") && text.contains("(does the daemon run?)"),
        "{text}"
    );
    let cause = ", and 2 messages cannot be spooled: cannot open directory ";
    assert!(text.contains(cause), "{text}");
    client.flush().expect("it is told once");
    fs::remove_file(place.spool()).unwrap();
    assert_eq!(publish(&mut client, "two", Each), Outcome::Spooled);
    // systemd removes a service's directory with its content.
    fs::remove_dir_all(place.spool()).unwrap();
    assert_eq!(publish(&mut client, "three", Each), Outcome::Spooled);
    assert_eq!(place.spooled_data(), ["three"]);
}

#[test]
fn giving_up_leaves_the_message_in_the_spool() {
    let place = SocketWithSpool::new();
    let mut client = place.client(PATIENCE);
    assert_eq!(
        client.give_up(message("one"), true).unwrap(),
        Outcome::Spooled
    );
    let error = client.give_up(message("two"), false).unwrap_err();
    assert!(
        matches!(error, Error::Timeout { pending: 0, .. }),
        "{error}"
    );
    assert_eq!(place.spooled_data(), ["one"]);
}

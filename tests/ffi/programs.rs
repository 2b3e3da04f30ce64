//! Runs C programs (tests/c) and a Python program against the daemon, or against a server with prescribed faults.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::support::{Daemon, PATIENCE, c_program, c_programs, library, repository, run, wait_for};

#[test]
fn bad_arguments_are_reported_and_good_ones_are_published() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    c_program("arguments", &[&daemon.dsn(), dir.to_str().unwrap()], |_| {});
    assert_eq!(daemon.data("news"), ["hé", "later", "gathered"]);
    assert_eq!(daemon.data("binary"), ["YQD/"]);
    assert_eq!(daemon.data("orders"), ["one", "three"]);
}

#[test]
fn a_stopped_daemon_costs_the_timeout_and_no_late_answer_is_taken_for_another() {
    let daemon = Daemon::start();
    let mut last = String::new();
    c_program(
        "timeout",
        &[&daemon.dsn_within(Duration::from_secs(1))],
        |line| match line {
            "stop" => daemon.pause(),
            "continue" => daemon.resume(),
            id => id.clone_into(&mut last),
        },
    );
    let after = (last.parse().unwrap(), String::from("after"));
    assert!(daemon.history("news").contains(&after));
}

#[test]
fn a_killed_daemon_is_reported_at_once_and_used_again_after_a_restart() {
    let mut daemon = Daemon::start();
    let dsn = daemon.dsn();
    c_program("reconnect", &[&dsn], |line| match line {
        "kill" => daemon.kill(),
        "start" => daemon.go(),
        "restart" => {
            daemon.kill();
            daemon.go();
        }
        line => panic!("{line}"),
    });
    assert_eq!(daemon.data("news").last().unwrap(), "three");
}

#[test]
fn while_the_daemon_is_away_messages_wait_in_the_spool() {
    let mut daemon = Daemon::start();
    let dsn = daemon.dsn_within(Duration::from_secs(5));
    let mut seen = Vec::new();
    c_program("spool", &[&dsn, "/proc/1/spool"], |line| match line {
        "kill" => {
            seen.push(daemon.data("news"));
            daemon.kill();
        }
        "start" => daemon.go(),
        "stop" => daemon.pause(),
        "continue" => daemon.resume_and_catch_up(),
        line => panic!("{line}"),
    });
    let waited = ["one", "two", "three", "four", "five", "six", "seven"];
    assert_eq!(seen[0], ["before"]);
    assert!(seen[1].ends_with(&waited.map(String::from)), "{seen:?}");
    assert_eq!(daemon.data("news").last().unwrap(), "last");
}

#[test]
fn no_message_is_lost_repeated_or_reordered_while_the_daemon_is_killed() {
    let mut daemon = Daemon::start();
    daemon.kill();
    std::fs::write(daemon.config(), "[history]\nmessages = 2000\n").unwrap();
    daemon.go();
    let directory = tempfile::tempdir().unwrap();
    let (dsn, count) = (daemon.dsn_within(Duration::from_secs(5)), 250);
    let arguments =
        ["a", "b", "c", "d"].map(|name| vec![dsn.clone(), name.into(), count.to_string()]);
    let mut publishers = c_programs("spooler", &arguments, directory.path());
    let (report, reports) = mpsc::channel();
    for publisher in &mut publishers {
        let (report, lines) = (
            report.clone(),
            BufReader::new(publisher.stdout.take().unwrap()),
        );
        thread::spawn(move || {
            lines
                .lines()
                .try_for_each(|line| report.send(line.unwrap()))
        });
    }
    let (rounds, mut waiting, mut spooled) = (count / 25, 0, 0);
    for round in 0..rounds {
        wait_for("the publishers to finish their round", || {
            waiting += reports.try_iter().count();
            (waiting == publishers.len()).then_some(())
        });
        let before = daemon.data("news").len();
        waiting = 0;
        for publisher in &mut publishers {
            publisher.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        }
        // Each round kills the daemon after another number of messages.
        wait_for("some messages of the round", || {
            (daemon.data("news").len() > before + 5 * round).then_some(())
        });
        daemon.kill();
        wait_for("a message in the spool, or the end of the round", || {
            for line in reports.try_iter() {
                spooled += line.parse::<u32>().unwrap_or(0); // the last line of a publisher
                waiting += 1;
            }
            (daemon.has_spooled() || waiting == publishers.len()).then_some(())
        });
        daemon.go();
    }
    drop(report);
    spooled += reports
        .iter()
        .filter_map(|line| line.parse::<u32>().ok())
        .sum::<u32>();
    for mut publisher in publishers {
        assert!(publisher.wait().unwrap().success());
    }
    daemon.catch_up();
    let data = daemon.data("news");
    for name in ["a", "b", "c", "d"] {
        let own = data.iter().filter(|data| data.starts_with(name));
        let expected: Vec<String> = (0..count).map(|i| format!("{name}-{i}")).collect();
        assert!(own.eq(&expected), "{name}: {data:?}");
    }
    println!(
        "{} messages, {rounds} kills, {spooled} went to the spool",
        data.len()
    );
    assert!(data.len() == 1000 && spooled > 0, "{spooled}");
}

#[test]
fn a_child_never_shares_a_connection_or_a_buffer() {
    let daemon = Daemon::start();
    c_program("fork", &[&daemon.dsn()], |_| {});
    let each = [
        "parent",
        "child",
        "child, gathered",
        "unsent",
        "parent again",
    ];
    assert_eq!(daemon.data("news"), each.repeat(2));
}

#[test]
fn a_panic_is_a_result_and_the_handle_stays_usable() {
    let daemon = Daemon::start();
    c_program("panic", &[&daemon.dsn()], |_| {});
    assert!(daemon.data("news").contains(&String::from("before")));
}

#[test]
fn a_lost_acknowledgement_is_unknown_and_repeated_only_with_a_key() {
    let peer = Peer::start(|accept| {
        assert!(accept().line().contains("\"once\""));
        let first = accept().line();
        assert!(first.contains("\"key\":\"shop-"));
        let mut second = accept();
        assert_eq!(second.line(), first);
        second.reply(7);
        assert_eq!(second.line(), "");
    });
    let keyed = format!("{}&key=shop", peer.dsn());
    c_program("lost", &[&peer.dsn(), &keyed], |_| {});
    peer.done();
}

#[test]
fn threads_share_a_handle_and_a_fork_does_not_wait_for_them() {
    let daemon = Daemon::start();
    let (inside, wait) = mpsc::channel();
    let peer = Peer::start(move |accept| {
        let mut first = accept();
        assert!(first.line().contains("never answered"));
        inside.send(()).unwrap();
        let mut second = accept();
        assert!(second.line().contains("child"));
        second.reply(7);
        assert_eq!(second.line(), "");
    });
    c_program("threads", &[&daemon.dsn(), &peer.dsn()], |_| {
        wait.recv().unwrap()
    });
    peer.done();
}

#[test]
fn the_pool_keeps_one_connection_over_loads_and_unloads() {
    let library = library().to_str().unwrap();
    // All messages use one connection, except those of the other thread. The server would never accept a third
    // connection.
    let peer = Peer::start(|accept| {
        let mut first = accept();
        for _ in 0..4 {
            assert_ne!(first.line(), "");
            first.reply(1);
        }
        let mut thread = accept();
        assert!(thread.line().contains("\"thread\""));
        thread.reply(2);
        assert_eq!(
            (thread.line(), first.line()),
            (String::new(), String::new())
        );
    });
    let other = peer.dsn_within(PATIENCE / 2);
    c_program("pool", &[&peer.dsn(), &other, library], |_| {});
    peer.done();

    let peer = Peer::start(|accept| {
        let mut only = accept();
        for _ in 0..2 {
            assert_ne!(only.line(), "");
            only.reply(1);
        }
    });
    c_program("unload", &[&peer.dsn(), library], |_| {});
    peer.done();
}

#[test]
fn python_publishes_with_ctypes() {
    let daemon = Daemon::start();
    let mut python = Command::new("python3");
    python
        .arg(repository().join("tests/ffi/publish.py"))
        .arg(library())
        .arg(daemon.dsn());
    let id = run(&mut python).trim().parse().unwrap();
    assert_eq!(daemon.history("news"), [(id, String::from("snake 🐍"))]);
    assert_eq!(
        std::fs::read_to_string(daemon.dir().join("file.comet")).unwrap(),
        "snake 🐍"
    );
}

/// A server that follows a script. The script accepts connections one after the other.
struct Peer {
    directory: tempfile::TempDir,
    script: JoinHandle<()>,
}

impl Peer {
    fn start(script: impl FnOnce(&dyn Fn() -> Visitor) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("comet.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let accept = move || Visitor(BufReader::new(listener.accept().unwrap().0));
        Self {
            directory,
            script: thread::spawn(move || script(&accept)),
        }
    }

    fn dsn(&self) -> String {
        self.dsn_within(PATIENCE)
    }

    fn dsn_within(&self, timeout: Duration) -> String {
        let socket = self.directory.path().join("comet.sock");
        format!(
            "unix:{}?timeout_ms={}",
            socket.display(),
            timeout.as_millis()
        )
    }

    /// Waits for the script's end. A failed assertion of the script fails the test.
    fn done(self) {
        self.script.join().unwrap();
    }
}

struct Visitor(BufReader<UnixStream>);

impl Visitor {
    /// Reads the next line. Empty: the client has closed the connection.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn reply(&mut self, id: u64) {
        writeln!(self.0.get_mut(), "{{\"ok\":true,\"id\":{id}}}").unwrap();
    }
}

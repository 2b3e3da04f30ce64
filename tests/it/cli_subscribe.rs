//! `comet subscribe`: what it prints, and when it connects again, pauses and ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cli::{comet, run},
    daemon::{Daemon, directory, signal, wait_for},
};

/// A running `comet subscribe`. It is killed when this value is dropped.
pub(crate) struct Subscriber {
    child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
}

impl Subscriber {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    pub(crate) fn message(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?} {}", self.errors()))
    }

    pub(crate) fn errors(&mut self) -> String {
        let mut errors = String::new();
        let _ = self.child.kill();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        errors
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the daemon has this many subscribers.
fn wait_for_subscribers(daemon: &Daemon, count: u64) {
    wait_for("subscribers", || {
        let status = run(daemon.comet(&["status", "--json"])).1;
        let status: Value = serde_json::from_str(&status).unwrap();
        (status["metrics"]["subscribers"] == count).then_some(())
    });
}

#[test]
fn subscribe_prints_kept_and_new_messages() {
    for over_http in [false, true] {
        let daemon = Daemon::start("");
        let url = format!("http://{}", daemon.addr());
        let subscribe = |since: u64| {
            let mut command = daemon.comet(&["subscribe", "a", "b", "--since", &since.to_string()]);
            if over_http {
                command.args(["--url", &url]);
            }
            Subscriber::start(command)
        };
        daemon.publish("a", "1");
        let second = daemon.publish("b", "2");
        let (mut all, mut rest) = (subscribe(0), subscribe(second));
        assert_eq!(all.message()["data"], "1", "over HTTP: {over_http}");
        assert_eq!(all.message()["data"], "2", "over HTTP: {over_http}");
        let id = daemon.publish("a", "3");
        let expected = serde_json::json!({"channel": "a", "id": id, "name": "", "data": "3"});
        assert_eq!(all.message(), expected, "over HTTP: {over_http}");
        assert_eq!(rest.message(), expected, "over HTTP: {over_http}");
    }
}

#[test]
fn subscribe_without_a_cursor_begins_now() {
    let daemon = Daemon::start("");
    daemon.publish("news", "before");
    let mut subscriber = Subscriber::start(daemon.comet(&["subscribe", "news"]));
    wait_for_subscribers(&daemon, 1);
    daemon.publish("news", "after");
    assert_eq!(subscriber.message()["data"], "after");
}

#[test]
fn subscribe_continues_after_a_restart() {
    for over_http in [false, true] {
        let listen = own_address();
        let flags: &[&str] = if over_http {
            &["--listen", &listen]
        } else {
            &[]
        };
        let first = Daemon::start_in(std::sync::Arc::new(directory()), "", flags);
        let root = first.root();
        let url = format!("http://{listen}");
        let way: &[&str] = if over_http { &["--url", &url] } else { &[] };
        let mut command = first.comet(&["subscribe", "news", "--since", "0"]);
        command.args(way);
        let mut subscriber = Subscriber::start(command);
        let seen = first.publish("news", "before");
        assert_eq!(subscriber.message()["id"], seen);
        assert!(first.stop().success());

        let second = Daemon::start_in(root, "", flags);
        // The message may be published before the subscriber has reconnected. Its cursor brings the message anyway.
        let id = second.publish("news", "after");
        assert!(id > seen);
        assert_eq!(subscriber.message()["id"], id, "over HTTP: {over_http}");
        let errors = subscriber.errors();
        assert!(
            errors.contains("because it stops or its settings have changed; connecting again"),
            "{errors}"
        );
        assert!(
            !errors.contains("gap"),
            "what the first daemon kept is still there: {errors}"
        );
    }
}

/// An address that a daemon can leave and take again, because no other process uses it on the loopback network.
fn own_address() -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    format!("127.{}.{b}.{c}:2061", a | 64)
}

/// Answers every poll at once without a message. Returns after this many polls.
fn answer_at_once(listener: &TcpListener, answer: &str, polls: usize) {
    let (stream, _) = listener.accept().unwrap();
    let mut requests = BufReader::new(&stream).lines();
    for _ in 0..polls {
        while !requests.next().unwrap().unwrap().is_empty() {}
        let length = answer.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        (&stream).write_all((head + answer).as_bytes()).unwrap();
    }
}

#[test]
fn subscribe_pauses_after_immediate_empty_answers() {
    for gap in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("{{\"cursor\":\"7\",\"gap\":{gap},\"messages\":[]}}");
        let subscriber =
            Subscriber::start(comet(&["subscribe", "a", "--since", "7", "--url", &url]));
        let start = Instant::now();
        answer_at_once(&listener, &answer, 5);
        // The pauses double, beginning with a tenth of a second.
        let paused = Duration::from_millis(100 + 200 + 400 + 800);
        assert!(start.elapsed() >= paused, "{:?}", start.elapsed());
        drop(subscriber);
    }
}

#[test]
fn subscribe_reports_a_gap_up_to_the_next_message() {
    let daemon = Daemon::start("[history]\nbytes = 65536\n");
    let large = "x".repeat(40_000);
    let first = daemon.publish("a", "first");
    daemon.publish("a", &large);
    let last = daemon.publish("a", &large);
    let url = format!("http://{}", daemon.addr());
    for way in [&["--url", &url][..], &[]] {
        let mut command = daemon.comet(&["subscribe", "a", "--since", &first.to_string()]);
        command.args(way);
        let mut subscriber = Subscriber::start(command);
        assert_eq!(subscriber.message()["id"], last);
        let told = format!("gap: messages up to {} may be missing", last - 1);
        let errors = subscriber.errors();
        assert!(errors.contains(&told), "{errors}");
    }
}

/// A time is sent as a time. It need not be the time of a message.
#[test]
fn subscribe_since_a_time_reports_no_false_gap() {
    let daemon = Daemon::start("");
    let url = format!("http://{}", daemon.addr());
    for way in [&["--url", &url][..], &[]] {
        let before = daemon.publish("a", "before");
        let time = comet_proto::Since::Time(before + 1).to_string();
        let mut command = daemon.comet(&["subscribe", "a", "--since", &time]);
        command.args(way);
        let mut subscriber = Subscriber::start(command);
        wait_for_subscribers(&daemon, 1);
        let id = daemon.publish("a", "after");
        assert_eq!(subscriber.message()["id"], id);
        assert!(!subscriber.errors().contains("gap"));
        wait_for_subscribers(&daemon, 0);
    }
}

#[test]
fn subscribe_ends_when_the_reader_of_its_output_is_gone() {
    let daemon = Daemon::start("");
    let mut subscriber = Subscriber::start(daemon.comet(&["subscribe", "news"]));
    wait_for_subscribers(&daemon, 1);
    let Subscriber { child, stdout } = &mut subscriber;
    // Replacing the pipe closes its only reader.
    drop(std::mem::replace(stdout, BufReader::new(silent_output())));
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(subscriber.errors(), "");
}

/// The output of a program that prints nothing.
fn silent_output() -> ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    child.wait().unwrap();
    stdout
}

#[test]
fn subscribe_ends_quietly_by_sigint() {
    let daemon = Daemon::start("");
    // A shell starts background programs with SIGINT ignored, and their children inherit that.
    let mut command = Command::new("env");
    let program = env!("CARGO_BIN_EXE_comet");
    command.args(["--default-signal=INT", program, "subscribe", "news"]);
    command.env("COMET_SOCKET", daemon.socket_path());
    let mut subscriber = Subscriber::start(command);
    wait_for_subscribers(&daemon, 1);
    signal(&subscriber.child, "INT");
    // The program ends by the signal like any filter, so that a shell that runs it in a loop sees the signal.
    assert_eq!(subscriber.child.wait().unwrap().signal(), Some(2));
    assert_eq!(subscriber.errors(), "");
    wait_for_subscribers(&daemon, 0);
}

#[test]
fn subscribe_prints_why_it_is_refused() {
    let daemon = Daemon::start("[socket]\nallow = [\"user:54321\"]");
    let (exit, _, stderr) = run(daemon.comet(&["subscribe", "news"]));
    assert_eq!(exit, Some(1));
    assert!(stderr.contains("socket.allow lacks"), "{stderr}");
}

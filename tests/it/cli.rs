//! The command line: help, exit codes, and the output of each command.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Lines, directory, feed, signal, wait_for},
    other_user::{STRANGER, is_root, shared},
};

fn comet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comet"));
    command
        .args(arguments)
        .env_remove("COMET_SOCKET")
        .env_remove("COMET_CONFIG");
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command. Returns exit code, standard output and standard error.
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    (status.code(), text(&stdout), text(&stderr))
}

/// A running `comet subscribe`. It is killed when this value is dropped.
struct Subscriber {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Subscriber {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn message(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?} {}", self.errors()))
    }

    fn errors(&mut self) -> String {
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
fn help_teaches_and_mistakes_are_told() {
    let cases: [(&[&str], i32, &str); 18] = [
        (&["--help"], 0, "subscribe  Print messages as they come"),
        (
            &["--version"],
            0,
            concat!("comet ", env!("CARGO_PKG_VERSION")),
        ),
        (&["serve", "--help"], 0, "touch /dev/shm/news.comet"),
        (&["help", "publish"], 0, "date | comet publish clock -"),
        (&["subscribe", "--help"], 0, "--since 0"),
        (&["status", "--help"], 0, "comet status --json"),
        (&["check", "--help"], 0, "comet check --config"),
        (&[], 2, "Usage: comet <COMMAND>"),
        (&["pubish"], 2, "a similar subcommand exists: 'publish'"),
        (&["publish"], 2, "<CHANNEL>"),
        (&["publish", "a/b"], 2, "channel name may not contain '/'"),
        (
            &["publish", "a", "--name", "\u{7}"],
            2,
            "event name may not contain",
        ),
        (
            &["publish", "a", "--key", &"k".repeat(129)],
            2,
            "key of 129 bytes is over the limit of 128",
        ),
        (&["publish", "a", "b", "c"], 2, "unexpected argument 'c'"),
        (&["subscribe", "a", "--since", "yesterday"], 2, "RFC 3339"),
        (
            &["subscribe", "a", "--url", "https://a.org"],
            2,
            "https is not supported",
        ),
        (
            &["serve", "--listen", "localhost"],
            2,
            "IP:PORT, such as 127.0.0.1:2061",
        ),
        (&["serve", "--demo=maybe"], 2, "--demo"),
    ];
    for (arguments, code, expected) in cases {
        let (exit, stdout, stderr) = run(comet(arguments));
        assert_eq!(exit, Some(code), "{arguments:?}: {stderr}");
        let told = if code == 0 { &stdout } else { &stderr };
        assert!(told.contains(expected), "{arguments:?}: {told}");
        assert!(code == 0 || stdout.is_empty(), "{arguments:?}: {stdout}");
    }
}

#[test]
fn more_than_a_hundred_channels_are_too_many() {
    let names: Vec<String> = (0..101).map(|i| format!("c{i}")).collect();
    let mut command = comet(&["subscribe"]);
    let (exit, _, stderr) = run({
        command.args(names);
        command
    });
    assert_eq!(exit, Some(2), "{stderr}");
}

#[test]
fn without_a_daemon_every_command_fails_and_says_so() {
    let root = directory();
    let socket = root.path().join("none.sock");
    let url = "http://127.0.0.1:1"; // tcpmux: nobody serves it
    let cases: [&[&str]; 4] = [
        &["publish", "news", "hi"],
        &["subscribe", "news"],
        &["subscribe", "news", "--url", url],
        &["status"],
    ];
    for arguments in cases {
        let mut command = comet(arguments);
        command.env("COMET_SOCKET", &socket);
        let (exit, stdout, stderr) = run(command);
        assert_eq!(
            (exit, stdout.as_str()),
            (Some(1), ""),
            "{arguments:?}: {stderr}"
        );
        assert!(stderr.starts_with("comet: cannot "), "{stderr}");
        assert!(stderr.contains("does the daemon run?"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_log_level_that_is_none_is_told() {
    for (level, known) in [
        ("loud", false),
        ("a=loud", false),
        ("WARN", true),
        ("off,a=info", true),
    ] {
        let mut command = comet(&["serve", "--config", "/no/such/file"]);
        command.env("COMET_LOG", level);
        let (exit, _, stderr) = run(command);
        assert_eq!(exit, Some(1));
        assert_eq!(stderr.starts_with("comet: COMET_LOG: "), !known, "{stderr}");
    }
}

#[test]
fn publish_prints_the_id() {
    let daemon = Daemon::start("");
    let (exit, stdout, _) = run(daemon.comet(&["publish", "news", "hé"]));
    let id: u64 = stdout.strip_suffix('\n').unwrap().parse().unwrap();
    assert_eq!(exit, Some(0));
    assert_eq!(daemon.history("news"), [(id, "hé".to_owned())]);
    run(daemon.comet(&["publish", "empty"]));
    assert_eq!(daemon.history("empty")[0].1, "");
    run(daemon.comet(&["publish", "dash", "--", "-5"]));
    assert_eq!(daemon.history("dash")[0].1, "-5");
}

#[test]
fn publish_with_a_key_publishes_once() {
    let daemon = Daemon::start("");
    let publish = |data| run(daemon.comet(&["publish", "orders", data, "--key", "order-7"]));
    let first = publish("paid");
    assert_eq!(publish("paid again"), first);
    assert_eq!(daemon.history("orders").len(), 1);
}

#[test]
fn publish_leaves_a_message_in_the_spool_while_the_daemon_is_away() {
    let root = Arc::new(directory());
    let socket = root.path().join("comet.sock");
    let publish = |arguments: &[&str]| {
        let mut command = comet(&["publish", "news"]);
        command.args(arguments).env("COMET_SOCKET", &socket);
        run(command)
    };
    let (exit, stdout, stderr) = publish(&["lost"]);
    assert_eq!((exit, &*stdout), (Some(1), ""), "{stderr}");
    let spooled = (Some(0), "spooled\n".to_owned(), String::new());
    for data in ["one", "two", "three"] {
        assert_eq!(publish(&[data, "--spool"]), spooled);
    }
    let elsewhere = root.path().join("none/spool");
    let (exit, stdout, stderr) = publish(&["lost", &format!("--spool={}", elsewhere.display())]);
    assert_eq!((exit, &*stdout), (Some(1), ""));
    assert!(
        stderr.contains(
            "does the daemon run?), and the message cannot be spooled: cannot open directory"
        ),
        "{stderr}"
    );
    let daemon = Daemon::start_in(root.clone(), "", &[]);
    let texts: Vec<String> = daemon
        .history("news")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert_eq!(texts, ["one", "two", "three"], "before anybody is served");
    let (exit, id, _) = publish(&["four", "--spool"]);
    assert_eq!(exit, Some(0));
    assert_eq!(
        daemon.history("news")[3],
        (id.trim().parse().unwrap(), "four".to_owned())
    );
}

#[test]
fn publish_reads_standard_input_byte_by_byte() {
    let daemon = Daemon::start("");
    let mut subscriber = Subscriber::start(daemon.comet(&["subscribe", "news", "--since", "0"]));
    let mut command = daemon.comet(&["publish", "news", "-", "--name", "bytes"]);
    assert!(feed(&mut command, b"\xff\x00\n").status.success());
    let message = subscriber.message();
    assert_eq!(
        (&message["data"], &message["encoding"]),
        (&"/wAK".into(), &"base64".into())
    );
    assert_eq!(message["name"], "bytes");
}

#[test]
fn publish_takes_several_channels_and_subscribe_prints_all_fields() {
    let daemon = Daemon::start("");
    let mut publish = daemon.comet(&["publish", "news,chat.7", "hi"]);
    assert!(publish.status().unwrap().success());
    let mut client = Lines::connect(&daemon.socket_path());
    client.ask(r#"{"op":"publish","channel":"news","attributes":{"b":"\u001b","a":"1"}}"#);
    let url = format!("http://{}", daemon.addr());
    let subscribe = ["subscribe", "chat.7", "news", "--since", "0"];
    let by_http = [&subscribe[..], &["--url", &url]].concat();
    for arguments in [&subscribe[..], &by_http] {
        let mut subscriber = Subscriber::start(daemon.comet(arguments));
        let message = subscriber.message();
        assert_eq!(message["channels"], json!(["news", "chat.7"]));
        let message = subscriber.message();
        assert_eq!(message["attributes"], json!({"a": "1", "b": "\u{1b}"}));
    }
}

#[test]
fn publish_without_data_reads_a_pipe_or_file_that_has_something() {
    let daemon = Daemon::start("");
    let root = daemon.root();
    let shell = |channel: &str, script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_comet"), channel]);
        command
            .env("COMET_SOCKET", daemon.socket_path())
            .current_dir(root.path());
        let (exit, stdout, stderr) = run(command);
        assert_eq!(exit, Some(0), "{script}: {stderr}");
        assert!(stdout.trim().parse::<u64>().is_ok(), "{script}: {stdout}");
        let told = daemon.history(channel).into_iter();
        (told.map(|(_, data)| data).collect::<Vec<_>>(), stderr)
    };
    fs::write(root.path().join("file"), "from a file").unwrap();
    fs::write(root.path().join("nothing"), "").unwrap();
    let cases = [
        ("pipe", r#"printf text | "$1" publish "$2""#, "text"),
        ("file", r#""$1" publish "$2" <file"#, "from a file"),
        ("nothing", r#""$1" publish "$2" <nothing"#, ""),
        ("ended", r#"true | "$1" publish "$2""#, ""),
        ("null", r#""$1" publish "$2" </dev/null"#, ""),
        ("closed", r#""$1" publish "$2" <&-"#, ""),
        ("given", r#"printf text | "$1" publish "$2" data"#, "data"),
        ("empty", r#"printf text | "$1" publish "$2" """#, ""),
        ("dash", r#"printf text | "$1" publish "$2" -"#, "text"),
    ];
    for (channel, script, data) in cases {
        let (told, stderr) = shell(channel, script);
        assert_eq!((told, &*stderr), (vec![data.to_owned()], ""), "{script}");
    }
    // An open pipe without data does not block the command.
    let script = r#"mkfifo idle && exec 3<>idle && "$1" publish "$2" <&3"#;
    let (told, stderr) = shell("idle", script);
    assert_eq!(told, [""]);
    assert!(
        stderr.contains("the message is empty; use `-` to wait for data"),
        "{stderr}"
    );
}

#[test]
fn publish_tells_the_daemons_refusal() {
    let daemon = Daemon::start("[socket]\nmax_line = 1024");
    let (exit, stdout, stderr) = run(daemon.comet(&["publish", "news", &"x".repeat(2000)]));
    assert_eq!((exit, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("line is over the limit of 1024 bytes"),
        "{stderr}"
    );
}

/// A daemon that sends this reply to any request.
fn lying(reply: &'static str) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = directory();
    let path = root.path().join("lying.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            let _ = lines.read_line(&mut line);
            let _ = std::io::Write::write_all(&mut &stream, reply.as_bytes());
        }
    });
    (root, path)
}

/// Characters that control a terminal, or that hide or reverse text.
const STEERING: [char; 8] = [
    '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}',
];

#[test]
fn nothing_that_is_printed_steers_a_terminal() {
    let daemon = Daemon::start("");
    let data: String = STEERING.iter().collect();
    daemon.publish("news", &data);
    let url = format!("http://{}", daemon.addr());
    for way in [&[][..], &["--url", &url]] {
        let mut command = daemon.comet(&["subscribe", "news", "--since", "0"]);
        command.args(way);
        let mut subscriber = Subscriber::start(command);
        let mut line = String::new();
        subscriber.stdout.read_line(&mut line).unwrap();
        assert!(!line.contains(STEERING), "{line:?}");
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["data"], data, "it means the same");
    }
    let replies = [
        "{\"ok\":false,\"error\":\"x\",\"message\":\"\\u001b]0;x\\u0007\\u009b31m\\u202e\"}\n",
        "\u{1b}[31m\u{9b}\u{202e}\n",
        "{\"ok\":true,\"version\":\"\\u001b\\u009b31m\\u202e\",\"\\u001b\":1}\n",
    ];
    for reply in replies {
        let (_root, socket) = lying(reply);
        for arguments in [
            &["publish", "news", "x"][..],
            &["subscribe", "news"],
            &["status"],
            &["status", "--json"],
        ] {
            let mut command = comet(arguments);
            command.env("COMET_SOCKET", &socket);
            let (_, stdout, stderr) = run(command);
            let printed = stdout + &stderr;
            assert!(!printed.contains(STEERING), "{arguments:?}: {printed:?}");
        }
    }
}

#[test]
fn status_of_a_daemon_that_is_stuck_says_so() {
    let daemon = Daemon::start("");
    daemon.signal("STOP");
    let (exit, _, stderr) = run(daemon.comet(&["status"]));
    daemon.signal("CONT");
    assert_eq!(exit, Some(1));
    assert!(
        stderr.contains("cannot ask the daemon: no answer within 5 s"),
        "{stderr}"
    );
    assert!(!stderr.contains("published"), "{stderr}");
}

#[test]
fn who_may_not_use_the_socket_is_told_how_to_be_let_in() {
    if !is_root("who_may_not_use_the_socket_is_told_how_to_be_let_in") {
        return;
    }
    let daemon = Daemon::start_in(shared(), "", &[]);
    let stranger = nix::unistd::User::from_uid(STRANGER.into())
        .unwrap()
        .unwrap()
        .name;
    for arguments in [&["publish", "a"][..], &["subscribe", "a"], &["status"]] {
        let mut command = daemon.comet(arguments);
        std::os::unix::process::CommandExt::uid(&mut command, STRANGER);
        std::os::unix::process::CommandExt::gid(&mut command, STRANGER);
        let (exit, _, stderr) = run(command);
        assert_eq!(exit, Some(1));
        let help = format!(
            "Permission denied (only its owner and group may use the socket: add this user to the group with usermod -aG comet {stranger},"
        );
        assert!(stderr.contains(&help), "{arguments:?}: {stderr}");
        let causes = stderr.matches("Permission denied").count();
        assert_eq!(causes, 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn subscribe_prints_what_is_kept_and_what_comes() {
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
fn subscribe_comes_back_after_a_restart() {
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
fn subscribe_pauses_after_answers_that_come_at_once() {
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
fn subscribe_tells_a_gap_up_to_the_messages_that_follow() {
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
fn subscribe_since_a_time_is_told_no_gap_in_vain() {
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
fn subscribe_ends_when_its_reader_is_gone() {
    let daemon = Daemon::start("");
    let mut subscriber = Subscriber::start(daemon.comet(&["subscribe", "news"]));
    wait_for_subscribers(&daemon, 1);
    let Subscriber { child, stdout } = &mut subscriber;
    // Replacing the pipe closes its only reader.
    drop(std::mem::replace(stdout, BufReader::new(silence())));
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(subscriber.errors(), "");
}

/// The output of a program that prints nothing.
fn silence() -> ChildStdout {
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
fn subscribe_tells_why_it_is_refused() {
    let daemon = Daemon::start("[socket]\nallow = [\"user:54321\"]");
    let (exit, _, stderr) = run(daemon.comet(&["subscribe", "news"]));
    assert_eq!(exit, Some(1));
    assert!(stderr.contains("socket.allow lacks"), "{stderr}");
}

#[test]
fn status_is_readable_and_raw() {
    let daemon = Daemon::start("");
    daemon.publish("news", "hi");
    let (exit, stdout, _) = run(daemon.comet(&["status"]));
    assert_eq!(exit, Some(0));
    for line in [
        format!("pid                         {}", daemon.pid()),
        "  published                 1".into(),
    ] {
        assert!(
            stdout.lines().any(|told| told == line),
            "{line:?} in {stdout}"
        );
    }
    let raw: Value = serde_json::from_str(&run(daemon.comet(&["status", "--json"])).1).unwrap();
    assert_eq!(
        (&raw["ok"], &raw["hub"]["messages"]),
        (&true.into(), &1.into())
    );
}

/// Configuration that an address needs if other machines can reach it.
const READABLE: &str = "[[channel]]\nprefix = \"\"\nread = \"public\"\n";
const READABLE_AS_SHOWN: &str =
    "\n  [[channel]]\n  prefix = \"\"          # all channels\n  read = \"public\" ";

#[test]
fn check_names_file_line_and_key() {
    let root = directory();
    let path = root.path().join("comet.toml");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        run(comet(&["check", "--config", path.to_str().unwrap()]))
    };
    let dir = root.path().join("dir");
    let (exit, stdout, stderr) = check(&format!("dir = {dir:?}"));
    assert_eq!(
        (exit, stdout, stderr.as_str()),
        (Some(0), format!("{}: ok\n", path.display()), "")
    );

    let (exit, stdout, stderr) = check("grace = \"5s\"\n[http]\nheartbeat = \"15 sec\"\n");
    assert_eq!((exit, stdout.as_str()), (Some(1), ""));
    let expected = format!(
        "comet: {}:3:13: http.heartbeat: \"15 sec\" is not a duration",
        path.display()
    );
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(
        stderr.ends_with("\n  3 | heartbeat = \"15 sec\"\n"),
        "{stderr}"
    );

    let open = "listen = \"0.0.0.0:80\"\n";
    let (exit, _, stderr) = check(open);
    assert_eq!(exit, Some(1));
    assert!(stderr.contains(READABLE_AS_SHOWN), "{stderr}");
    let (exit, _, stderr) = check(&format!(
        "dir = \"/no/such/directory\"\n{open}demo = true\n{READABLE}"
    ));
    assert_eq!(exit, Some(0), "allowed, and probably not meant");
    assert!(
        stderr.contains("warning: dir: /no/such/directory"),
        "{stderr}"
    );
    assert!(stderr.contains("warning: demo: "), "{stderr}");

    let (exit, _, stderr) = run(comet(&["check", "--config", "/no/such/file"]));
    assert_eq!(exit, Some(1));
    assert!(
        stderr.contains("cannot read /no/such/file: No such file"),
        "{stderr}"
    );
    assert_eq!(run(comet(&["check"])).0, Some(0));
}

#[test]
fn check_tries_directories_and_keys_as_the_user_who_runs_it() {
    if !is_root("check_tries_directories_and_keys_as_the_user_who_runs_it") {
        return;
    }
    let root = shared();
    let path = |name: &str| root.path().join(name);
    let config = path("comet.toml");
    fs::create_dir(path("own")).unwrap();
    fs::write(path("secret"), "x".repeat(40)).unwrap();
    fs::set_permissions(
        path("secret"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let check = |text: &str, uid: u32| {
        fs::write(&config, text).unwrap();
        let mut command = comet(&["check", "--config", config.to_str().unwrap()]);
        command.env("COMET_STORE", path("store"));
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        std::os::unix::process::CommandExt::gid(&mut command, uid);
        run(command)
    };
    let key = format!(
        "[[auth.key]]\nkid = \"a\"\nalg = \"HS256\"\nsecret_file = {:?}\n",
        path("secret")
    );
    let (own, new) = (path("own"), path("own/new/deep"));
    let cases = [
        (
            format!("[store]\ndir = {own:?}\n"),
            "store.dir: ",
            "write to",
        ),
        (
            format!("[store]\ndir = {new:?}\n"),
            "store.dir: ",
            "write to",
        ),
        (
            format!("[spool]\ndir = {own:?}\n"),
            "spool.dir: ",
            "write to",
        ),
        (
            format!("[socket]\npath = {:?}\n", path("own/s")),
            "socket.path: ",
            "write to",
        ),
        (key, "auth.key \"a\": ", "read"),
    ];
    for (text, key, act) in cases {
        let text = format!("dir = {:?}\n{text}", path("dir"));
        let (exit, stdout, stderr) = check(&text, STRANGER);
        let is_socket = key == "socket.path: ";
        let code = if is_socket { 0 } else { 1 };
        assert_eq!(exit, Some(code), "{text}");
        assert_eq!(stdout.is_empty(), !is_socket, "{stdout}");
        assert!(stderr.contains(&format!("{key}user ")), "{stderr}");
        assert!(stderr.contains(&format!(" cannot {act} ")), "{stderr}");
        assert!(stderr.contains(" (owned by root:root, mode 0"), "{stderr}");
        let missing = format!("{} does not exist", new.display());
        assert_eq!(stderr.contains(&missing), text.contains("deep"), "{stderr}");
        // Root can read the files, and the message names those that only root can read.
        let (exit, _, stderr) = check(&text, 0);
        assert_eq!(exit, Some(0), "{stderr}");
        let told = stderr.contains("warning: only root can");
        assert_eq!(told, !text.contains("deep"), "{stderr}");
    }
    assert_eq!(
        fs::read_dir(&own).unwrap().count(),
        0,
        "nothing is left there"
    );
}

#[test]
fn status_shows_places_sizes_and_what_was_refused() {
    let daemon = Daemon::start("");
    fs::create_dir(daemon.dir().join(".comet-seen.d")).unwrap();
    fs::write(daemon.dir().join("a b.comet"), "x").unwrap();
    let shown = wait_for("the refusal", || {
        let shown = run(daemon.comet(&["status"])).1;
        shown.contains("refused: ").then_some(shown)
    });
    let root = daemon.root();
    let path = |name: &str| root.path().join(name).display().to_string();
    for (label, value) in [
        ("listen", daemon.addr().to_string()),
        ("socket", path("comet.sock")),
        ("dir", path("dir")),
        ("config", path("comet.toml")),
        ("  stamp error", "none".into()),
        ("  last refused", "\"a b.comet\" refused: ".into()),
        ("  channels", "0".into()),
    ] {
        let line = format!("{label:<28}{value}");
        assert!(
            shown.lines().any(|told| told.starts_with(&line)),
            "{line:?} in {shown}"
        );
    }
    let memory = shown.lines().find(|line| line.starts_with("memory bytes"));
    assert!(memory.is_some_and(|line| line.ends_with("MiB")), "{shown}");
}

#[test]
fn status_says_that_the_stamp_is_another_users() {
    let root = Arc::new(directory());
    fs::create_dir(root.path().join("dir/.comet-seen")).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    wait_for("the stamp's error", || {
        let shown = run(daemon.comet(&["status"])).1;
        shown
            .contains(&format!("{:<28}cannot use ", "  stamp error"))
            .then_some(())
    });
}

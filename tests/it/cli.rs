//! The command line: help, exit codes, and the output of each command.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    cli_subscribe::Subscriber,
    daemon::{Daemon, Lines, directory, feed},
    other_user::{STRANGER, is_root, shared},
};

pub(crate) fn comet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comet"));
    command
        .args(arguments)
        .env_remove("COMET_SOCKET")
        .env_remove("COMET_CONFIG");
    command.stdin(Stdio::null());
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command. Returns exit code, standard output and standard error.
pub(crate) fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    (status.code(), text(&stdout), text(&stderr))
}

#[test]
fn help_has_examples_and_wrong_arguments_are_reported() {
    let cases: [(&[&str], i32, &str); 18] = [
        (
            &["--help"],
            0,
            "subscribe  Print messages when they are published",
        ),
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
fn subscribe_refuses_more_than_a_hundred_channels() {
    let names: Vec<String> = (0..101).map(|i| format!("c{i}")).collect();
    let mut command = comet(&["subscribe"]);
    let (exit, _, stderr) = run({
        command.args(names);
        command
    });
    assert_eq!(exit, Some(2), "{stderr}");
}

#[test]
fn without_a_daemon_every_command_fails_with_the_reason() {
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
fn an_unknown_log_level_is_reported() {
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
fn publish_without_data_reads_a_pipe_or_file_with_content() {
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
fn publish_prints_the_daemons_refusal() {
    let daemon = Daemon::start("[socket]\nmax_line = 1024");
    let (exit, stdout, stderr) = run(daemon.comet(&["publish", "news", &"x".repeat(2000)]));
    assert_eq!((exit, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("line is over the limit of 1024 bytes"),
        "{stderr}"
    );
}

/// A daemon that sends this reply to any request.
fn fake_daemon(reply: &'static str) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = directory();
    let path = root.path().join("fake_daemon.sock");
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
const CONTROLLING: [char; 8] = [
    '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}',
];

#[test]
fn printed_text_cannot_control_the_terminal() {
    let daemon = Daemon::start("");
    let data: String = CONTROLLING.iter().collect();
    daemon.publish("news", &data);
    let url = format!("http://{}", daemon.addr());
    for way in [&[][..], &["--url", &url]] {
        let mut command = daemon.comet(&["subscribe", "news", "--since", "0"]);
        command.args(way);
        let mut subscriber = Subscriber::start(command);
        let mut line = String::new();
        subscriber.stdout.read_line(&mut line).unwrap();
        assert!(!line.contains(CONTROLLING), "{line:?}");
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["data"], data, "it means the same");
    }
    let replies = [
        "{\"ok\":false,\"error\":\"x\",\"message\":\"\\u001b]0;x\\u0007\\u009b31m\\u202e\"}\n",
        "\u{1b}[31m\u{9b}\u{202e}\n",
        "{\"ok\":true,\"version\":\"\\u001b\\u009b31m\\u202e\",\"\\u001b\":1}\n",
    ];
    for reply in replies {
        let (_root, socket) = fake_daemon(reply);
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
            assert!(!printed.contains(CONTROLLING), "{arguments:?}: {printed:?}");
        }
    }
}

#[test]
fn a_user_who_may_not_use_the_socket_learns_how_to_get_access() {
    if !is_root("a_user_who_may_not_use_the_socket_learns_how_to_get_access") {
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

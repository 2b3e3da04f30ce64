//! The Unix socket: what is said on it, its limits, who is let in, and its file.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use serde_json::{Value, json};

use crate::{
    config::Served,
    daemon::{Daemon, Lines, directory, wait_for},
};

fn connect(daemon: &Daemon) -> Lines {
    Lines::connect(&daemon.socket_path())
}

fn publish(channel: &str, data: &str) -> String {
    json!({"op": "publish", "channel": channel, "data": data}).to_string()
}

fn data_of(message: &Value) -> &str {
    message["data"]
        .as_str()
        .unwrap_or_else(|| panic!("no message: {message}"))
}

#[test]
fn publishes_text_and_any_bytes() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let first = client.ask(r#"{"op":"publish","channel":"news","data":"hé \"\n","name":"paid"}"#);
    let second = client.ask(r#"{"op":"publish","channel":"news","data_base64":"/wA="}"#);
    let third = client.ask(r#"{"op":"publish","channel":"news"}"#);
    assert_eq!(first["ok"], true);
    assert!(
        first["id"].as_u64() < second["id"].as_u64()
            && second["id"].as_u64() < third["id"].as_u64()
    );

    let history = client.ask(r#"{"op":"history","channels":["news"]}"#);
    let expected = json!([
        {"channel": "news", "id": first["id"], "name": "paid", "data": "hé \"\n"},
        {"channel": "news", "id": second["id"], "name": "", "data": "/wA=", "encoding": "base64"},
        {"channel": "news", "id": third["id"], "name": "", "data": ""},
    ]);
    assert_eq!(history["messages"], expected);
    assert_eq!(
        (&history["ok"], &history["gap"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(history["cursor"], json!(third["id"].to_string()));
}

#[test]
fn a_key_publishes_once() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let line = r#"{"op":"publish","channel":"news","data":"hi","key":"k"}"#;
    assert_eq!(client.ask(line), client.ask(line));
    assert_eq!(
        connect(&daemon).ask(line),
        client.ask(line),
        "the key belongs to no connection"
    );
    assert_eq!(daemon.history("news").len(), 1);
}

#[test]
fn answers_ping_and_status() {
    let daemon = Daemon::start("");
    daemon.publish("news", "hi");
    let mut client = connect(&daemon);
    assert_eq!(client.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    let status = client.ask(r#"{"op":"status"}"#);
    assert_eq!(status["ok"], true);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["hub"]["published"], &status["hub"]["channels"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(status["metrics"]["published_socket"], 1);
}

#[test]
fn refuses_bad_lines_and_stays_open() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    let many: Vec<String> = (0..10_000).map(|i| format!("c{i}")).collect();
    let deep = format!("{{\"op\":{}", "[".repeat(100_000));
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"".into(), "line", "not a request"),
        (b"{".into(), "line", "not a request"),
        (b"GET / HTTP/1.1\r".into(), "line", "not a request"),
        (b"\0\0\0".into(), "line", "not a request"),
        (deep.into(), "line", "not a request"),
        (
            b"{\"op\":\"publish\",\"channel\":\"\xff\"}".into(),
            "line",
            "not a request",
        ),
        (publish("a/b", "").into(), "channel", "may not contain '/'"),
        (publish("..", "").into(), "channel", "start with a dot"),
        (
            publish("a\0", "").into(),
            "channel",
            "may not contain '\\0'",
        ),
        (
            publish(&"x".repeat(900_000), "").into(),
            "channel",
            "900000 bytes is over the limit of 128",
        ),
        (
            r#"{"op":"publish","data":"x"}"#.into(),
            "channel",
            "needs the field",
        ),
        (
            r#"{"op":"publish","channel":"a","data_base64":"?"}"#.into(),
            "data",
            "not base64",
        ),
        (
            r#"{"op":"publish","channel":"a","name":"\u0007"}"#.into(),
            "name",
            "may not contain",
        ),
        (
            json!({"op": "publish", "channel": "a", "key": "k".repeat(129)})
                .to_string()
                .into(),
            "key",
            "limit of 128",
        ),
        (
            json!({"op": "history", "channels": many})
                .to_string()
                .into(),
            "channels",
            "10000 channels are over the limit of 100",
        ),
        (
            r#"{"op":"history","channels":[]}"#.into(),
            "channels",
            "at least one",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":18446744073709551616}"#.into(),
            "line",
            "RFC 3339",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":"18446744073709551616"}"#.into(),
            "since",
            "over the limit",
        ),
        (
            r#"{"op":"subscribe","channels":["a"],"since":-1}"#.into(),
            "line",
            "RFC 3339",
        ),
        (
            r#"{"op":"subscribe","channels":"a"}"#.into(),
            "line",
            "expected a sequence",
        ),
        (r#"{"op":"dance"}"#.into(), "op", "unknown op"),
        (
            r#"{"op":"ping","op":"ping"}"#.into(),
            "line",
            "duplicate field",
        ),
    ];
    for (line, code, text) in cases {
        let start = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        client.send([&line[..], b"\n"].concat());
        let reply = client.read().expect("the connection stays open");
        assert_eq!(
            (&reply["ok"], &reply["error"]),
            (&json!(false), &json!(code)),
            "{start}: {reply}"
        );
        assert!(
            reply["message"].as_str().unwrap().contains(text),
            "{start}: {reply}"
        );
    }
    assert_eq!(client.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    assert_eq!(daemon.history("a"), []);
}

#[test]
fn pipelined_replies_keep_the_order_of_the_requests() {
    const LINES: usize = 20_000;
    let daemon = Daemon::start("");
    let mut requests = String::new();
    for i in 0..LINES {
        match i % 10 {
            3 => requests += "{\"op\":\"ping\"}\n",
            7 => requests += "nonsense\n",
            _ => requests += &(publish("news", &i.to_string()) + "\n"),
        }
    }
    // Both ways at once: replies fill their buffer long before the last request is sent.
    let stream = UnixStream::connect(daemon.socket_path()).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending =
        thread::spawn(move || std::io::Write::write_all(&mut sender, requests.as_bytes()).unwrap());
    let mut last = 0;
    for (i, line) in BufReader::new(stream).lines().take(LINES).enumerate() {
        let reply: Value = serde_json::from_str(&line.unwrap()).unwrap();
        match i % 10 {
            3 => assert_eq!(reply, json!({"ok": true})),
            7 => assert_eq!(reply["error"], "line"),
            _ => {
                let id = reply["id"].as_u64().unwrap();
                assert!(id > last, "line {i}: {id} after {last}");
                last = id;
            }
        }
    }
    sending.join().unwrap();
    let status = connect(&daemon).ask(r#"{"op":"status"}"#);
    assert_eq!(status["hub"]["published"], LINES / 10 * 8);
}

#[test]
fn a_line_may_come_in_pieces_and_the_last_one_without_its_end() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    for piece in ["{\"op\":", "\"pi", "ng\"}\r", "\n{\"op\":\"ping\"}\n{"] {
        client.send(piece);
        // Another connection has been served since: the piece was read on its own, or will be with the next.
        assert_eq!(
            connect(&daemon).ask(r#"{"op":"ping"}"#),
            json!({"ok": true})
        );
    }
    client.send("\"op\":\"ping\"}");
    client.end();
    for _ in 0..3 {
        assert_eq!(client.read(), Some(json!({"ok": true})));
    }
    assert_eq!(client.read(), None);
}

#[test]
fn half_a_line_at_the_end_publishes_nothing() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    client.send(r#"{"op":"publish","channel":"news","data":"hal"#);
    client.end();
    assert_eq!(client.read().unwrap()["error"], "line");
    assert_eq!(client.read(), None);
    assert_eq!(daemon.history("news"), []);
}

#[test]
fn a_line_over_the_limit_ends_the_connection_with_its_reason() {
    let daemon = Daemon::start("[socket]\nmax_line = 1024");
    let padded = |length: usize| {
        let line = r#"{"op":"ping"}"#;
        format!("{line}{}\n", " ".repeat(length - line.len() - 1))
    };
    let mut client = connect(&daemon);
    client.send(padded(1024));
    assert_eq!(
        client.read(),
        Some(json!({"ok": true})),
        "as long as the limit"
    );

    let endless = "x".repeat(3 << 20);
    for too_long in [padded(1025), "x".repeat(1024), endless] {
        let mut client = connect(&daemon);
        client.send("{\"op\":\"ping\"}\n");
        client.send(&too_long);
        assert_eq!(client.read(), Some(json!({"ok": true})));
        let refusal = client.read().unwrap();
        assert_eq!(
            (&refusal["ok"], &refusal["error"]),
            (&json!(false), &json!("line"))
        );
        assert!(
            refusal["message"]
                .as_str()
                .unwrap()
                .contains("limit of 1024 bytes")
        );
        assert_eq!(client.read(), None, "{} bytes", too_long.len());
    }
}

#[test]
fn a_silent_connection_is_closed_but_no_subscriber() {
    let daemon = Daemon::start("[socket]\nidle = \"1s\"");
    let mut subscriber = connect(&daemon);
    assert_eq!(
        subscriber.ask(r#"{"op":"subscribe","channels":["news"]}"#),
        json!({"ok": true})
    );
    let mut silent = connect(&daemon);
    assert_eq!(silent.read(), None, "without a word");
    let id = daemon.publish("news", "still there");
    assert_eq!(subscriber.read().unwrap()["id"], id);
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let daemon = Daemon::start("[socket]\nmax_connections = 2");
    let mut first = connect(&daemon);
    let mut second = connect(&daemon);
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    }
    let mut third = connect(&daemon);
    let refusal = third.read().unwrap();
    assert_eq!(
        (&refusal["ok"], &refusal["error"]),
        (&json!(false), &json!("connections"))
    );
    assert_eq!(third.read(), None);

    drop(first);
    wait_for("a place", || {
        let mut client = connect(&daemon);
        client.end();
        client.read().is_none().then_some(())
    });
    let status = second.ask(r#"{"op":"status"}"#);
    assert!(status["metrics"]["socket_refused"].as_u64().unwrap() >= 1);
}

#[test]
fn a_subscriber_gets_what_is_kept_and_then_what_comes() {
    let daemon = Daemon::start("");
    let first = daemon.publish("a", "1");
    daemon.publish("other", "no");
    daemon.publish("b", "2");
    let mut all = connect(&daemon);
    let mut rest = connect(&daemon);
    let mut live = connect(&daemon);
    for (client, since) in [
        (&mut all, json!(0)),
        (&mut rest, json!(first.to_string())),
        (&mut live, json!(null)),
    ] {
        let line = json!({"op": "subscribe", "channels": ["a", "b"], "since": since});
        assert_eq!(client.ask(&line.to_string()), json!({"ok": true}));
    }
    let id = daemon.publish("a", "3");
    assert_eq!(
        live.read(),
        Some(json!({"channel": "a", "id": id, "name": "", "data": "3"}))
    );
    for data in ["2", "3"] {
        assert_eq!(data_of(&rest.read().unwrap()), data);
    }
    for data in ["1", "2", "3"] {
        assert_eq!(data_of(&all.read().unwrap()), data);
    }
    // Requests on the same connection are answered in between.
    let reply = all.ask(&publish("elsewhere", "x"));
    assert!(reply["id"].as_u64() > Some(id));
    assert_eq!(
        all.ask(r#"{"op":"subscribe","channels":["a"]}"#)["error"],
        "op"
    );
}

#[test]
fn nothing_is_lost_or_told_twice_while_others_publish() {
    const MESSAGES: usize = 3_000;
    const PUBLISHERS: usize = 3;
    let daemon = Daemon::start("[history]\nmessages = 100000\nbytes = \"64MiB\"");
    let path = daemon.socket_path();
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let mut client = Lines::connect(&path);
                scope.spawn(move || {
                    let channel = format!("c{number}");
                    (0..MESSAGES)
                        .map(|i| {
                            client.ask(&publish(&channel, &i.to_string()))["id"]
                                .as_u64()
                                .unwrap()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        // Subscribers that come at any time, and one that leaves and comes back with its cursor all the time.
        let subscribe = |since: u64| {
            let mut client = Lines::connect(&path);
            let line = json!({"op": "subscribe", "channels": ["c0", "c1", "c2"], "since": since});
            assert_eq!(client.ask(&line.to_string()), json!({"ok": true}));
            client
        };
        let restless = scope.spawn(move || {
            let (mut seen, mut cursor) = (Vec::new(), 0);
            while seen.len() < MESSAGES * PUBLISHERS {
                let mut client = subscribe(cursor);
                for _ in 0..97.min(MESSAGES * PUBLISHERS - seen.len()) {
                    cursor = client.read().unwrap()["id"].as_u64().expect("no gap");
                    seen.push(cursor);
                }
            }
            seen
        });
        let steady = scope.spawn(move || {
            let mut client = subscribe(0);
            let id = |_| client.read().unwrap()["id"].as_u64().expect("no gap");
            (0..MESSAGES * PUBLISHERS).map(id).collect::<Vec<_>>()
        });
        let mut published: Vec<u64> = publishers
            .into_iter()
            .flat_map(|p| p.join().unwrap())
            .collect();
        published.sort_unstable();
        assert!(steady.join().unwrap() == published, "the steady one");
        assert!(restless.join().unwrap() == published, "the restless one");
    });
}

#[test]
fn a_subscriber_that_does_not_read_slows_nobody_and_is_told_of_its_gap() {
    let daemon = Daemon::start("[history]\nbytes = \"256KiB\"");
    let mut slow = connect(&daemon);
    assert_eq!(
        slow.ask(r#"{"op":"subscribe","channels":["news"]}"#),
        json!({"ok": true})
    );
    let mut publisher = connect(&daemon);
    let data = "x".repeat(10_000);
    let mut last = 0;
    for _ in 0..1_000 {
        last = publisher.ask(&publish("news", &data))["id"]
            .as_u64()
            .unwrap();
    }
    let (mut seen, mut gaps) = (0, 0);
    while seen < last {
        let line = slow.read().unwrap();
        let id = line["id"].as_u64();
        if line["gap"] == true {
            gaps += 1;
            let cursor = line["cursor"].as_str().unwrap().parse::<u64>().unwrap();
            assert!(cursor >= seen);
        } else {
            assert!(id > Some(seen), "{id:?} after {seen}");
            seen = id.unwrap();
        }
    }
    assert!(gaps >= 1, "10 MB did not fit into buffers and history");
}

#[test]
fn a_cursor_of_an_earlier_daemon_is_a_gap() {
    let daemon = Daemon::start("");
    let mut client = connect(&daemon);
    client.send("{\"op\":\"subscribe\",\"channels\":[\"news\"],\"since\":5}\n");
    assert_eq!(client.read(), Some(json!({"ok": true})));
    let gap = client.read().unwrap();
    assert_eq!(gap["gap"], true);
    let id = daemon.publish("news", "hi");
    assert!(gap["cursor"].as_str().unwrap().parse::<u64>().unwrap() < id);
    assert_eq!(client.read().unwrap()["id"], id);
    let history = connect(&daemon).ask(r#"{"op":"history","channels":["news"],"since":5}"#);
    assert_eq!(
        (
            &history["gap"],
            history["messages"].as_array().unwrap().len()
        ),
        (&json!(true), 1)
    );
}

#[test]
fn a_history_is_complete_however_long() {
    let daemon = Daemon::start("[history]\nbytes = \"16MiB\"");
    let mut client = connect(&daemon);
    let mut published = Vec::new();
    for i in 0..20 {
        // More than one read of the hub gives, and several channels in turn.
        let data = format!("{i}{}", "\u{1}".repeat(100_000));
        published.push(client.ask(&publish(&format!("c{}", i % 3), &data))["id"].clone());
    }
    let history = client.ask(r#"{"op":"history","channels":["c2","c0","c1"]}"#);
    let ids: Vec<Value> = history["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].clone())
        .collect();
    assert_eq!(ids, published);
    assert_eq!(
        (&history["gap"], &history["cursor"]),
        (&json!(false), &json!(published[19].to_string()))
    );
    let rest = json!({"op": "history", "channels": ["c0", "c1", "c2"], "since": published[17]});
    assert_eq!(
        client.ask(&rest.to_string())["messages"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn stopping_ends_every_connection_after_its_replies() {
    let daemon = Daemon::start("");
    let mut subscriber = connect(&daemon);
    subscriber.ask(r#"{"op":"subscribe","channels":["news"]}"#);
    let mut deaf = connect(&daemon);
    deaf.ask(r#"{"op":"subscribe","channels":["news"]}"#);
    let mut idle = connect(&daemon);
    let id = idle.ask(&publish("news", &"x".repeat(900_000)))["id"].clone();
    assert_eq!(
        subscriber.read().unwrap()["id"],
        id,
        "and `deaf` has it in its buffer, as far as it fits"
    );
    let path = daemon.socket_path();
    assert!(daemon.stop().success());
    let last = subscriber.read().unwrap();
    assert_eq!(last, json!({"retry": 500}), "when to come back");
    assert_eq!(subscriber.read(), None);
    assert_eq!(idle.read(), None);
    assert!(!path.exists(), "the file is gone");
}

#[test]
fn the_file_is_for_owner_and_group_whatever_the_umask() {
    for umask in ["0000", "0022", "0077", "0777"] {
        let root = directory();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "umask $0 && exec \"$@\"",
            umask,
            env!("CARGO_BIN_EXE_comet"),
            "serve",
        ]);
        let daemon = Served::start(root, command, "");
        let found = fs::metadata(daemon.path("comet.sock")).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o7777, 0o660, "umask {umask}");
        assert_eq!(
            Lines::connect(&daemon.path("comet.sock")).ask(r#"{"op":"ping"}"#),
            json!({"ok": true})
        );
    }
}

#[test]
fn a_stale_socket_is_taken_over() {
    let daemon = Daemon::start("");
    let (root, path) = (daemon.root(), daemon.socket_path());
    daemon.signal("KILL");
    drop(daemon);
    assert!(path.exists(), "nobody was left to remove it");
    let daemon = Daemon::start_in(root, "", &[]);
    wait_for("the log", || {
        daemon.log().contains("taking over").then_some(())
    });
    daemon.publish("news", "hi");
}

#[test]
fn a_live_socket_is_never_taken_over() {
    let daemon = Daemon::start("");
    let before = fs::metadata(daemon.socket_path()).unwrap().ino();
    let refused = Daemon::try_start_in(daemon.root(), "", &[])
        .err()
        .expect("a second daemon");
    assert!(
        refused.contains("comet.sock: another daemon serves it"),
        "{refused}"
    );
    assert_eq!(fs::metadata(daemon.socket_path()).unwrap().ino(), before);
    daemon.publish("news", "hi");
}

#[test]
fn a_server_that_is_too_busy_to_accept_is_live() {
    let root = directory();
    let path = root.path().join("comet.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Fills its queue: the next one could only wait.
    let waiting = fill(&path);
    let refused = Daemon::try_start_in(Arc::new(root), "", &[])
        .err()
        .expect("a second daemon");
    assert!(refused.contains("another daemon serves it"), "{refused}");
    drop((listener, waiting));
}

/// Connects until no more connections fit into the queue.
fn fill(path: &std::path::Path) -> Vec<std::os::fd::OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let addr = UnixAddr::new(path).unwrap();
    let connect = || {
        let socket = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK,
            None,
        )
        .unwrap();
        connect(socket.as_raw_fd(), &addr).ok().map(|()| socket)
    };
    std::iter::from_fn(connect).collect()
}

#[test]
fn of_daemons_that_start_at_once_one_serves() {
    let daemon = Daemon::start("");
    let root = daemon.root();
    daemon.signal("KILL");
    drop(daemon); // leaves a stale socket to fight for
    let start = || Daemon::try_start_in(root.clone(), "", &[]);
    let started: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starting
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (serving, refused): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
    assert_eq!((serving.len(), refused.len()), (1, 3));
    for refusal in refused {
        let refusal = refusal.err().unwrap();
        assert!(refusal.contains("another daemon serves it"), "{refusal}");
    }
    serving
        .into_iter()
        .flatten()
        .next()
        .unwrap()
        .publish("news", "hi");
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let root = Arc::new(directory());
    let path = root.path().join("comet.sock");
    let refusal = || {
        Daemon::try_start_in(root.clone(), "", &[])
            .err()
            .expect("no daemon")
    };
    fs::write(&path, "precious").unwrap();
    assert!(
        refusal().contains("comet.sock: exists and is no socket"),
        "{}",
        refusal()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(
        refusal().contains("comet.sock: exists and is no socket"),
        "{}",
        refusal()
    );
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn a_stopping_daemon_leaves_the_socket_of_another_alone() {
    let first = Daemon::start("");
    let (root, path) = (first.root(), first.socket_path());
    fs::remove_file(&path).unwrap();
    let second = Daemon::start_in(
        root,
        "[store]\ndurability = \"memory\"\n",
        &["--store", "/nowhere"],
    );
    assert!(first.stop().success());
    second.publish("news", "hi");
}

/// Runs `comet publish` as another user, who may open the daemon's socket file here.
fn publish_as(daemon: &Daemon, user: &[&str]) -> (bool, String) {
    fs::set_permissions(daemon.root().path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(daemon.socket_path(), fs::Permissions::from_mode(0o666)).unwrap();
    let line = format!("{}\n", publish("news", "hi"));
    let mut child = Command::new("setpriv")
        .args(user)
        .args(["--clear-groups", "socat", "-t30", "-"])
        .arg(format!("UNIX:{}", daemon.socket_path().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let reply = String::from_utf8(output.stdout).unwrap();
    (reply.starts_with("{\"ok\":true,"), reply)
}

#[test]
fn only_listed_users_and_groups_are_let_in() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: other users cannot be tried");
        return;
    }
    // Numbers, since a machine need not have these users; 12345 as a group belongs to no user.
    let daemon = Daemon::start("[socket]\nallow = [\"user:54321\", \"group:12345\"]");
    let mut root = connect(&daemon);
    let refusal = root.read().unwrap();
    assert_eq!(
        (&refusal["ok"], &refusal["error"]),
        (&json!(false), &json!("permission"))
    );
    let message = refusal["message"].as_str().unwrap();
    assert!(
        message.contains("socket.allow lacks \"user:root\""),
        "{message}"
    );
    assert_eq!(root.read(), None);

    let cases: [(&[&str], bool); 3] = [
        (&["--reuid=54321", "--regid=54321"], true),
        (&["--reuid=54322", "--regid=12345"], true),
        (&["--reuid=54322", "--regid=54321"], false),
    ];
    for (user, permitted) in cases {
        let (published, reply) = publish_as(&daemon, user);
        assert_eq!(published, permitted, "{user:?}: {reply}");
    }
    wait_for("the log", || {
        daemon.log().contains("lacks \"user:54322\"").then_some(())
    });
    assert_eq!(daemon.log().matches("user root may not connect").count(), 1);
}

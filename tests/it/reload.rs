//! SIGHUP: settings that can change do change, the others are named in the log, and a faulty file changes nothing.

use std::{
    fs::{self, File},
    os::unix::fs::chown,
    path::Path,
};

use serde_json::json;

use crate::{
    config::Served,
    daemon::{Answer, Daemon, Http, Lines, directory, serve, wait_for},
    tokens,
    wire::{ask, data, get, metric, parked, post, refusal},
};

/// Replaces the configuration file and waits until the daemon has read it. Returns the daemon's log lines about it.
pub(crate) fn reload(daemon: &Daemon, config: &str) -> String {
    fs::write(daemon.root().path().join("comet.toml"), config).unwrap();
    let before = reloads(&daemon.log()).len();
    daemon.signal("HUP");
    wait_for("the reload", || reloads(&daemon.log()).get(before).cloned())
}

fn reloads(log: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains("SIGHUP received"));
    lines.map(str::to_owned).collect()
}

/// Repeats the request until the answer is as expected, because each thread takes over new settings at its own time.
fn wait_for_answer(daemon: &Daemon, request: impl AsRef<[u8]>, is_it: impl Fn(&Answer) -> bool) {
    wait_for("an answer by the new settings", || {
        is_it(&ask(daemon, &request)).then_some(())
    });
}

#[test]
fn history_takes_new_limits() {
    let daemon = Daemon::start("");
    let kept = |channel: &str| daemon.history(channel).len();
    for channel in ["a", "chat:a"] {
        for data in ["1", "2", "3"] {
            daemon.publish(channel, data);
        }
    }
    assert_eq!((kept("a"), kept("chat:a")), (3, 3));
    // The newest message stays, whatever its size.
    reload(
        &daemon,
        "[history]\nbytes = 0\n[[history.prefix]]\nprefix = \"chat:\"\nbytes = \"1MiB\"\n",
    );
    assert_eq!((kept("a"), kept("chat:a")), (1, 3));
    daemon.publish("chat:b", "1");
    daemon.publish("chat:b", "2");
    assert_eq!(kept("chat:b"), 2, "of a channel that is new");
    reload(&daemon, "");
    daemon.publish("a", "4");
    assert_eq!(kept("a"), 2);
    reload(&daemon, "[history]\ntotal = \"64KiB\"\n");
    let large = "x".repeat(40_000);
    daemon.publish("a", &large);
    daemon.publish("b", &large);
    assert_eq!((kept("a"), kept("b")), (0, 1));
}

#[test]
fn a_shorter_age_holds_for_what_is_kept_already() {
    let daemon = Daemon::start("[history]\nage = \"1h\"\n");
    daemon.publish("a", "old");
    assert_eq!(metric(&daemon, "comet_history_messages"), 1);
    reload(&daemon, "[history]\nage = \"1s\"\n");
    wait_for("its end", || {
        (metric(&daemon, "comet_history_messages") == 0).then_some(())
    });
}

#[test]
fn rules_origins_and_publishing_change() {
    let daemon = Daemon::start("");
    let from_page = get("/ch/a?wait=0", "Origin: https://page.example\r\n");
    let allowed = |answer: &Answer| {
        let origin = answer.header("access-control-allow-origin");
        origin == Some("https://page.example")
    };
    assert!(!allowed(&ask(&daemon, &from_page)));
    assert_eq!(ask(&daemon, post("/ch/a", "", b"x")).status, 403);

    let open =
        "[http]\npublish = true\norigins = [\"https://other.example\", \"https://page.example\"]\n";
    reload(&daemon, open);
    wait_for_answer(&daemon, &from_page, allowed);
    wait_for_answer(&daemon, post("/ch/a", "", b"x"), |answer| {
        answer.status == 201
    });

    // A waiting client keeps the settings with which it was accepted.
    let headers = "Origin: https://page.example\r\n";
    let mut waiting = parked(&daemon, get("/ch/b", headers));
    reload(
        &daemon,
        "[http]\norigins = [\"https://third.example\"]\n[[channel]]\nprefix = \"a\"\nread = \"closed\"\n",
    );
    wait_for_answer(&daemon, &from_page, |answer| {
        answer.status == 403 && !allowed(answer)
    });
    wait_for_answer(&daemon, post("/ch/b", "", b"x"), |answer| {
        answer.status == 403
    });
    daemon.publish("b", "for who waits");
    let answer = waiting.answer();
    assert_eq!(data(&answer), ["for who waits"]);
    assert!(allowed(&answer));
}

#[test]
fn keys_of_tokens_come_and_go() {
    let secret = &tokens::vectors()["keys"][0]["secret"];
    let config = |kid: &str| {
        format!(
            "[[channel]]\nprefix = \"\"\nread = \"token\"\n\
             [[auth.key]]\nkid = \"{kid}\"\nalg = \"HS256\"\nsecret = {secret}\n"
        )
    };
    let daemon = Daemon::start(&config("other"));
    let token = tokens::token(&json!({"s": ["*"]}), 600);
    let request = get("/ch/a?wait=0", &tokens::bearer(&token));
    for (kid, status) in [("other", 401), ("hs", 200), ("third", 401)] {
        reload(&daemon, &config(kid));
        wait_for_answer(&daemon, &request, |answer| answer.status == status);
    }
}

#[test]
fn http_limits_and_paths_change() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    // This connection outlives the change.
    let mut client = Http::connect(daemon.addr());
    client.send(post("/ch/a", "", &[b'x'; 100]));
    assert_eq!(client.answer().status, 201);
    reload(
        &daemon,
        "[http]\npublish = true\nmax_body = 99\n[compat]\nnovcomet = \"/old.php\"\n",
    );
    let large = post("/ch/a", "", &[b'x'; 100]);
    wait_for_answer(&daemon, &large, |answer| answer.status == 413);
    // The thread of this connection may be another one than the thread that has just answered.
    let refused = wait_for("the limit", || {
        client.send(&large);
        Some(client.answer()).filter(|answer| answer.status != 201)
    });
    assert_eq!(refusal(&refused).1, "body");
    let old = get("/old.php?subscribed[a]=1", "");
    wait_for_answer(&daemon, old, |answer| answer.body.starts_with("{\"s\":1"));
    wait_for_answer(&daemon, get("/comet.php", ""), |answer| {
        answer.status == 404
    });
}

#[test]
fn the_socket_lets_others_in() {
    let daemon = Daemon::start("");
    let permission = |daemon: &Daemon| {
        let reply = Lines::connect(&daemon.socket_path()).ask(r#"{"op":"ping"}"#);
        reply["error"].as_str().map(str::to_owned)
    };
    let mut open = Lines::connect(&daemon.socket_path());
    assert_eq!(open.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    reload(&daemon, "[socket]\nmax_line = 1024\n");
    let long = format!("{{\"op\":\"ping\",\"x\":\"{}\"}}", "x".repeat(2000));
    assert_eq!(open.ask(&long)["error"], "line", "also for who is in");
    reload(&daemon, "[socket]\nallow = [\"user:65533\"]\n");
    wait_for("the refusal", || {
        (permission(&daemon).as_deref() == Some("permission")).then_some(())
    });
    reload(&daemon, "");
    wait_for("room", || permission(&daemon).is_none().then_some(()));
}

#[test]
fn files_of_others_and_larger_ones_are_taken() {
    let daemon = Daemon::start("[files]\nmax_bytes = 10\n");
    let write = |name: &str, owner: u32, data: &str| {
        let (file, part) = (daemon.dir().join(name), daemon.root().path().join("part"));
        fs::write(&part, data).unwrap();
        // Without the right to change owners, all files belong to the test's user and are accepted.
        let _ = chown(&part, Some(owner), None);
        fs::rename(part, file).unwrap();
    };
    let told = |text: &str| wait_for("the log", || daemon.log().contains(text).then_some(()));
    write("large.comet", 0, "more than ten bytes");
    told("large.comet");
    write("other.comet", 65533, "other");
    if nix::unistd::geteuid().is_root() {
        told("other.comet");
        assert_eq!(daemon.history("other"), []);
    }
    assert_eq!(daemon.history("large"), []);
    reload(&daemon, "[files]\nallow = [\"user:65533\"]\n");
    wait_for("the file", || {
        write("large.comet", 0, "more than ten bytes");
        (!daemon.history("large").is_empty()).then_some(())
    });
    write("other.comet", 65533, "other");
    wait_for("the file", || {
        let history = daemon.history("other");
        history
            .last()
            .is_some_and(|(_, data)| data == "other")
            .then_some(())
    });
}

#[test]
fn rules_of_sources_change() {
    let daemon = Daemon::start("");
    let publish = |channel: &str| {
        let line = json!({"op": "publish", "channel": channel, "data": "x"});
        Lines::connect(&daemon.socket_path()).ask(&line.to_string())
    };
    assert_eq!(publish("news.a")["ok"], true);
    // A user other than this test's user.
    let closed =
        "[[channel]]\nprefix = \"news.\"\nsocket = [\"user:65533\"]\nfiles = [\"user:65533\"]\n";
    reload(&daemon, closed);
    wait_for("the refusal", || {
        (publish("news.a")["error"] == "forbidden").then_some(())
    });
    assert_eq!(publish("other")["ok"], true);
    reload(&daemon, "");
    wait_for("the right", || {
        (publish("news.a")["ok"] == true).then_some(())
    });
}

#[test]
fn a_mistake_changes_nothing_and_is_named() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let said = reload(&daemon, "[http]\npublish = true\nmax_bodi = 5\n");
    assert!(said.contains("settings stay as they are"), "{said}");
    assert!(said.contains("comet.toml:3:1: http.max_bodi"), "{said}");
    assert_eq!(ask(&daemon, post("/ch/a", "", b"x")).status, 201);

    fs::remove_file(daemon.root().path().join("comet.toml")).unwrap();
    daemon.signal("HUP");
    wait_for("the log", || {
        daemon.log().contains("cannot read").then_some(())
    });
    assert_eq!(ask(&daemon, post("/ch/a", "", b"x")).status, 201);
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    let root = directory();
    let path = |name: &str| root.path().join(name);
    let (log, config) = (path("log"), path("comet.toml"));
    let mut command = serve(root.path());
    command.stderr(File::create(&log).unwrap());
    let served = Served::start(root, command, "");
    let changed = "dir = \"/\"\nlisten = \"127.0.0.2:0\"\nworkers = 7\ndemo = true\n\
                   [socket]\npath = \"/nowhere/comet.sock\"\n[history]\nbytes = 0\n[store]\nrewrite = \"1MiB\"\n";
    fs::write(config, changed).unwrap();
    served.signal("HUP");
    let said = wait_for("the log", || {
        reloads(&fs::read_to_string(&log).unwrap()).pop()
    });
    let named = "for dir, listen, workers, demo, socket.path, store the daemon has to be restarted";
    assert!(said.contains(named), "{said}");
    let mut lines = Lines::connect(&served.path("comet.sock"));
    for _ in 0..2 {
        lines.ask(r#"{"op":"publish","channel":"a","data":"x"}"#);
    }
    let history = lines.ask(r#"{"op":"history","channels":["a"]}"#);
    assert_eq!(
        history["messages"].as_array().unwrap().len(),
        1,
        "the rest holds"
    );
}

#[test]
fn flags_still_beat_the_file() {
    let daemon = Daemon::start("");
    // All three settings come from flags.
    let said = reload(
        &daemon,
        "dir = \"/\"\nlisten = \"127.0.0.2:0\"\n[socket]\npath = \"/nowhere/comet.sock\"\n",
    );
    assert!(said.ends_with("settings read again"), "{said}");
}

#[test]
fn without_a_file_it_ends_the_daemon() {
    let root = directory();
    let path = |name: &str| root.path().join(name);
    let mut command = serve(root.path());
    command.args(["--listen", "127.0.0.1:0"]);
    command.arg("--dir").arg(path("dir"));
    command.arg("--socket").arg(path("comet.sock"));
    let mut child = command.spawn().unwrap();
    wait_for("the socket", || {
        Path::new(&path("comet.sock")).exists().then_some(())
    });
    Lines::connect(&path("comet.sock")).ask(r#"{"op":"ping"}"#);
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Opening a FIFO waits for a writer. Neither the start nor a reload may wait.
#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let daemon = Daemon::start("");
    let root = daemon.root();
    let config = root.path().join("comet.toml");
    let fifo = root.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let key = |secret: &Path| {
        format!("[[auth.key]]\nkid = \"a\"\nalg = \"HS256\"\nsecret_file = {secret:?}\n")
    };
    for (secret, what) in [
        (&*fifo, "a FIFO"),
        (Path::new("/dev/zero"), "a device"),
        (root.path(), "a directory"),
    ] {
        let said = reload(&daemon, &key(secret));
        assert!(said.contains("settings stay as they are"), "{said}");
        assert!(said.contains(what), "{said}");
        let log = Daemon::try_start_in(std::sync::Arc::new(directory()), &key(secret), &[]).err();
        assert!(
            log.as_ref().is_some_and(|log| log.contains(what)),
            "{log:?}"
        );
    }
    fs::remove_file(&config).unwrap();
    fs::rename(&fifo, &config).unwrap();
    let before = reloads(&daemon.log()).len();
    daemon.signal("HUP");
    let said = wait_for("the reload", || reloads(&daemon.log()).get(before).cloned());
    assert!(
        said.contains("it is a FIFO or pipe, not a regular file"),
        "{said}"
    );
    Lines::connect(&daemon.socket_path()).ask(r#"{"op":"ping"}"#);
    for command in ["check", "serve"] {
        let mut comet = daemon.comet(&[command, "--config"]);
        let output = comet.arg(&config).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("not a regular file"), "{errors}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn connections_of_users_who_may_not_connect_any_more_end() {
    let user = nix::unistd::geteuid().as_raw();
    let allow = |user: u32| format!("[socket]\nallow = [\"user:{user}\"]\n");
    let daemon = Daemon::start(&allow(user));
    let mut subscriber = Lines::connect(&daemon.socket_path());
    let subscribed = subscriber.ask(r#"{"op":"subscribe","channels":["a"]}"#);
    assert_eq!(subscribed, json!({"ok": true}));
    let mut publisher = Lines::connect(&daemon.socket_path());
    let publish = r#"{"op":"publish","channel":"a","data":"x"}"#;
    assert_eq!(publisher.ask(publish)["ok"], true);
    assert_eq!(subscriber.read().unwrap()["data"], "x");
    // Users who are still allowed stay connected.
    reload(&daemon, &format!("{}idle = \"4m\"\n", allow(user)));
    assert_eq!(publisher.ask(publish)["ok"], true);
    assert_eq!(subscriber.read().unwrap()["data"], "x");

    reload(&daemon, &allow(user + 1));
    for client in [&mut subscriber, &mut publisher] {
        assert_eq!(client.read().unwrap()["error"], "permission");
        assert!(client.read().is_none());
    }
}

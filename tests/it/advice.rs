//! Messages that propose a setting: `comet check` accepts the proposed setting, and the setting solves the problem.

use std::{fs, os::unix::fs::chown, process::Command, sync::Arc};

use serde_json::Value;

use crate::{
    crowded_socket::{HOLD, Hostile, PUBLISH},
    daemon::{Daemon, directory, feed, wait_for},
    other_user::{STRANGER, is_root, script_of, shared, stranger_runs},
    wire::{WEBSOCKET, ask, get, metric, post, refusal},
};

/// The settings that `message` proposes, as a configuration: `KEY = [VALUES]` or `KEY = true`, and the table that the
/// message names. Empty: the message proposes no setting.
fn proposed(message: &str) -> Option<String> {
    let keys = [
        "origins",
        "hosts",
        "allow",
        "files",
        "socket",
        "publish",
        "max_connections",
        "max_per_user",
    ];
    let setting = keys.iter().find_map(|key| {
        let (_, value) = message.split_once(&format!("{key} = "))?;
        let end = match value.starts_with('[') {
            true => value.find("\"]").map(|end| end + 2),
            false => value.find(' '),
        };
        Some(format!(
            "{key} = {}\n",
            &value[..end.unwrap_or(value.len())]
        ))
    })?;
    let table = ["[http]", "[files]", "[socket]", "[spool]", "[[channel]]"];
    let table = table
        .iter()
        .find(|table| message.contains(&format!("under {table}")))?;
    let prefix = message
        .split_once("prefix = ")
        .map_or(String::new(), |(_, prefix)| {
            let end = prefix[1..].find('"').unwrap() + 2;
            format!("prefix = {}\n", &prefix[..end])
        });
    Some(format!("{table}\n{prefix}{setting}"))
}

/// Checks that `comet check` accepts the proposal of the message. Returns the proposal.
#[track_caller]
fn checked(message: &str) -> Option<String> {
    let config = proposed(message)?;
    assert_taken(&config, message);
    Some(config)
}

#[track_caller]
fn assert_taken(config: &str, message: &str) {
    let root = directory();
    let path = root.path().join("comet.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_comet"));
    command.args(["check", "--config"]).arg(&path);
    command.env("COMET_STORE", root.path().join("store"));
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}\n{config}\n{errors}");
}

const ODD_ORIGINS: [&str; 34] = [
    "https://page.example",
    "https://page.example:443",
    "http://page.example:8080",
    "HTTPS://Page.Example",
    "https://xn--bcher-kva.example",
    "https://a_b.example",
    "https://page.example.",
    "http://[2001:db8::1]:81",
    "http://192.0.2.1",
    "capacitor://localhost",
    "ionic://localhost",
    "app://obsidian.md",
    "app://.",
    "tauri://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "moz-extension://0a1b-2c",
    "file://",
    "vscode-webview://0x",
    "x+y-z.1://host:9",
    "null",
    "",
    "*",
    "https://*.example",
    "https://",
    "https://page.example/",
    "https://page.example/path",
    "https://a@b.example",
    "https://page.example:99999",
    "https://page.example, https://other.example",
    "page.example",
    "bücher://bücher",
    "app://a\"]\nx = [\"b",
    "app://a\\b",
    "app://a'b",
];

#[test]
fn an_origin_that_is_proposed_is_taken_and_helps() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let long = format!("https://{}.example", "x".repeat(400));
    for origin in ODD_ORIGINS.into_iter().chain([&*long]) {
        let line = origin.replace('\n', " ");
        let headers = format!("Origin: {line}\r\n");
        let by_post = ask(&daemon, post("/ch/a", &headers, b"x"));
        let by_websocket = ask(&daemon, get("/ch/a", &(headers.clone() + WEBSOCKET)));
        for answer in [by_post, by_websocket] {
            let (status, code, message) = refusal(&answer);
            assert_eq!((status, &*code), (403, "forbidden"), "{origin}");
            let Some(config) = checked(&message) else {
                let reasons = [
                    "may not publish, and no",
                    "may not read, and no",
                    "can list",
                ];
                assert!(
                    reasons.iter().any(|reason| message.contains(reason)),
                    "{message}"
                );
                continue;
            };
            assert!(!config.contains('*'), "{config}");
            let helped = Daemon::start(&format!("{config}publish = true\n"));
            let answer = ask(&helped, post("/ch/a", &headers, b"x"));
            assert_eq!(answer.status, 201, "{message}: {}", answer.body);
        }
    }
    for listed in ["capacitor://localhost", "file://", "chrome-extension://abc"] {
        let headers = format!("Origin: {listed}\r\n");
        let (.., message) = refusal(&ask(&daemon, post("/ch/a", &headers, b"x")));
        let entry = format!("origins = [{listed:?}] under [http]");
        assert!(message.contains(&entry), "{message}");
    }
}

#[test]
fn a_host_that_is_proposed_is_taken_and_helps() {
    let daemon = Daemon::start("");
    let long = format!("{}.example", "x".repeat(100));
    let longest = "x".repeat(300);
    let hosts = [
        "page.example",
        "page.example:8080",
        "PAGE.example.",
        "a_b",
        "-",
        "1.2.3",
        "1.2.3.4.5",
        &long,
        &longest,
        "",
        ":80",
        ".",
        "..",
        "*",
        "é.example",
        "bücher",
        "a b",
        "[::1",
        "::1",
        "a@b",
        "a\"b",
        "a/b",
        "a:b:c",
        "evil.example#x",
    ];
    for host in hosts {
        for path in ["/ch/a?wait=0", "/ch/%61?wait=0"] {
            let request = get(path, "").replacen("comet.localhost", host, 1);
            let answer = ask(&daemon, &request);
            if answer.status == 400 {
                continue; // no host at all can be read
            }
            let (status, code, message) = refusal(&answer);
            assert_eq!((status, &*code), (421, "host"), "{host}");
            let Some(config) = checked(&message) else {
                let says_so = message.contains("cannot list") || message.contains("names no host");
                assert!(says_so, "{host}: {message}");
                continue;
            };
            assert!(!config.contains('*'), "{host}: {config}");
            let helped = Daemon::start(&config);
            assert_eq!(ask(&helped, request).status, 200, "{message}");
        }
    }
}

#[test]
fn publishing_is_switched_on_as_proposed() {
    let daemon = Daemon::start("");
    let (.., message) = refusal(&ask(&daemon, post("/ch/a", "", b"x")));
    let helped = Daemon::start(&checked(&message).unwrap());
    assert_eq!(ask(&helped, post("/ch/a", "", b"x")).status, 201);
}

/// The log's message about a file that was refused.
fn refused(daemon: &Daemon) -> String {
    wait_for("a refusal", || {
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("refused: "))?;
        Some(line.to_owned())
    })
}

#[test]
fn an_owner_of_files_is_let_in_as_proposed() {
    if !is_root("an_owner_of_files_is_let_in_as_proposed") {
        return;
    }
    let rule = "[[channel]]\nprefix = \"a.+b\"\nfiles = []\n";
    for uid in [STRANGER, 54_321, 4_000_000_000] {
        for (rules, file) in [("", "plain.comet"), (rule, "a.+b.c.comet")] {
            let root = shared();
            let daemon = Daemon::start_in(root.clone(), rules, &[]);
            let path = daemon.dir().join(file);
            let write = |content: &str| {
                let new = root.path().join("new");
                fs::write(&new, content).unwrap();
                chown(&new, Some(uid), Some(uid)).unwrap();
                fs::rename(new, &path).unwrap();
            };
            write("refused");
            let config = checked(&refused(&daemon)).expect("a proposal");
            assert!(daemon.stop().success());
            let daemon = Daemon::start_in(root.clone(), &config, &[]);
            write("taken");
            wait_for("the file", || {
                let channel = file.strip_suffix(".comet").unwrap();
                let told = daemon.history(channel).into_iter();
                told.map(|(_, data)| data).find(|data| data == "taken")
            });
        }
    }
}

#[test]
fn a_publisher_is_let_in_as_proposed() {
    if !is_root("a_publisher_is_let_in_as_proposed") {
        return;
    }
    let line = br#"{"op":"publish","channel":"a.b","data":"x"}"#;
    let publish = |daemon: &Daemon, uid: u32| -> Value {
        let socket = format!("UNIX:{}", daemon.socket_path().display());
        fs::set_permissions(
            daemon.socket_path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        )
        .unwrap();
        let script = format!("exec socat -t30 - {socket}");
        let mut command = script_of(uid, daemon.dir().as_path(), &script);
        serde_json::from_slice(&feed(&mut command, &[line, &b"\n"[..]].concat()).stdout).unwrap()
    };
    for refusing in [
        "[socket]\nallow = [\"user:root\"]\n",
        "[[channel]]\nprefix = \"a.\"\nsocket = []\n",
        "[[channel]]\nprefix = \"\"\nsocket = [\"user:root\"]\n",
    ] {
        for uid in [STRANGER, 54_321] {
            let daemon = Daemon::start_in(shared(), refusing, &[]);
            let reply = publish(&daemon, uid);
            let message = reply["message"]
                .as_str()
                .unwrap_or_else(|| panic!("{reply}"));
            let config = checked(message).expect("a proposal");
            let daemon = Daemon::start_in(shared(), &config, &[]);
            assert_eq!(publish(&daemon, uid)["ok"], true, "{message}");
        }
    }
}

#[test]
fn more_connections_are_let_in_as_proposed() {
    if !is_root("more_connections_are_let_in_as_proposed") {
        return;
    }
    for limits in [
        vec!["max_connections = 8"],
        vec!["max_per_user = 3"],
        vec!["max_connections = 8", "max_per_user = 8"],
    ] {
        let daemon = Daemon::start(&format!("[socket]\n{}\n", limits.join("\n")));
        let (hold, taken) = Hostile::start(&daemon, STRANGER, HOLD, 10);
        let (_program, reply) = Hostile::start(&daemon, STRANGER, PUBLISH, 1);
        drop(hold);
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["error"], "connections", "{reply}");
        let mut config = checked(reply["message"].as_str().unwrap()).expect("a proposal");
        for limit in limits {
            let (key, _) = limit.split_once(' ').unwrap();
            if !config.contains(key) {
                config += &format!("{limit}\n");
            }
        }
        let daemon = Daemon::start(&config);
        let (_hold, more) = Hostile::start(&daemon, STRANGER, HOLD, 10);
        let [taken, more] = [taken, more].map(|number| number.parse::<usize>().unwrap());
        assert!(more > taken, "{config}: {more}");
    }
}

#[test]
fn who_left_a_message_in_the_spool_is_let_in_as_proposed() {
    if !is_root("who_left_a_message_in_the_spool_is_let_in_as_proposed") {
        return;
    }
    for refusing in [
        "[socket]\nallow = [\"user:root\"]\n",
        "[spool]\nallow = [\"user:root\"]\n",
        "[[channel]]\nprefix = \"a.\"\nsocket = []\n",
    ] {
        let root = shared();
        let daemon = Daemon::start_in(root.clone(), refusing, &[]);
        let spool = root.path().join("comet.spool");
        fs::set_permissions(&spool, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let line = r#"{"op":"publish","channel":"a.b","data":"x","key":"k"}"#;
        let leave = format!("echo '{line}' > .new && mv .new 00000000000000000001-0-0.msg1");
        assert!(stranger_runs(&spool, &leave).status.success());
        let message = refused(&daemon);
        let config = checked(&message).expect("a proposal");
        let root: Arc<tempfile::TempDir> = shared();
        let daemon = Daemon::start_in(root.clone(), &config, &[]);
        let spool = root.path().join("comet.spool");
        fs::set_permissions(&spool, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(stranger_runs(&spool, &leave).status.success());
        wait_for("the message", || {
            (metric(&daemon, "comet_published_spool_total") == 1).then_some(())
        });
    }
}

#[test]
fn an_address_that_others_reach_is_served_as_proposed() {
    for before in ["", "[[channel]]\nprefix = \"\"\npublish = \"closed\"\n"] {
        let config = format!("listen = \"0.0.0.0:0\"\n{before}");
        let flags = ["--listen", "0.0.0.0:0"];
        let log = Daemon::try_start_in(Arc::new(directory()), &config, &flags)
            .err()
            .unwrap();
        let shown = log.split("\n\n").nth(1).unwrap_or_else(|| panic!("{log}"));
        let config = format!("{config}{shown}\n");
        assert_taken(&config, &log);
        Daemon::start_in(Arc::new(directory()), &config, &flags);
    }
}

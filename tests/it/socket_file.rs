//! The Unix socket's file: who may open it, who may connect, and which daemon owns it.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use serde_json::json;

use crate::{
    config::Served,
    daemon::{Daemon, Lines, directory, feed, wait_for},
    socket::{connect, publish},
};

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
    // Fills the socket's queue, so that the next connection could only wait.
    let waiting = fill(&path);
    let refused = Daemon::try_start_in(Arc::new(root), "", &[])
        .err()
        .expect("a second daemon");
    assert!(refused.contains("another daemon serves it"), "{refused}");
    drop((listener, waiting));
}

/// Connects until the queue has no more room.
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
        refusal().contains("comet.sock: exists and is not a socket"),
        "{}",
        refusal()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(
        refusal().contains("comet.sock: exists and is not a socket"),
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
    let mut command = Command::new("setpriv");
    command
        .args(user)
        .args(["--clear-groups", "socat", "-t30", "-"]);
    command.arg(format!("UNIX:{}", daemon.socket_path().display()));
    let output = feed(command.stderr(Stdio::null()), line.as_bytes());
    let reply = String::from_utf8(output.stdout).unwrap();
    (reply.starts_with("{\"ok\":true,"), reply)
}

#[test]
fn only_listed_users_and_groups_are_let_in() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: other users cannot be tried");
        return;
    }
    // Numbers, because a machine need not have these users. The group 12345 belongs to no user.
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

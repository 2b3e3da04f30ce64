//! Another user of the machine at the Unix socket: the user takes or locks its path, or publishes to channels that a
//! rule forbids.

use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Lines, feed, wait_for},
    other_user::{STRANGER, is_root, shared},
    wire::metric,
};

/// Runs the daemon as its own user, so that it is not root.
const AS_DAEMON: [&str; 4] = [
    "setpriv",
    "--reuid=54321",
    "--regid=54321",
    "--clear-groups",
];
const DAEMON: u32 = 54321;

/// A directory where everybody may make files, also for the socket.
fn open_to_all() -> Arc<tempfile::TempDir> {
    let root = shared();
    fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
    root
}

fn refusal(program: &[&str], root: &Arc<tempfile::TempDir>) -> String {
    let started = Daemon::try_start_by(program, root.clone(), "", &[]);
    started.err().expect("it may not start")
}

#[test]
fn what_another_user_put_at_the_path_is_neither_followed_nor_removed() {
    if !is_root("what_another_user_put_at_the_path_is_neither_followed_nor_removed") {
        return;
    }
    type Plant = fn(&Path) -> Option<UnixListener>;
    let plants: [(&str, Plant, &str); 6] = [
        (
            "file",
            |path| fs::write(path, "theirs").map(|()| None).unwrap(),
            "exists and is not a socket",
        ),
        (
            "folder",
            |path| fs::create_dir(path).map(|()| None).unwrap(),
            "exists and is not a socket",
        ),
        (
            "link",
            |path| symlink("/etc/passwd", path).map(|()| None).unwrap(),
            "exists and is not a socket",
        ),
        (
            "dangling link",
            |path| symlink("/tmp/none", path).map(|()| None).unwrap(),
            "exists and is not a socket",
        ),
        (
            "served socket",
            |path| UnixListener::bind(path).ok(),
            "a socket of user nobody",
        ),
        (
            "left socket",
            |path| UnixListener::bind(path).map(|_| None).unwrap(),
            "a socket of user nobody",
        ),
    ];
    for (what, plant, reason) in plants {
        for program in [&AS_DAEMON[..], &[]] {
            let by_root = program.is_empty();
            if what == "left socket" && by_root {
                continue; // root may remove what nobody serves
            }
            let root = open_to_all();
            let path = root.path().join("comet.sock");
            let _served = plant(&path);
            lchown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
            if what.ends_with("socket") {
                fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            }
            let before = fs::symlink_metadata(&path).unwrap();
            let log = refusal(program, &root);
            assert!(
                log.contains("comet.sock") && log.contains(reason),
                "{what}: {log}"
            );
            let after = fs::symlink_metadata(&path).unwrap();
            assert_eq!(
                (before.ino(), before.mode()),
                (after.ino(), after.mode()),
                "{what}"
            );
        }
    }
}

#[test]
fn a_directory_where_anybody_may_remove_the_socket_is_refused() {
    let root = shared();
    fs::set_permissions(root.path(), Permissions::from_mode(0o777)).unwrap();
    let log = refusal(&[], &root);
    assert!(log.contains("set the sticky bit (chmod +t)"), "{log}");
    fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    wait_for("the warning", || {
        daemon
            .log()
            .contains("use a directory of your own instead")
            .then_some(())
    });
}

/// Users who may connect may also open the directory, and flock() needs no further right.
#[test]
fn a_lock_on_the_directory_keeps_no_daemon_from_starting() {
    let root = shared();
    let directory = File::open(root.path()).unwrap();
    let lock = nix::fcntl::Flock::lock(directory, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    daemon.publish("news", "hi");
    wait_for("the log", || {
        daemon
            .log()
            .contains("stays locked by another process")
            .then_some(())
    });
    drop(lock);
}

#[test]
fn a_daemon_of_its_own_user_takes_over_what_it_left() {
    if !is_root("a_daemon_of_its_own_user_takes_over_what_it_left") {
        return;
    }
    let root = open_to_all();
    chown(root.path().join("dir"), Some(DAEMON), Some(DAEMON)).unwrap();
    drop(UnixListener::bind(root.path().join("comet.sock")).unwrap());
    chown(root.path().join("comet.sock"), Some(DAEMON), Some(DAEMON)).unwrap();
    let daemon =
        Daemon::try_start_by(&AS_DAEMON, root, "", &[]).unwrap_or_else(|log| panic!("{log}"));
    daemon.publish("news", "hi");
}

/// Sends lines as this user and group. Returns the replies.
pub(crate) fn ask_as(daemon: &Daemon, user: u32, group: u32, lines: &str) -> Vec<Value> {
    fs::set_permissions(daemon.socket_path(), Permissions::from_mode(0o666)).unwrap();
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={group}")]);
    command.args(["--clear-groups", "socat", "-t30", "-"]);
    command.arg(format!("UNIX:{}", daemon.socket_path().display()));
    let output = feed(&mut command, lines.as_bytes());
    let replies = String::from_utf8(output.stdout).unwrap();
    replies
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const RULES: &str = r#"
[[channel]]
prefix = "app."
socket = ["user:54321", "group:12345"]

[[channel]]
prefix = "app.closed."
socket = []

[[channel]]
prefix = "app.open."
socket = ["any"]
"#;

#[test]
fn rules_say_who_publishes_where_over_the_socket() {
    if !is_root("rules_say_who_publishes_where_over_the_socket") {
        return;
    }
    let daemon = Daemon::start_in(shared(), RULES, &[]);
    let channels = ["app.a", "app.closed.a", "app.open.a", "other"];
    let lines: String = channels
        .iter()
        .map(|channel| json!({"op": "publish", "channel": channel, "data": "x"}).to_string() + "\n")
        .collect();
    for (user, group, expected) in [
        (54321, 54321, [true, false, true, true]),
        (STRANGER, 12345, [true, false, true, true]),
        (STRANGER, STRANGER, [false, false, true, true]),
        (0, 0, [false, false, true, true]),
    ] {
        let replies = ask_as(&daemon, user, group, &lines);
        let ok: Vec<bool> = replies.iter().map(|reply| reply["ok"] == true).collect();
        assert_eq!(ok, expected, "{user} {group}: {replies:?}");
        for (reply, channel) in replies
            .iter()
            .zip(channels)
            .filter(|(reply, _)| reply["ok"] == false)
        {
            assert_eq!(reply["error"], "forbidden");
            let message = reply["message"].as_str().unwrap();
            assert!(
                message.contains(&format!(
                    "may not publish to {channel}: socket under [[channel]]"
                )),
                "{message}"
            );
        }
    }
    assert_eq!(daemon.history("app.a").len(), 2);
    assert_eq!(daemon.history("app.closed.a").len(), 0);
    assert_eq!(daemon.history("app.open.a").len(), 4);
    assert_eq!(daemon.history("other").len(), 4);
    assert_eq!(metric(&daemon, "comet_socket_forbidden_total"), 6);
    let log = daemon.log();
    assert_eq!(
        log.matches("user root may not publish to app.a:").count(),
        1,
        "{log}"
    );
}

/// The rule limits publishing only. The connection stays open, and a refused publish does not use up its key.
#[test]
fn who_may_not_publish_may_read_and_goes_on() {
    if !is_root("who_may_not_publish_may_read_and_goes_on") {
        return;
    }
    let daemon = Daemon::start_in(shared(), RULES, &[]);
    let publish =
        json!({"op": "publish", "channel": "app.a", "data": "x", "key": "k"}).to_string() + "\n";
    let mut client = Lines::connect(&daemon.socket_path());
    client.send(&publish);
    assert_eq!(client.read().unwrap()["error"], "forbidden");
    let mine = ask_as(&daemon, 54321, 54321, &publish);
    assert_eq!(mine[0]["ok"], true, "{mine:?}");
    let history = client.ask(r#"{"op":"history","channels":["app.a"]}"#);
    assert_eq!(history["messages"][0]["id"], mine[0]["id"]);

    let output = daemon.comet(&["publish", "app.a", "hi"]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("user root may not publish to app.a"),
        "{said}"
    );
}

#[test]
fn a_second_daemon_of_root_is_told_that_another_users_daemon_serves_the_socket() {
    if !is_root("a_second_daemon_of_root_is_told_that_another_users_daemon_serves_the_socket") {
        return;
    }
    let root = open_to_all();
    let first = Daemon::try_start_by(&AS_DAEMON, root.clone(), "", &[]).unwrap();
    let own_store = root.path().join("second").display().to_string();
    let second = Daemon::try_start_in(root, "", &["--store", &own_store]);
    let log = second.err().expect("it may not start");
    let says = format!("another daemon serves it (it is a socket of user {DAEMON})");
    assert!(log.contains(&says) && !log.contains("remove"), "{log}");
    Lines::connect(&first.socket_path()).ask(r#"{"op":"ping"}"#);
}

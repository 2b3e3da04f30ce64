//! What remains after a restart, a `kill -9`, and a full disk.

use std::{fs, os::unix::fs::FileExt, path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    config::Served,
    daemon::{Daemon, Lines, directory, wait_for},
    wire::{cursor, data, get, parked},
};

const DISK: &str = "[store]\ndurability = \"disk\"\n";

/// The newest segment of the log.
fn segment(root: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(root.join("store")).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

fn kill(daemon: Daemon) -> std::sync::Arc<tempfile::TempDir> {
    let root = daemon.root();
    daemon.signal("KILL");
    drop(daemon); // waits for its end
    root
}

#[test]
fn a_killed_daemon_keeps_what_it_has_acknowledged_and_cursors_stay_good() {
    for config in ["", DISK] {
        let config = format!("[http]\npublish = true\n{config}");
        let daemon = Daemon::start_in(directory().into(), &config, &[]);
        let first = daemon.publish("news", "by socket");
        let answer = daemon.http("POST /ch/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nConnection: close\r\n\r\nby HTTP");
        let second = answer.json()["id"].as_u64().unwrap();
        let root = kill(daemon);
        let daemon = Daemon::start_in(root, &config, &[]);
        let kept = vec![(first, "by socket".into()), (second, "by HTTP".into())];
        assert_eq!(daemon.history("news"), kept, "{config}");
        let answer = daemon.get(&format!("/ch/news?since={first}&wait=0"));
        assert_eq!(data(&answer), ["by HTTP"]);
        assert_eq!(answer.json()["gap"], false);
        assert!(daemon.publish("news", "later") > second);
    }
}

/// What an administrator's `rm -r`, `mv`, or logrotate's copytruncate does to the log of a running daemon.
#[test]
fn a_log_that_somebody_removes_moves_or_cuts_is_written_anew() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("removed", |store| fs::remove_dir_all(store).unwrap()),
        ("moved", |store| {
            fs::rename(store, store.with_extension("away")).unwrap();
        }),
        ("replaced", |store| {
            fs::rename(store, store.with_extension("away")).unwrap();
            fs::create_dir(store).unwrap();
            fs::write(store.join("0000000099.log"), "theirs").unwrap();
        }),
        ("a file removed", |store| {
            fs::remove_file(segment(store.parent().unwrap())).unwrap();
        }),
        ("cut", |store| {
            let file = fs::File::options()
                .write(true)
                .open(segment(store.parent().unwrap()));
            file.unwrap().set_len(0).unwrap();
        }),
    ];
    for (what, harm) in harms {
        for config in ["", DISK] {
            let daemon = Daemon::start_in(directory().into(), config, &[]);
            let first = daemon.publish("news", "before");
            let before = rewrites(&daemon);
            harm(&daemon.root().path().join("store"));
            wait_for("a new base", || (rewrites(&daemon) > before).then_some(()));
            wait_for("a log that is written", || {
                let status = daemon.get("/metrics").body;
                status.contains("comet_store_failing 0").then_some(())
            });
            assert!(daemon.log().contains("removed, moved or cut"), "{what}");
            let second = daemon.publish("news", "after");
            let daemon = Daemon::start_in(kill(daemon), config, &[]);
            let kept = vec![(first, "before".into()), (second, "after".into())];
            assert_eq!(daemon.history("news"), kept, "{what} {config}");
        }
    }
}

/// The daemon ends before it has noticed the change.
#[test]
fn a_log_that_is_removed_just_before_the_end_is_written_anew() {
    let daemon = Daemon::start("");
    let id = daemon.publish("news", "x");
    let root = daemon.root();
    fs::remove_dir_all(root.path().join("store")).unwrap();
    assert!(daemon.stop().success());
    let daemon = Daemon::start_in(root, "", &[]);
    assert_eq!(daemon.history("news"), [(id, "x".into())]);
}

fn rewrites(daemon: &Daemon) -> u64 {
    let output = daemon.comet(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["store"]["rewrites"].as_u64().unwrap()
}

#[test]
fn a_cursor_from_before_is_parked_and_told_what_comes() {
    let daemon = Daemon::start("");
    let id = daemon.publish("news", "x");
    let root = kill(daemon);
    let daemon = Daemon::start_in(root, "", &[]);
    let mut client = parked(&daemon, get(&format!("/ch/news?since={id}"), ""));
    let next = daemon.publish("news", "y");
    let answer = client.answer();
    assert_eq!((cursor(&answer), data(&answer)), (next, vec!["y".into()]));
    assert_eq!(answer.json()["gap"], false);
}

#[test]
fn idempotency_keys_are_remembered_over_a_restart() {
    let publish = json!({"op": "publish", "channel": "a", "data": "once", "key": "k"}).to_string();
    let daemon = Daemon::start("");
    let first = Lines::connect(&daemon.socket_path()).ask(&publish);
    let root = kill(daemon);
    let daemon = Daemon::start_in(root, "", &[]);
    assert_eq!(Lines::connect(&daemon.socket_path()).ask(&publish), first);
    assert_eq!(daemon.history("a").len(), 1);
}

#[test]
fn damage_is_skipped_and_a_torn_end_is_cut_each_with_a_message_and_a_gap() {
    let daemon = Daemon::start("");
    let ids: Vec<u64> = (0..9)
        .map(|i| daemon.publish("a", &i.to_string()))
        .collect();
    let poll = |daemon: &Daemon, since: u64| daemon.get(&format!("/ch/a?since={since}&wait=0"));
    let root = kill(daemon);
    let path = segment(root.path());
    let mut log = fs::read(&path).unwrap();
    let middle = log.len() / 2;
    log[middle] ^= 0xFF;
    fs::write(&path, log).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    let told = daemon.log();
    assert!(told.contains("damaged and were skipped"), "{told}");
    let answer = poll(&daemon, ids[0]);
    assert_eq!(answer.json()["gap"], true);
    assert_eq!(data(&answer).len(), 7);

    let last = cursor(&answer);
    assert_eq!(poll(&daemon, last).json()["gap"], false);
    let root = kill(daemon);
    let path = segment(root.path());
    let log = fs::File::options().append(true).open(&path).unwrap();
    let salt = fs::read(&path).unwrap()[8..16].to_vec();
    let torn = [&salt[..], b"\x02\0half a"].concat();
    std::io::Write::write_all(&mut &log, &torn).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    let told = daemon.log();
    assert!(
        told.contains("the last write was not finished; 16 bytes at"),
        "{told}"
    );
    let answer = poll(&daemon, last);
    assert_eq!(answer.json()["gap"], true);
    assert_eq!(poll(&daemon, cursor(&answer)).json()["gap"], false);
}

/// A log that was cut anywhere has lost acknowledged messages.
#[test]
fn whoever_comes_back_to_a_log_that_was_cut_is_told_of_a_gap() {
    for missing in [1, 20, 40] {
        let daemon = Daemon::start("");
        let ids = ["one", "two", "three"].map(|text| daemon.publish("a", text));
        let root = kill(daemon);
        let path = segment(root.path());
        let log = fs::File::options().write(true).open(&path).unwrap();
        log.set_len(fs::metadata(&path).unwrap().len() - missing)
            .unwrap();
        let daemon = Daemon::start_in(root, "", &[]);
        for id in ids {
            let answer = daemon.get(&format!("/ch/a?since={id}&wait=0")).json();
            assert_eq!(answer["gap"], true, "{missing} bytes are missing, {id}");
        }
    }
}

/// A record of docs/log-format.md with a message to `staff`, as a publisher could forge it with only that document.
fn forged(mark: &[u8]) -> Vec<u8> {
    let id = (u64::MAX / 4).to_le_bytes();
    let body = [&id[..], b"\x05\0staff\0\0\0\0believe me"].concat();
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    let head = [mark, &[2, 0], &length].concat();
    let sum = crc32fast::hash(&[&head[..], &body].concat()).to_le_bytes();
    [&head, &sum[..], &body].concat()
}

#[test]
fn records_inside_a_message_are_not_believed_when_it_is_damaged_or_torn() {
    let data = [forged(b"\xc0\xe7"), forged(b"my guess")].concat();
    let publish = json!({"op": "publish", "channel": "a", "data_base64": STANDARD.encode(&data)});
    let hostile = |daemon: &Daemon| {
        let reply = Lines::connect(&daemon.socket_path()).ask(&publish.to_string());
        assert!(reply["id"].is_u64(), "{reply}");
    };
    let daemon = Daemon::start("");
    let before = daemon.publish("a", "before");
    hostile(&daemon);
    let after = daemon.publish("a", "after");
    let root = kill(daemon);
    let path = segment(root.path());
    let bytes = fs::read(&path).unwrap();
    let place = bytes.windows(data.len()).position(|part| part == data);
    let log = fs::File::options().write(true).open(&path).unwrap();
    log.write_all_at(b"!", place.unwrap() as u64 - 1).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    assert!(daemon.history("staff").is_empty());
    let kept = vec![(before, "before".into()), (after, "after".into())];
    assert_eq!(daemon.history("a"), kept);
    let answer = daemon.get(&format!("/ch/a?since={before}&wait=0")).json();
    assert_eq!(answer["gap"], true);

    hostile(&daemon);
    let root = kill(daemon);
    let path = segment(root.path());
    let log = fs::File::options().write(true).open(&path).unwrap();
    log.set_len(fs::metadata(&path).unwrap().len() - 1).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    assert!(daemon.history("staff").is_empty());
    assert_eq!(daemon.history("a"), kept);
    assert!(daemon.publish("a", "later") < u64::MAX / 4);
}

#[test]
fn a_directory_in_use_or_out_of_reach_is_said_so() {
    let daemon = Daemon::start("");
    let store = daemon.root().path().join("store");
    let refused = |store: &Path| {
        let flags = ["--store", store.to_str().unwrap()];
        let other = Daemon::try_start_in(directory().into(), "", &flags);
        other.err().unwrap()
    };
    let text = refused(&store);
    assert!(
        text.contains("another comet keeps its history in"),
        "{text}"
    );
    let text = refused(Path::new("/proc/nothing/here"));
    assert!(
        text.contains("cannot keep history in /proc/nothing/here"),
        "{text}"
    );
}

#[test]
fn a_daemon_that_keeps_nothing_in_between_is_a_gap() {
    let daemon = Daemon::start("");
    let id = daemon.publish("a", "kept");
    let root = kill(daemon);
    let daemon = Daemon::start_in(root, "[store]\ndurability = \"memory\"\n", &[]);
    daemon.publish("a", "lost");
    let root = kill(daemon);
    let daemon = Daemon::start_in(root, "", &[]);
    let answer = daemon.get(&format!("/ch/a?since={id}&wait=0")).json();
    assert_eq!(answer["gap"], true);
}

#[test]
fn the_log_is_written_anew_when_most_of_it_is_dead() {
    let config = "[history]\nbytes = \"4KiB\"\n[store]\nrewrite = \"64KiB\"\n";
    let daemon = Daemon::start(config);
    let mut lines = Lines::connect(&daemon.socket_path());
    let publish = json!({"op": "publish", "channel": "a", "data": "x".repeat(1000)}).to_string();
    let store = |lines: &mut Lines| lines.ask(r#"{"op":"status"}"#)["store"].clone();
    wait_for("a log written anew", || {
        for _ in 0..100 {
            lines.ask(&publish);
        }
        (store(&mut lines)["rewrites"] != 0).then_some(())
    });
    wait_for("a small log", || {
        (store(&mut lines)["bytes"].as_u64()? < 64 << 10).then_some(())
    });
    let kept = daemon.history("a");
    let root = kill(daemon);
    assert_eq!(Daemon::start_in(root, config, &[]).history("a"), kept);
}

/// Whether the test may mount. Root in a container may lack this right.
pub(crate) fn may_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    let may = tried.is_ok_and(|tried| tried.status.success());
    if !may {
        eprintln!("left out: this user may not mount a small file system");
    }
    may
}

#[test]
fn a_full_disk_is_told_to_publishers_while_subscribers_go_on() {
    if !may_mount() {
        return;
    }
    let root = directory();
    let store = root.path().join("store");
    fs::create_dir(&store).unwrap();
    let mut command = Command::new("unshare");
    command.args([
        "-rm",
        "sh",
        "-c",
        "mount -t tmpfs -o size=256k none \"$0\" && fallocate -l 100k \"$0/filler\" && exec \"$@\"",
    ]);
    command
        .arg(&store)
        .arg(env!("CARGO_BIN_EXE_comet"))
        .arg("serve");
    let daemon = Served::start(root, command, "");
    let mut subscriber = Lines::connect(&daemon.path("comet.sock"));
    subscriber.ask(r#"{"op":"subscribe","channels":["a"]}"#);
    let mut lines = Lines::connect(&daemon.path("comet.sock"));
    let publish = json!({"op": "publish", "channel": "a", "data": "x".repeat(10_000)}).to_string();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let reply = lines.ask(&publish);
        let message = subscriber.read().unwrap();
        match reply["id"].as_u64() {
            Some(id) => acknowledged.push(id),
            None => break (reply, message),
        }
        assert!(acknowledged.len() < 30, "the file system has room for 16");
    };
    assert_eq!(refused.0["error"], "store");
    let text = refused.0["message"].as_str().unwrap();
    assert!(
        text.starts_with("it may reach subscribers, but it is not kept: cannot write "),
        "{text}"
    );
    let delivered = refused.1["id"].as_u64().unwrap();
    assert!(
        delivered > *acknowledged.last().unwrap(),
        "delivered all the same"
    );

    let filler = format!(
        "/proc/{}/root{}",
        daemon.pid(),
        store.join("filler").display()
    );
    fs::remove_file(filler).unwrap();
    let small = json!({"op": "publish", "channel": "a", "data": ""}).to_string();
    wait_for("room again", || {
        lines.ask(&small)["ok"].as_bool()?.then_some(())
    });
    let status = lines.ask(r#"{"op":"status"}"#);
    assert_eq!(status["store"]["error"], json!(null));
}

//! Idempotency keys of several publishers: a key of one user does not block messages of another user. A retry of the
//! same user is recognised, whichever way it arrives.

use std::{fs, os::unix::fs::chown, path::Path};

use serde_json::json;

use crate::{
    crowded_socket::Hostile,
    daemon::{Daemon, wait_for},
    hostile_socket::ask_as,
    other_user::{STRANGER, is_root, shared},
    tokens::{self, bearer, token_of},
    wire::{ask, post},
};

const VICTIM: u32 = 54321;

/// Publishes with this many keys.
const MANY_KEYS: &str = r#"
s = connect()
replies = s.makefile()
for n in range(0, number, 500):
    s.sendall(b''.join(b'{"op":"publish","channel":"a","key":"%d"}\n' % m for m in range(n, n + 500)))
    for _ in range(500): assert '"ok":true' in replies.readline()
done(number)
"#;

fn line(key: &str, data: &str) -> String {
    json!({"op": "publish", "channel": "a", "data": data, "key": key}).to_string() + "\n"
}

/// Writes a message into the spool as a client of this user does.
fn put_into_spool(root: &Path, user: u32, name: &str, line: &str) {
    let spool = root.join("comet.spool");
    let (begun, done) = (spool.join(format!(".{name}")), spool.join(name));
    fs::write(&begun, line).unwrap();
    chown(&begun, Some(user), None).unwrap();
    fs::rename(begun, done).unwrap();
}

fn data(daemon: &Daemon) -> Vec<String> {
    let history = daemon.history("a").into_iter();
    history.map(|(_, data)| data).collect()
}

#[test]
fn a_key_that_another_user_has_used_before_is_no_repetition() {
    if !is_root("a_key_that_another_user_has_used_before_is_no_repetition") {
        return;
    }
    let daemon = Daemon::start("");
    let theirs = ask_as(&daemon, STRANGER, STRANGER, &line("k", "theirs"));
    let mine = ask_as(&daemon, VICTIM, VICTIM, &line("k", "mine"));
    let again = ask_as(&daemon, VICTIM, VICTIM, &line("k", "again"));
    assert_ne!(theirs[0]["id"], mine[0]["id"]);
    assert_eq!(again[0]["id"], mine[0]["id"]);
    assert_eq!(data(&daemon), ["theirs", "mine"]);
}

#[test]
fn a_key_that_another_user_has_read_in_the_spool_suppresses_nothing() {
    if !is_root("a_key_that_another_user_has_read_in_the_spool_suppresses_nothing") {
        return;
    }
    let root = shared();
    let daemon = Daemon::start_in(root.clone(), "", &[]);
    // While the daemon is down, V writes a message, and A writes one that sorts before it and has V's key.
    assert!(daemon.stop().success());
    put_into_spool(root.path(), VICTIM, "1-1-1.msg1", &line("k", "mine"));
    put_into_spool(root.path(), STRANGER, "0-0-0.msg1", &line("k", "theirs"));
    let daemon = Daemon::start_in(root.clone(), "", &[]);
    assert_eq!(data(&daemon), ["theirs", "mine"]);
    // A retry of the same user is recognised, also after a restart, over the socket and from the spool.
    assert!(daemon.stop().success());
    put_into_spool(root.path(), VICTIM, "1-1-2.msg1", &line("k", "again"));
    let daemon = Daemon::start_in(root.clone(), "", &[]);
    let retry = ask_as(&daemon, VICTIM, VICTIM, &line("k", "again"));
    let (mine, _) = daemon.history("a")[1].clone();
    assert_eq!(retry[0]["id"], mine);
    assert_eq!(data(&daemon), ["theirs", "mine"]);
}

#[test]
fn what_came_over_the_socket_is_a_repetition_in_the_same_user_s_spool() {
    if !is_root("what_came_over_the_socket_is_a_repetition_in_the_same_user_s_spool") {
        return;
    }
    let daemon = Daemon::start_in(shared(), "", &[]);
    ask_as(&daemon, VICTIM, VICTIM, &line("k", "first"));
    put_into_spool(
        daemon.root().path(),
        VICTIM,
        "1-1-1.msg1",
        &line("k", "again"),
    );
    put_into_spool(
        daemon.root().path(),
        STRANGER,
        "2-2-2.msg1",
        &line("k", "theirs"),
    );
    wait_for("both files", || (data(&daemon).len() == 2).then_some(()));
    assert_eq!(data(&daemon), ["first", "theirs"]);
}

#[test]
fn one_user_s_many_keys_make_no_retry_of_another_publish_twice() {
    if !is_root("one_user_s_many_keys_make_no_retry_of_another_publish_twice") {
        return;
    }
    let root = shared();
    let daemon = Daemon::start_in(root.clone(), "", &[]);
    let mine = ask_as(&daemon, VICTIM, VICTIM, &line("k", "mine"));
    let (_keys, done) = Hostile::start(&daemon, STRANGER, MANY_KEYS, 70_000);
    assert_eq!(done, "70000");
    let retry = ask_as(&daemon, VICTIM, VICTIM, &line("k", "again"));
    assert_eq!(retry[0]["id"], mine[0]["id"]);
    // The same after a restart.
    assert!(daemon.stop().success());
    let daemon = Daemon::start_in(root, "", &[]);
    let retry = ask_as(&daemon, VICTIM, VICTIM, &line("k", "again"));
    assert_eq!(retry[0]["id"], mine[0]["id"]);
}

#[test]
fn by_http_a_key_belongs_to_the_token_s_subject() {
    let daemon = tokens::start("");
    let publish = |subject: serde_json::Value| {
        let token = token_of(&subject, &json!({"p": ["chat.7"]}));
        let headers = format!("Idempotency-Key: k\r\n{}", bearer(&token));
        let answer = ask(&daemon, post("/ch/chat.7", &headers, b"x"));
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["id"].as_u64().unwrap()
    };
    let subjects = [json!("42"), json!("43"), json!(null)];
    let first: Vec<u64> = subjects.iter().cloned().map(publish).collect();
    assert!(first.is_sorted_by(|a, b| a < b), "three messages");
    let again: Vec<u64> = subjects.iter().cloned().map(publish).collect();
    assert_eq!(again, first);
    // The same subject in another JSON type, as PHP may write it.
    assert_eq!(publish(json!(42)), first[0]);
}

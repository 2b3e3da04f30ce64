//! One publisher that uses up what the Unix socket has: connections, time and memory. Another publisher and
//! `comet status` still work.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Lines, wait_for},
    other_user::{STRANGER, is_root},
    wire::metric,
};

/// The user of the publisher that must still work.
const VICTIM: u32 = 54321;

/// The common beginning of the programs below. `argv` has the socket's path and a number of connections. Each program
/// prints one line when it has done its work, and runs until its standard input ends.
const BEGIN: &str = r#"
import os, resource, select, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
path, number = sys.argv[1], int(sys.argv[2])
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s
def done(what):
    print(what, flush=True)
    sys.stdin.read()
"#;

/// Sends small publishes on all connections without pause, and reads the answers.
const FLOOD: &str = r#"
batch = b'{"op":"publish","channel":"flood","data":"x"}\n' * 1500
open = [connect() for _ in range(number)]
rest = {s: batch for s in open}
for s in open: s.setblocking(False)
told = False
while True:
    readable, writable, _ = select.select(open + [sys.stdin], open, [])
    if sys.stdin in readable: break
    for s in readable: s.recv(1 << 20)
    for s in writable:
        try: rest[s] = rest[s][s.send(rest[s]):] or batch
        except BlockingIOError: pass
    if not told: print("floods", flush=True)
    told = True
"#;

/// Connects, subscribes, and counts the connections that were not refused.
pub(crate) const HOLD: &str = r#"
open = [connect() for _ in range(number)]
taken = 0
for s in open:
    try: s.sendall(b'{"op":"subscribe","channels":["a"]}\n')
    except BrokenPipeError: pass
    taken += b'"ok":true' in s.recv(4096)
done(taken)
"#;

/// Connects again and again, and keeps the refused connections.
const KNOCK: &str = r#"
open = [connect() for _ in range(number)]
done(number)
"#;

/// Publishes, and prints the reply.
pub(crate) const PUBLISH: &str = r#"
s = connect()
try: s.sendall(b'{"op":"publish","channel":"quiet","data":"hi"}\n')
except BrokenPipeError: pass
done(s.recv(4096).decode().strip())
"#;

/// Sends the beginning of a long line on each connection, as much as the daemon accepts, and never the end.
const HALF_A_LINE: &str = r#"
open = [connect() for _ in range(number)]
line = b'{"op":"publish","channel":"a","data":"' + b'x' * 1000000
for s in open:
    s.setblocking(False)
    rest = line
    for _ in range(200):
        try: rest = rest[s.send(rest):]
        except BlockingIOError: select.select([], [s], [], 0.001)
done("sent")
"#;

/// Publishes a long line on all connections at once, and prints how many were accepted.
const LONG_LINES: &str = r#"
import threading
taken = []
def publish():
    s = connect()
    s.sendall(b'{"op":"publish","channel":"long","data":"' + b'x' * 1000000 + b'"}\n')
    if b'"ok":true' in s.recv(4096): taken.append(s)
threads = [threading.Thread(target=publish) for _ in range(number)]
for t in threads: t.start()
for t in threads: t.join()
done(len(taken))
"#;

/// A program of another user that uses the socket. It is ended when this value is dropped.
pub(crate) struct Hostile {
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Hostile {
    /// Starts the program. Returns it with the line that it prints.
    pub(crate) fn start(
        daemon: &Daemon,
        user: u32,
        program: &str,
        connections: usize,
    ) -> (Self, String) {
        open_to_all(daemon);
        let mut command = Command::new("python3");
        command.args(["-c", &format!("{BEGIN}{program}")]);
        command
            .arg(daemon.socket_path())
            .arg(connections.to_string());
        command.uid(user).gid(user);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let program = Self {
            child,
            _stdout: stdout,
        };
        (program, line.trim().to_owned())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the socket to all users, as the members of the group have it in a real set-up.
fn open_to_all(daemon: &Daemon) {
    fs::set_permissions(daemon.socket_path(), Permissions::from_mode(0o666)).unwrap();
}

/// Publishes as the other publisher on a new connection. Returns the reply.
fn victim_publishes(daemon: &Daemon) -> Value {
    let (_program, reply) = Hostile::start(daemon, VICTIM, PUBLISH, 1);
    serde_json::from_str(&reply).unwrap_or_else(|e| panic!("{e}: {reply:?}"))
}

fn published(client: &mut Lines) -> u64 {
    let status = client.ask(r#"{"op":"status"}"#);
    status["hub"]["published"].as_u64().unwrap()
}

/// Checks that at most `most` messages of a flood are published before another connection gets its answer. This measure
/// of waiting does not depend on the machine's speed.
fn is_served_between_small_turns(daemon: &Daemon, most: u64) {
    for _ in 0..10 {
        // Each request has a new connection.
        let mut client = Lines::connect(&daemon.socket_path());
        let before = published(&mut client);
        let reply = client.ask(r#"{"op":"publish","channel":"quiet","data":"x"}"#);
        assert_eq!(reply["ok"], true, "{reply}");
        let between = published(&mut client) - before;
        assert!(between < most, "{between} publishes of the flood first");
    }
}

#[test]
fn a_flood_on_many_connections_leaves_turns_for_other_users() {
    if !is_root("a_flood_on_many_connections_leaves_turns_for_other_users") {
        return;
    }
    let daemon = Daemon::start("");
    let (_flood, said) = Hostile::start(&daemon, STRANGER, FLOOD, 200);
    assert_eq!(said, "floods");
    // Each of 200 connections has about 1,500 lines in its buffers: 300,000 lines in one round.
    is_served_between_small_turns(&daemon, 20_000);
    assert_eq!(victim_publishes(&daemon)["ok"], true);
    // The client library's time-out is half a second.
    for _ in 0..10 {
        let output = daemon.comet(&["publish", "quiet", "x"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_flood_of_the_same_user_leaves_turns_for_its_other_connections() {
    let daemon = Daemon::start("");
    let user = nix::unistd::geteuid().as_raw();
    let (_flood, said) = Hostile::start(&daemon, user, FLOOD, 200);
    assert_eq!(said, "floods");
    is_served_between_small_turns(&daemon, 20_000);
}

#[test]
fn one_user_has_its_share_of_the_places_and_the_last_ones_are_root_s() {
    if !is_root("one_user_has_its_share_of_the_places_and_the_last_ones_are_root_s") {
        return;
    }
    let daemon = Daemon::start("");
    let (_first, taken) = Hostile::start(&daemon, STRANGER, HOLD, 1100);
    assert_eq!(taken, "512");
    assert_eq!(victim_publishes(&daemon)["ok"], true);
    let log = daemon.log();
    assert_eq!(
        log.matches("max_per_user = 1024 under [socket]").count(),
        1,
        "{log}"
    );

    // A second hostile user takes all connections that are left for others. Those reserved for root stay free.
    let (second, taken) = Hostile::start(&daemon, STRANGER - 1, HOLD, 1100);
    assert_eq!(taken, "496");
    assert_eq!(victim_publishes(&daemon)["error"], "connections");
    let status = daemon.comet(&["status"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    daemon.publish("a", "of root");

    drop(second);
    wait_for("a place", || {
        (victim_publishes(&daemon)["ok"] == true).then_some(())
    });
}

#[test]
fn the_share_of_a_user_can_be_set() {
    if !is_root("the_share_of_a_user_can_be_set") {
        return;
    }
    let daemon = Daemon::start("[socket]\nmax_per_user = 3\n");
    let (hold, taken) = Hostile::start(&daemon, STRANGER, HOLD, 10);
    assert_eq!(taken, "3");
    drop(hold);
    // Root's connections have no such limit.
    let mut roots: Vec<Lines> = (0..10)
        .map(|_| Lines::connect(&daemon.socket_path()))
        .collect();
    for client in &mut roots {
        assert_eq!(client.ask(r#"{"op":"ping"}"#), json!({"ok": true}));
    }
}

/// Connects without waiting until the queue is full.
const QUEUE: &str = r#"
open = []
while len(open) < number:
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    try: s.connect(path)
    except BlockingIOError: break
    open.append(s)
done(len(open))
"#;

#[test]
fn few_connections_wait_before_another_users() {
    if !is_root("few_connections_wait_before_another_users") {
        return;
    }
    let daemon = Daemon::start("[socket]\nallow = [\"user:0\", \"user:54321\"]\n");
    // The daemon shortens the queue before it accepts the first connection, which may be after it says that it is ready.
    assert_eq!(victim_publishes(&daemon)["ok"], true);
    daemon.signal("STOP");
    let (_queue, waiting) = Hostile::start(&daemon, STRANGER, QUEUE, 5000);
    daemon.signal("CONT");
    let waiting: usize = waiting.parse().unwrap();
    assert!(waiting < 500, "{waiting} connections wait before others");
    assert_eq!(victim_publishes(&daemon)["ok"], true);
}

#[test]
fn users_who_may_not_connect_hold_no_places() {
    if !is_root("users_who_may_not_connect_hold_no_places") {
        return;
    }
    let daemon =
        Daemon::start("[socket]\nallow = [\"user:0\", \"user:54321\"]\nmax_connections = 100\n");
    let (_knock, _) = Hostile::start(&daemon, STRANGER, KNOCK, 1100);
    // No connection is left to be accepted, and the clients still hold their ends.
    wait_for("all refusals", || {
        (metric(&daemon, "comet_socket_refused_total") == 1100).then_some(())
    });
    for _ in 0..20 {
        daemon.publish("a", "of root");
    }
    assert_eq!(victim_publishes(&daemon)["ok"], true);
    let log = daemon.log();
    assert_eq!(log.matches("may not connect").count(), 1, "{log}");
}

/// Checks how much memory the daemon needs beyond what it needs for `connections` that read nothing.
fn grows_at_most(daemon: &Daemon, before: usize, bytes: usize) {
    let grown = daemon.memory("VmRSS").saturating_sub(before);
    assert!(grown < bytes, "{grown} bytes more");
}

/// Sends a request and waits until its reply has begun. The reply is never read.
fn asks_and_reads_nothing(daemon: &Daemon, request: &str) -> Lines {
    let mut client = Lines::connect(&daemon.socket_path());
    client.send(format!("{request}\n"));
    assert!(client.has_something());
    client
}

const ROOMY: &str = "[history]\ntotal = \"32MiB\"\nbytes = \"32MiB\"\nmessages = 100000\n";

#[test]
fn histories_that_nobody_reads_hold_no_messages_that_are_gone() {
    let daemon = Daemon::start(ROOMY);
    let data = "x".repeat(500_000);
    let fill = |channel: &str| (0..70).for_each(|_| _ = daemon.publish(channel, &data));
    fill("c");
    let before = daemon.memory("VmRSS");
    let mut slow: Vec<Lines> = Vec::new();
    for round in 0..6 {
        let channel = format!("c{round}");
        fill(&channel);
        let ask = json!({"op": "history", "channels": [channel]}).to_string();
        slow.push(asks_and_reads_nothing(&daemon, &ask));
    }
    fill("last");
    grows_at_most(&daemon, before, 48 << 20);
    // The first reply has the messages that were read before their removal. Its gap says that there were more.
    let reply = slow[0].read().unwrap();
    assert_eq!((&reply["ok"], &reply["gap"]), (&json!(true), &json!(true)));
    let kept = daemon.history("last");
    assert!(kept.len() > 50, "{}", kept.len());
}

#[test]
fn a_history_that_escapes_to_six_times_its_size_is_rendered_in_pieces() {
    let daemon = Daemon::start("");
    daemon.publish("a", &"\u{1}".repeat(160_000));
    let before = daemon.memory("VmRSS");
    let asks = [
        r#"{"op":"history","channels":["a"]}"#,
        r#"{"op":"subscribe","channels":["a"],"since":0}"#,
    ];
    let mut slow: Vec<Lines> = (0..300)
        .map(|n| asks_and_reads_nothing(&daemon, asks[n % 2]))
        .collect();
    // Complete replies would need a megabyte each.
    grows_at_most(&daemon, before, 150 << 20);
    let reply = slow[0].read().unwrap();
    let data = reply["messages"][0]["data"].as_str().unwrap();
    assert_eq!(data.len(), 160_000);
    assert_eq!(slow[1].read().unwrap(), json!({"ok": true}));
    assert_eq!(
        slow[1].read().unwrap()["data"].as_str().unwrap().len(),
        160_000
    );
}

#[test]
fn long_lines_that_are_half_sent_take_little_memory_and_hold_up_nobody_else() {
    if !is_root("long_lines_that_are_half_sent_take_little_memory_and_hold_up_nobody_else") {
        return;
    }
    // With this memory, each user may have four long lines.
    let daemon = Daemon::start("[http]\nmax_memory = \"8MiB\"\n[history]\ntotal = \"4MiB\"\n");
    let before = daemon.memory("VmRSS");
    let (half, _) = Hostile::start(&daemon, STRANGER, HALF_A_LINE, 200);
    grows_at_most(&daemon, before, 60 << 20);
    let (_program, taken) = Hostile::start(&daemon, VICTIM, LONG_LINES, 40);
    assert_eq!(taken, "40", "of another user");
    grows_at_most(&daemon, before, 80 << 20);
    assert_eq!(victim_publishes(&daemon)["ok"], true);
    // Small lines of the same user do not wait either.
    let (_program, reply) = Hostile::start(&daemon, STRANGER, PUBLISH, 1);
    assert!(reply.contains("\"ok\":true"), "{reply}");
    drop(half);
    let (_program, taken) = Hostile::start(&daemon, STRANGER, LONG_LINES, 40);
    assert_eq!(taken, "40", "when the others have gone");
}

/// A reply never arrives inside a large message.
#[test]
fn requests_of_a_subscriber_are_answered_between_large_messages() {
    let daemon = Daemon::start("");
    let text = "\u{1}".repeat(150_000);
    for _ in 0..5 {
        daemon.publish("a", &text);
    }
    let mut client = Lines::connect(&daemon.socket_path());
    client.send("{\"op\":\"subscribe\",\"channels\":[\"a\"],\"since\":0}\n");
    assert!(client.has_something());
    client.send("{\"op\":\"ping\"}\n".repeat(20));
    let (mut messages, mut replies) = (0, 0);
    while messages < 5 || replies < 21 {
        let line = client.read().unwrap();
        match line["ok"] == true {
            true => replies += 1,
            false => {
                assert_eq!(line["data"], text);
                messages += 1;
            }
        }
    }
}

#[test]
fn a_history_of_many_channels_comes_in_order_and_without_a_gap() {
    let daemon = Daemon::start(ROOMY);
    let mut client = Lines::connect(&daemon.socket_path());
    // The history needs more than one read. The channels are filled one after the other, the last one last.
    for channel in 0..20 {
        for n in 0..10 {
            let data = format!("{n}{}", "x".repeat(10_000));
            let publish = json!({"op": "publish", "channel": format!("c{channel}"), "data": data});
            assert_eq!(client.ask(&publish.to_string())["ok"], true);
        }
    }
    let channels: Vec<String> = (0..100).map(|n| format!("c{}", 99 - n)).collect();
    let reply = client.ask(&json!({"op": "history", "channels": channels}).to_string());
    assert_eq!(reply["gap"], false);
    let ids = reply["messages"].as_array().unwrap().iter();
    let ids: Vec<u64> = ids.map(|m| m["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), 200);
    assert!(ids.is_sorted());
    assert_eq!(reply["cursor"], ids[199].to_string());
}

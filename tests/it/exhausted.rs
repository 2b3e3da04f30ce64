//! Clients that read nothing, and a machine without free descriptors: the log reports it clearly, a figure counts it,
//! and the daemon recovers afterwards.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::{
    daemon::{Daemon, Http, Lines, directory, signal, wait_for},
    other_user::is_root,
    wire::{WEBSOCKET, data, descriptors, get, metric, parked, wait_for_subscribers},
};

/// On every transport. Meanwhile another client that reads gets each message at once.
#[test]
fn who_takes_nothing_is_cut_on_every_transport() {
    let daemon = Daemon::start("workers = 1\n[http]\nwrite_time = \"300ms\"\n");
    let transports = [
        get("/ch/a?as=sse", ""),
        get("/ch/a?as=iframe&callback=f", ""),
        get("/ch/a", WEBSOCKET),
        get("/ch/a?as=sse", "").replace("HTTP/1.1", "HTTP/1.0"),
        get("/ch/a?since=1", "").repeat(500), // polls, one behind the other
    ];
    let text = "x".repeat(60_000);
    daemon.publish("a", &text);
    for request in transports {
        let mut slow = Http::connect(daemon.addr());
        slow.send(&request);
        let before = metric(&daemon, "comet_http_connections");
        let mut n = 0;
        // The client's socket accepts some hundred kilobytes. Then the client has 300 ms.
        wait_for("the cut", || {
            let mut reader = next_poll(&daemon);
            daemon.publish("a", &format!("{n} {text}"));
            assert!(data(&reader.answer())[0].starts_with(&format!("{n} ")));
            n += 1;
            drop(reader);
            (metric(&daemon, "comet_http_connections") < before).then_some(())
        });
        drop(slow);
    }
    wait_for_subscribers(&daemon, 0);
}

/// A poll that waits for the next message.
fn next_poll(daemon: &Daemon) -> Http {
    let since = daemon.history("a").last().unwrap().0;
    let mut client = Http::connect(daemon.addr());
    client.send(get(&format!("/ch/a?since={since}"), ""));
    client
}

fn limit(daemon: &Daemon, files: &str) {
    let pid = daemon.pid().to_string();
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--nofile={files}:")])
        .status();
    assert!(set.unwrap().success());
}

/// Files, the socket, the log and open connections, without any free descriptor.
#[test]
fn without_descriptors_nothing_is_lost() {
    // With one worker, the waiting poll shows that all threads have opened what they need.
    let daemon = Daemon::start("workers = 1\n");
    let mut waits = parked(&daemon, get("/ch/a", ""));
    let mut publisher = Lines::connect(&daemon.socket_path());
    assert_eq!(publisher.ask("{\"op\":\"ping\"}")["ok"], true);
    let before = descriptors(&daemon);
    limit(&daemon, "3");

    // Existing connections and waiting clients continue.
    let published =
        publisher.ask("{\"op\":\"publish\",\"channel\":\"a\",\"data\":\"by the socket\"}");
    assert_eq!(published["ok"], true, "{published}");
    assert_eq!(data(&waits.answer()), ["by the socket"]);
    // Work that needs a descriptor waits: a file with content, and a new publisher.
    fs::write(daemon.dir().join("file.comet"), "by a file").unwrap();
    let mut late = Lines::connect(&daemon.socket_path());
    late.send("{\"op\":\"publish\",\"channel\":\"a\",\"data\":\"late\"}\n");
    wait_for("pauses", || {
        let status = publisher.ask("{\"op\":\"status\"}");
        let pauses = status["metrics"]["socket_accept_pauses"].as_u64();
        (pauses.unwrap() > 2).then_some(())
    });
    let log = daemon.log();
    assert_eq!(
        log.matches("cannot accept socket connections").count(),
        1,
        "{log}"
    );

    limit(&daemon, "20000");
    assert_eq!(late.read().unwrap()["ok"], true);
    wait_for("the file", || {
        daemon
            .history("file")
            .iter()
            .any(|(_, data)| data == "by a file")
            .then_some(())
    });
    let told: Vec<String> = daemon
        .history("a")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert_eq!(told, ["by the socket", "late"]);
    drop((waits, late, publisher));
    wait_for("its descriptors", || {
        (descriptors(&daemon) <= before).then_some(())
    });
}

/// A user without any process.
const LONELY: u32 = 54_322;

#[test]
fn without_threads_the_daemon_says_what_it_needs() {
    if !is_root("without_threads_the_daemon_says_what_it_needs") {
        return;
    }
    let mut served = false;
    for processes in 1.. {
        let root = directory();
        std::os::unix::fs::chown(root.path(), Some(LONELY), Some(LONELY)).unwrap();
        std::os::unix::fs::chown(root.path().join("dir"), Some(LONELY), Some(LONELY)).unwrap();
        // Other users may not be allowed to read the build directory.
        let comet = root.path().join("comet");
        fs::copy(env!("CARGO_BIN_EXE_comet"), &comet).unwrap();
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={processes}")).arg(&comet);
        command.args(["serve", "--listen", "127.0.0.1:0", "--dir", "dir"]);
        command.args(["--socket", "comet.sock", "--store", "store"]);
        command.current_dir(root.path()).uid(LONELY).gid(LONELY);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        if !ready.is_empty() {
            signal(&child, "TERM");
        }
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!log.contains("backtrace"), "{processes} processes: {log}");
        if served {
            break; // the first that served may have done without a watcher of the spool
        }
        served = !ready.is_empty();
        let advice = "raise the limit of processes";
        assert!(
            served || log.contains(advice),
            "{processes} processes: {log}"
        );
    }
}

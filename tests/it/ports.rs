//! What all protocols with a port of their own have in common: settings, limits, figures.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use crate::{
    cli::run,
    daemon::{Daemon, PATIENCE, directory, wait_for},
    reload::reload,
    wire::metric,
};

const MEMCACHED: &str = "[compat.memcached]\nlisten = \"127.0.0.1:0\"\n";

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends commands, and reads all replies until the daemon closes.
pub(crate) fn talk(addr: SocketAddr, commands: impl AsRef<[u8]>) -> String {
    let mut stream = connect(addr);
    stream.write_all(commands.as_ref()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    String::from_utf8_lossy(&replies).into_owned()
}

fn refused(config: &str) -> String {
    let refused = Daemon::try_start_in(directory().into(), config, &[]);
    refused.map(|_| ()).unwrap_err()
}

#[test]
fn the_first_line_and_the_status_name_the_port() {
    let daemon = Daemon::start(MEMCACHED);
    let addr = daemon.port("memcached").to_string();
    let (_, status, _) = run(daemon.comet(&["status"]));
    assert!(status.contains("ports\n  memcached"), "{status}");
    assert!(status.contains(&addr), "{status}");
    let (_, without, _) = run(Daemon::start("").comet(&["status"]));
    assert!(!without.contains("ports\n"), "{without}");
}

#[test]
fn connections_and_publishes_are_counted_by_protocol() {
    let daemon = Daemon::start(MEMCACHED);
    let figure = |name: &str| metric(&daemon, &format!("{name}{{protocol=\"memcached\"}}"));
    let mut client = connect(daemon.port("memcached"));
    client.write_all(b"set news 0 0 2\r\nhi\r\n").unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(figure("comet_port_connections"), 1);
    assert_eq!(figure("comet_port_published_total"), 1);
    let (_, status, _) = run(daemon.comet(&["status"]));
    assert!(status.contains("memcached published       1\n"), "{status}");
    drop(client);
    wait_for("the end of the connection", || {
        (figure("comet_port_connections") == 0).then_some(())
    });
}

#[test]
fn a_connection_over_the_limit_is_told_why() {
    let daemon = Daemon::start(&format!("{MEMCACHED}max_connections = 1\n"));
    let addr = daemon.port("memcached");
    let mut first = connect(addr);
    first.write_all(b"verbosity 1\r\n").unwrap();
    first.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(
        talk(addr, ""),
        "SERVER_ERROR limit of 1 connections, see max_connections\r\n"
    );
    wait_for("the line in the log", || {
        let line = "the port of memcached was refused";
        daemon.log().contains(line).then_some(())
    });
    drop(first);
    wait_for("room", || {
        (talk(addr, "verbosity 1\r\n") == "OK\r\n").then_some(())
    });
    // The limit of all connections counts, too.
    let daemon = Daemon::start(&format!("[http]\nmax_connections = 1\n{MEMCACHED}"));
    let _first = connect(daemon.port("memcached"));
    wait_for("the refusal", || {
        talk(daemon.port("memcached"), "")
            .contains("of the whole daemon")
            .then_some(())
    });
}

#[test]
fn a_client_that_is_silent_is_disconnected() {
    let daemon = Daemon::start(&format!("{MEMCACHED}idle = \"100ms\"\n"));
    let mut client = connect(daemon.port("memcached"));
    client.write_all(b"verbosity 1\r\n").unwrap();
    let mut replies = String::new();
    client.read_to_string(&mut replies).unwrap();
    assert_eq!(replies, "OK\r\n");
}

#[test]
fn a_client_that_never_reads_is_cut() {
    let daemon = Daemon::start(&format!("[http]\nwrite_time = \"200ms\"\n{MEMCACHED}"));
    let mut client = connect(daemon.port("memcached"));
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    // The daemon stops reading when the client's and its own buffers are full of replies.
    let commands = "stats\r\n".repeat(10_000);
    while client.write_all(commands.as_bytes()).is_ok() {}
    wait_for("the end of the connection", || {
        let open = metric(&daemon, "comet_port_connections{protocol=\"memcached\"}");
        (open == 0).then_some(())
    });
    let others = talk(daemon.port("memcached"), "verbosity 1\r\n");
    assert_eq!(others, "OK\r\n");
}

#[test]
fn an_open_port_needs_a_key_and_each_protocol_its_own_port() {
    let open = refused("[compat.memcached]\nlisten = \"0.0.0.0:0\"\n");
    assert!(
        open.contains("compat.memcached.listen: 0.0.0.0:0 is not a loopback address"),
        "{open}"
    );
    assert!(open.contains("set a key in the same table"), "{open}");
    Daemon::start("[compat.memcached]\nlisten = \"0.0.0.0:0\"\nkey = \"secret\"\n");
    let equal = "listen = \"127.0.0.1:2061\"\n[compat.memcached]\nlisten = \"127.0.0.1:2061\"\n";
    let root = directory();
    let path = root.path().join("comet.toml");
    std::fs::write(&path, equal).unwrap();
    let check = crate::cli::comet(&["check", "--config", path.to_str().unwrap()]);
    let (exit, _, text) = run(check);
    assert_eq!(exit, Some(1));
    assert!(
        text.contains("compat.memcached.listen (127.0.0.1:2061) is the same port as listen"),
        "{text}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let log = refused(&format!("[compat.memcached]\nlisten = \"{addr}\"\n"));
    assert!(
        log.contains(&format!(
            "the port of memcached cannot be opened: cannot listen on {addr}: another program"
        )),
        "{log}"
    );
}

#[test]
fn a_changed_table_needs_a_restart() {
    let daemon = Daemon::start(MEMCACHED);
    let log = reload(&daemon, &format!("{MEMCACHED}key = \"secret\"\n"));
    assert!(
        log.contains("for compat.memcached the daemon has to be restarted"),
        "{log}"
    );
    assert_eq!(talk(daemon.port("memcached"), "verbosity 1\r\n"), "OK\r\n");
}

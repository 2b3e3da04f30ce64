//! Actions of clients write at most one line a minute into the log.

use crate::{
    daemon::{Daemon, Http, wait_for},
    http2_hostile::reset_rapidly,
    wire::{ask, get, metric},
};

const TIMES: u64 = 50;

#[test]
fn broken_http2_connections_write_a_line_a_minute() {
    let daemon = Daemon::start("workers = 2");
    for _ in 0..TIMES {
        reset_rapidly(&daemon);
    }
    wait_for("all ends", || {
        (metric(&daemon, "comet_http2_broken_total") == TIMES).then_some(())
    });
    let log = daemon.log();
    let told = log
        .lines()
        .filter(|line| line.contains("HTTP/2 client"))
        .count();
    assert_eq!(told, 1, "{log}");
    // There is no other line about it, also none of a library.
    assert!(!log.contains("h2::"), "{log}");
    assert!(log.lines().count() < 10, "{log}");
}

#[test]
fn connections_at_the_limit_write_a_line_a_minute() {
    let daemon = Daemon::start("workers = 1\n[http]\nmax_connections = 4\n");
    let mut control = Http::connect(daemon.addr());
    let mut are_open = |count: u32| {
        wait_for("connections", || {
            control.get("/metrics");
            let line = format!("\ncomet_http_connections {count}\n");
            control.answer().body.contains(&line).then_some(())
        });
    };
    for _ in 0..TIMES {
        let held: Vec<Http> = (0..3).map(|_| Http::connect(daemon.addr())).collect();
        are_open(4);
        // Sends a request, because the refusal waits for a request.
        assert_eq!(ask(&daemon, get("/ch/a", "")).status, 503);
        drop(held);
        are_open(1); // at the next connection the trouble is over
    }
    let log = daemon.log();
    let told = log
        .lines()
        .filter(|line| line.contains("which is the limit"));
    assert_eq!(told.count(), 1, "{log}");
    assert!(metric(&daemon, "comet_http_refused_total") >= TIMES);
}

/// The log level applies to the daemon only. A library's level is set by its name.
#[test]
fn libraries_say_errors_alone_unless_they_are_named() {
    for (setting, is_said) in [
        ("debug", false),
        ("info,h2=debug", true),
        ("trace,h2=warn", true),
    ] {
        let root = std::sync::Arc::new(crate::daemon::directory());
        let variable = format!("COMET_LOG={setting}");
        let program = ["env", &*variable];
        let daemon = Daemon::try_start_by(&program, root, "", &[]).unwrap();
        reset_rapidly(&daemon);
        wait_for("the end", || {
            daemon.log().contains("HTTP/2 client").then_some(())
        });
        assert_eq!(
            daemon.log().contains("h2::"),
            is_said,
            "{setting}: {}",
            daemon.log()
        );
    }
}

//! What the daemon tells its service manager: its state, the watchdog, and lines for the journal.

use std::{
    fs::{self, File},
    io::Read,
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    process::{ChildStderr, Command, Stdio},
    thread,
};

use crate::{
    daemon::{Http, Lines, PATIENCE, directory, serve, wait_for},
    service::{Service, ServiceManager},
};

#[test]
fn the_manager_is_notified_of_start_reload_and_stop() {
    let manager = ServiceManager::new("");
    let service = manager.start();
    let ready = service.ready.strip_prefix("comet: ").unwrap().trim_end();
    assert_eq!(manager.notice(), format!("READY=1\nSTATUS={ready}"));

    service.signal("HUP");
    let reloading = manager.notice();
    let time = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap();
    assert!(time.parse::<u64>().unwrap() > 0);
    let done = format!("READY=1\nSTATUS=settings read again; {ready}");
    assert_eq!(manager.notice(), done);

    fs::write(manager.path("comet.toml"), "x").unwrap();
    service.signal("HUP");
    assert!(manager.notice().starts_with("RELOADING=1\n"));
    let kept = "READY=1\nSTATUS=settings have a mistake and stay as they are";
    assert!(manager.notice().starts_with(kept));

    service.stop();
    assert_eq!(manager.notice(), "STOPPING=1\nSTATUS=stopping");
}

#[test]
fn a_missing_or_blocked_manager_does_not_delay_the_daemon() {
    let manager = ServiceManager::new("");
    let mut command = manager.command();
    command.env("NOTIFY_SOCKET", manager.path("nothing-here"));
    Service::start(command).unwrap().stop();
    assert!(
        manager
            .log()
            .contains("cannot notify the service manager (NOTIFY_SOCKET)")
    );

    let mut command = manager.command();
    command.env("WATCHDOG_USEC", "40000");
    let service = Service::start(command).unwrap();
    // No program reads the notices, so the socket becomes full after some of them.
    wait_for("the log", || {
        manager
            .log()
            .contains("cannot notify the service manager of")
            .then_some(())
    });
    let mut lines = Lines::connect(&manager.path("passed.sock"));
    assert_eq!(lines.ask(r#"{"op":"ping"}"#)["ok"], true);
    service.stop();
}

#[test]
fn the_managers_socket_may_have_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt;
    let manager = ServiceManager::new("");
    let name = format!("comet-test-{}", std::process::id());
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let notices = UnixDatagram::bind_addr(&addr).unwrap();
    notices.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = manager.command();
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let service = Service::start(command).unwrap();
    let mut text = [0; 8];
    notices.recv(&mut text).unwrap();
    assert_eq!(&text, b"READY=1\n");
    service.stop();
}

/// The daemon's thread is really blocked: it writes to the log, and no program reads the log.
#[test]
fn the_watchdog_is_not_notified_while_a_thread_is_stuck() {
    let manager = ServiceManager::new("workers = 2\n");
    let mut command = serve(manager.root.path());
    command.arg("--config").arg(manager.path("comet.toml"));
    command.arg("--dir").arg(manager.path("dir"));
    command.arg("--socket").arg(manager.path("own.sock"));
    command.args(["--listen", "127.0.0.1:0"]);
    command
        .env("COMET_LOG", "trace,h2=trace")
        .stderr(Stdio::piped());
    command.env("NOTIFY_SOCKET", manager.path("notify"));
    command.env("WATCHDOG_USEC", "6000000");
    fs::write(manager.path("comet.toml"), &manager.config).unwrap();
    let mut service = Service::start(command).unwrap();
    assert!(manager.notice().starts_with("READY=1\n"));
    assert_eq!(manager.notice(), "WATCHDOG=1");

    let addr = service.ready.split("http://").nth(1).unwrap();
    let addr: SocketAddr = addr.split(',').next().unwrap().parse().unwrap();
    let mut client = Http::connect(addr);
    // At this log level each HTTP/2 frame is logged: an empty SETTINGS frame, then PINGs.
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    client.send(b"\0\0\x08\x06\0\0\0\0\0pingpong".repeat(2000));
    let stuck = loop {
        match manager.notice() {
            notice if notice == "WATCHDOG=1" => {}
            notice => break notice,
        }
    };
    assert!(stuck.starts_with("STATUS=stuck: http-"), "{stuck}");

    // Up to here the daemon sent no notice. From here on the log is read.
    manager.notices.set_nonblocking(true).unwrap();
    assert!(manager.notices.recv(&mut [0; 64]).is_err());
    manager.notices.set_nonblocking(false).unwrap();
    let reader = read_all(service.child.stderr.take().unwrap());
    while manager.notice() != "WATCHDOG=1" {}
    assert_eq!(manager.notice(), "STATUS=all threads run again");
    service.stop();
    assert!(reader.join().unwrap().contains("threads are stuck: http-"));
}

fn read_all(mut stderr: ChildStderr) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// If systemd is installed, it accepts the units unchanged, except for the path of the daemon.
#[test]
fn systemd_accepts_the_units() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        return;
    };
    assert!(version.status.success());
    let root = directory();
    for name in ["comet.service", "comet.socket"] {
        let unit = fs::read_to_string(format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR")));
        let unit = unit
            .unwrap()
            .replace("/usr/local/bin/comet", env!("CARGO_BIN_EXE_comet"));
        fs::write(root.path().join(name), unit).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.current_dir(root.path()).args(["verify", "--man=no"]);
    let said = verify
        .args(["./comet.service", "./comet.socket"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    // systemd also reports other units of the machine.
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("comet")).collect();
    assert!(said.status.success() && ours.is_empty(), "{text}");
}

/// systemd names the device and inode of the stream that leads to the journal.
#[test]
fn journal_lines_have_a_priority_and_no_time() {
    let log_of = |is_journal: bool| {
        let root = directory();
        let log = File::create(root.path().join("log")).unwrap();
        let found = log.metadata().unwrap();
        let (device, inode) = (
            std::os::unix::fs::MetadataExt::dev(&found),
            std::os::unix::fs::MetadataExt::ino(&found) + u64::from(!is_journal),
        );
        let mut command = serve(root.path());
        command.env("JOURNAL_STREAM", format!("{device}:{inode}"));
        command
            .args(["--listen", "127.0.0.1:0", "--dir"])
            .arg(root.path().join("dir"));
        command
            .arg("--socket")
            .arg(root.path().join("s"))
            .stderr(log);
        let service = Service::start(command).unwrap_or_else(|_| panic!("no daemon"));
        fs::write(root.path().join("dir/a b.comet"), "x").unwrap();
        wait_for("a refusal", || {
            let log = fs::read_to_string(root.path().join("log")).unwrap();
            log.contains("refused").then_some(())
        });
        service.stop();
        fs::read_to_string(root.path().join("log")).unwrap()
    };
    let journal = log_of(true);
    for line in journal.lines() {
        assert!(
            line.starts_with("<6>") || line.starts_with("<4>"),
            "{journal}"
        );
        assert!(
            !line.contains("INFO") && !line.contains("WARN"),
            "{journal}"
        );
    }
    let warned = "<4>comet_daemon::source::files::refusal: \"a b.comet\" refused";
    assert!(journal.contains(warned), "{journal}");
    assert!(
        journal.contains("<6>comet_daemon::run: SIGTERM received"),
        "{journal}"
    );
    let other = log_of(false);
    assert!(
        other.contains(" WARN ") && !other.contains("<4>"),
        "{other}"
    );
}

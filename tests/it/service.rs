//! Comet as a service: sockets that outlive the daemon, and the daemon's notices to its service manager.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    daemon::{Http, Lines, PATIENCE, directory, serve, signal, wait_for},
    wire::{cursor, data, get, post},
};

/// Acts as systemd does for a service with a socket unit: holds the sockets, and starts daemons with them.
pub(crate) struct ServiceManager {
    pub(crate) root: tempfile::TempDir,
    pub(crate) http: TcpListener,
    pub(crate) socket: UnixListener,
    pub(crate) notices: UnixDatagram,
    pub(crate) config: String,
}

/// A daemon of a [`ServiceManager`]. It is killed when this value is dropped.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) ready: String,
}

impl ServiceManager {
    pub(crate) fn new(config: &str) -> Self {
        let root = directory();
        let path = |name: &str| root.path().join(name);
        let notices = UnixDatagram::bind(path("notify")).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            http: TcpListener::bind("127.0.0.1:0").unwrap(),
            socket: UnixListener::bind(path("passed.sock")).unwrap(),
            notices,
            config: config.into(),
            root,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.http.local_addr().unwrap()
    }

    /// A shell that turns its standard input and standard error into the sockets, descriptors 3 and 4, and executes the
    /// daemon.
    pub(crate) fn command(&self) -> Command {
        fs::write(self.path("comet.toml"), &self.config).unwrap();
        let mut command = Command::new("sh");
        let script = "exec 3<&0 4<&2 0</dev/null 2>>\"$1\" && shift && LISTEN_PID=$$ exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(self.path("log"));
        command.arg(env!("CARGO_BIN_EXE_comet")).arg("serve");
        command.arg("--config").arg(self.path("comet.toml"));
        command.arg("--dir").arg(self.path("dir"));
        command.env("LISTEN_FDS", "2");
        command.env("COMET_STORE", self.path("store"));
        command.env("LISTEN_FDNAMES", "http:publishers");
        command.env("NOTIFY_SOCKET", self.path("notify"));
        for name in ["COMET_SOCKET", "COMET_LISTEN", "WATCHDOG_USEC"] {
            command.env_remove(name);
        }
        command.stdin(OwnedFd::from(self.http.try_clone().unwrap()));
        command.stderr(OwnedFd::from(self.socket.try_clone().unwrap()));
        command
    }

    pub(crate) fn start(&self) -> Service {
        Service::start(self.command()).unwrap_or_else(|_| panic!("no daemon: {}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// The daemon's next notice.
    pub(crate) fn notice(&self) -> String {
        let mut text = [0; 4096];
        let length = loop {
            match self.notices.recv(&mut text) {
                // A signal of another test's child interrupts the call, because a call with a time-out is not repeated
                // by the kernel.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received.expect("a notice"),
            }
        };
        String::from_utf8(text[..length].into()).unwrap()
    }
}

impl Service {
    pub(crate) fn start(mut command: Command) -> Result<Self, ExitStatus> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        if ready.is_empty() {
            return Err(child.wait().unwrap());
        }
        Ok(Self { child, ready })
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn passed_sockets_are_served_instead_of_own_ones() {
    let manager = ServiceManager::new(
        "listen = \"127.0.0.1:1\"\nworkers = 3\n[socket]\npath = \"/run/other.sock\"\n",
    );
    let service = manager.start();
    for unused in [
        "listen is not used",
        "to use 127.0.0.1:1, write it as ListenStream=",
        "socket.path is not used",
    ] {
        assert!(manager.log().contains(unused), "{}", manager.log());
    }
    let (addr, socket) = (manager.addr(), manager.path("passed.sock"));
    let expected = format!(
        "comet: listening on http://{addr}, socket {}, watching",
        socket.display()
    );
    assert!(service.ready.starts_with(&expected), "{}", service.ready);
    // Clients on each of the workers, which share one listener.
    let mut clients: Vec<Http> = (0..30).map(|_| Http::connect(addr)).collect();
    for client in &mut clients {
        client.send(get("/healthz", ""));
        assert_eq!(client.answer().status, 200);
    }
    let mut lines = Lines::connect(&socket);
    assert_eq!(lines.ask(r#"{"op":"ping"}"#)["ok"], true);
    service.stop();
    assert!(socket.exists(), "its file is not the daemon's");
    assert!(clients.iter_mut().all(Http::is_closed));
}

#[test]
fn a_client_that_connects_while_no_daemon_runs_is_served_by_the_next() {
    let manager = ServiceManager::new("[http]\npublish = true\n");
    manager.start().stop();
    assert!(!manager.log().contains("not used"), "{}", manager.log());
    let mut clients: Vec<Http> = (0..20).map(|_| Http::connect(manager.addr())).collect();
    for client in &mut clients {
        client.send(post("/ch/a", "", b"while it was away"));
    }
    let mut lines = Lines::connect(&manager.path("passed.sock"));
    lines.send("{\"op\":\"publish\",\"channel\":\"a\",\"data\":\"x\"}\n");
    let _next = manager.start();
    for client in &mut clients {
        assert_eq!(client.answer().status, 201);
    }
    assert_eq!(lines.read().unwrap()["ok"], true);
}

/// Sends one request on a new connection. Returns false if the connection ended without an answer, which may happen to
/// an accepted connection without a request. A refused connection fails the test.
fn is_answered(addr: SocketAddr, request: &[u8]) -> bool {
    let mut stream = TcpStream::connect(addr).expect("the port is open all the time");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let _ = stream
        .write_all(request)
        .and_then(|()| stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty()
            || answer.starts_with("HTTP/1.1 201 ")
            || answer.starts_with("HTTP/1.1 503 "),
        "{answer}"
    );
    answer.starts_with("HTTP/1.1 201 ")
}

#[test]
fn restarts_under_load_refuse_no_connection() {
    let manager = ServiceManager::new("workers = 3\n[http]\npublish = true\n");
    let addr = manager.addr();
    let mut service = manager.start();
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            thread::spawn(move || {
                let request = post("/ch/a", "Connection: close\r\n", b"x");
                while !stop.load(Ordering::Relaxed) {
                    let is = is_answered(addr, &request);
                    answered.fetch_add(usize::from(is), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let before = answered.load(Ordering::Relaxed);
        wait_for("answers", || {
            (answered.load(Ordering::Relaxed) > before + 100).then_some(())
        });
        service.stop();
        service = manager.start();
    }
    let before = answered.load(Ordering::Relaxed);
    wait_for("answers of the last daemon", || {
        (answered.load(Ordering::Relaxed) > before + 100).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    drop(service);
}

#[test]
fn a_waiting_poll_continues_at_the_next_daemon() {
    let manager = ServiceManager::new("");
    let service = manager.start();
    let mut client = Http::connect(manager.addr());
    client.send(get("/ch/a", ""));
    wait_for("the poll", || {
        let mut other = Http::connect(manager.addr());
        other.send(get("/metrics", ""));
        other
            .answer()
            .body
            .contains("comet_subscribers 1\n")
            .then_some(())
    });
    service.stop();
    let answer = client.answer();
    assert_eq!(answer.json()["retry"], 500);
    let mut next = Http::connect(manager.addr()); // at once: the port is open
    next.send(get(&format!("/ch/a?since={}", cursor(&answer)), ""));
    let _second = manager.start();
    let mut lines = Lines::connect(&manager.path("passed.sock"));
    lines.ask(r#"{"op":"publish","channel":"a","data":"news"}"#);
    let mut answer = next.answer();
    if data(&answer).is_empty() {
        assert_eq!(answer.json()["gap"], true, "of a daemon without a history");
        next.send(get(&format!("/ch/a?since={}", cursor(&answer)), ""));
        answer = next.answer();
    }
    assert_eq!(data(&answer), ["news"]);
}

#[test]
fn sockets_that_cannot_be_served_are_named() {
    let manager = ServiceManager::new("");
    let fails = |edit: &dyn Fn(&mut Command), reason: &str| {
        let mut command = manager.command();
        edit(&mut command);
        assert!(Service::start(command).is_err_and(|status| status.code() == Some(1)));
        assert!(
            manager.log().contains(reason),
            "{reason}: {}",
            manager.log()
        );
    };
    let file = || File::open(manager.path("comet.toml")).unwrap();
    fails(
        &|command| _ = command.stdin(file()),
        "passed socket 0 (http) cannot be served: it is neither a TCP nor a Unix stream socket",
    );
    let connected = || TcpStream::connect(manager.addr()).unwrap();
    fails(
        &|command| _ = command.stdin(OwnedFd::from(connected())),
        "it does not listen (Accept= of a socket unit must be no)",
    );
    fails(
        &|command| _ = command.stdin(OwnedFd::from(manager.socket.try_clone().unwrap())),
        "(publishers) cannot be served: there is one Unix socket already",
    );
}

#[test]
fn one_worker_serves_several_passed_sockets() {
    let manager = ServiceManager::new("workers = 1\n");
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut command = manager.command();
    command.stderr(OwnedFd::from(other.try_clone().unwrap()));
    command.arg("--socket").arg(manager.path("own.sock"));
    let service = Service::start(command).unwrap();
    for addr in [manager.addr(), other.local_addr().unwrap()] {
        let mut client = Http::connect(addr);
        client.send(get("/healthz", ""));
        assert_eq!(client.answer().status, 200);
    }
    service.stop();
}

/// The descriptors are only for the process that `LISTEN_PID` names.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let manager = ServiceManager::new("listen = \"127.0.0.1:0\"\n");
    let own = manager.path("own.sock");
    let mut command = serve(manager.root.path());
    command.arg("--dir").arg(manager.path("dir"));
    command
        .arg("--socket")
        .arg(&own)
        .args(["--listen", "127.0.0.1:0"]);
    command.env("LISTEN_FDS", "2").env("LISTEN_PID", "1");
    let service = Service::start(command).unwrap();
    assert!(service.ready.contains("own.sock"), "{}", service.ready);
    service.stop();
    assert!(!own.exists());
}

//! The real daemon as a separate process in a temporary directory, and raw clients for it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Time-out after which a test fails. No wait takes that long if all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// `comet serve` without settings of this process. The log is in `root` unless the test sets another place, because the
/// default place belongs to an installed daemon.
pub fn serve(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comet"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COMET_") {
            command.env_remove(name);
        }
    }
    command.arg("serve").env("COMET_STORE", root.join("store"));
    command
}

/// Sends a signal by its name, such as `TERM`.
pub fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(child.id().to_string());
    assert!(kill.status().unwrap().success());
}

/// Runs a command with this input, to its end.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A running `comet serve`. It is killed when this value is dropped.
pub struct Daemon {
    child: Child,
    addr: SocketAddr,
    /// The line on standard output.
    ready: String,
    root: Arc<tempfile::TempDir>,
    log: Arc<Mutex<String>>,
    _stdout: BufReader<ChildStdout>,
}

impl Daemon {
    /// Starts the daemon with this configuration file (TOML). It watches an empty temporary directory.
    pub fn start(config: &str) -> Self {
        Self::start_in(Arc::new(directory()), config, &[])
    }

    /// Starts the daemon with further flags in an existing directory (of [`directory`]), to test what a new daemon
    /// finds there.
    pub fn start_in(root: Arc<tempfile::TempDir>, config: &str, flags: &[&str]) -> Self {
        Self::try_start_in(root, config, flags)
            .unwrap_or_else(|log| panic!("comet did not start:\n{log}"))
    }

    /// Like [`Daemon::start_in`]. If the daemon ends before it is ready, returns its log.
    pub fn try_start_in(
        root: Arc<tempfile::TempDir>,
        config: &str,
        flags: &[&str],
    ) -> Result<Self, String> {
        Self::try_start_by(&[], root, config, flags)
    }

    /// Like [`Daemon::try_start_in`], through a program (with arguments) that finally executes the daemon.
    pub fn try_start_by(
        program: &[&str],
        root: Arc<tempfile::TempDir>,
        config: &str,
        flags: &[&str],
    ) -> Result<Self, String> {
        let path = root.path().join("comet.toml");
        std::fs::write(&path, config).unwrap();
        let comet = [env!("CARGO_BIN_EXE_comet"), "serve", "--config"];
        let words = [program, &comet].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&path);
        command.arg("--dir").arg(root.path().join("dir"));
        command.arg("--socket").arg(root.path().join("comet.sock"));
        if !flags.contains(&"--store") {
            command.arg("--store").arg(root.path().join("store"));
        }
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(flags);
        command.env_remove("COMET_SOCKET").stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, copy) = (child.stderr.take().unwrap(), log.clone());
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                copy.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let Some(addr) = address(&ready) else {
            let _ = child.kill();
            let _ = child.wait();
            let _ = reader.join();
            let log = log.lock().unwrap().clone();
            return Err(format!("{ready}{log}"));
        };
        Ok(Self {
            child,
            addr,
            ready,
            root,
            log,
            _stdout: stdout,
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of another protocol's port, in `, NAME ADDR,` of the daemon's line.
    pub fn port(&self, protocol: &str) -> SocketAddr {
        let mut parts = self
            .ready
            .split(", ")
            .filter_map(|part| part.split_once(' '));
        let found = parts.find(|(name, _)| *name == protocol);
        found
            .unwrap_or_else(|| panic!("no {protocol}: {}", self.ready))
            .1
            .parse()
            .unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory that the daemon watches.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("dir")
    }

    pub fn socket_path(&self) -> PathBuf {
        self.root.path().join("comet.sock")
    }

    pub fn root(&self) -> Arc<tempfile::TempDir> {
        self.root.clone()
    }

    /// What the daemon has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// A memory figure of the daemon in `/proc/PID/status`, such as `VmRSS`, in bytes.
    pub fn memory(&self, figure: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut values = status.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = values.find(|(name, _)| *name == figure).unwrap();
        let kib: usize = value.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// A `comet` command with this daemon's socket.
    pub fn comet(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comet"));
        command
            .args(arguments)
            .env("COMET_SOCKET", self.socket_path())
            .stdin(Stdio::null());
        command
    }

    /// Sends one request on a new connection. Returns status, head and body.
    pub fn http(&self, request: &str) -> Answer {
        let mut client = Http::connect(self.addr);
        client.send(request);
        client.answer()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.http(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.addr
        ))
    }

    /// Publishes over the socket and returns the id.
    pub fn publish(&self, channel: &str, data: &str) -> u64 {
        let line =
            serde_json::json!({"op": "publish", "channel": channel, "data": data}).to_string();
        let reply = Lines::connect(&self.socket_path()).ask(&line);
        reply["id"]
            .as_u64()
            .unwrap_or_else(|| panic!("refused: {reply}"))
    }

    /// All messages of the channel, over the socket: (id, data).
    pub fn history(&self, channel: &str) -> Vec<(u64, String)> {
        let line = serde_json::json!({"op": "history", "channels": [channel]}).to_string();
        let reply = Lines::connect(&self.socket_path()).ask(&line);
        let messages = reply["messages"]
            .as_array()
            .unwrap_or_else(|| panic!("refused: {reply}"));
        let pair = |m: &serde_json::Value| {
            (
                m["id"].as_u64().unwrap(),
                m["data"].as_str().unwrap().to_owned(),
            )
        };
        messages.iter().map(pair).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for [`Daemon::start_in`]. The daemon watches `dir` in it. It is on tmpfs if there is one.
pub fn directory() -> tempfile::TempDir {
    let base = if Path::new("/dev/shm").is_dir() {
        PathBuf::from("/dev/shm")
    } else {
        std::env::temp_dir()
    };
    let root = tempfile::Builder::new()
        .prefix("comet-test-")
        .tempdir_in(base)
        .unwrap();
    std::fs::create_dir(root.path().join("dir")).unwrap();
    root
}

/// The address in `comet: listening on http://ADDR, socket …`.
fn address(ready: &str) -> Option<SocketAddr> {
    ready
        .strip_prefix("comet: listening on http://")?
        .split(',')
        .next()?
        .parse()
        .ok()
}

/// Repeats `condition` until it returns a value. After the time-out the test fails.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, with their line ends.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }
}

/// A raw HTTP/1 client: sends bytes and reads responses.
pub struct Http {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn get(&mut self, path: &str) {
        self.send(format!(
            "GET {path} HTTP/1.1\r\nHost: comet.localhost\r\n\r\n"
        ));
    }

    /// Reads until the text has arrived. Returns everything up to the text's end. For streams.
    pub fn until(&mut self, text: &str) -> String {
        String::from_utf8(self.until_bytes(text.as_bytes())).unwrap()
    }

    /// Like [`Http::until`], for bytes that are not all text.
    pub fn until_bytes(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.buffer, end) {
                return self.buffer.drain(..at + end.len()).collect();
            }
            assert!(
                self.fill() > 0,
                "closed before {:?}: {:?}",
                String::from_utf8_lossy(end),
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// Reads one response: by its length, its chunks, or until the connection closes.
    pub fn answer(&mut self) -> Answer {
        let head = self.until("\r\n\r\n");
        let mut answer = Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::new(),
        };
        let bodyless = matches!(answer.status, 204 | 304);
        let length = answer
            .header("content-length")
            .map(|n| n.parse::<usize>().unwrap());
        let bytes = match length {
            Some(length) => self.exactly(length),
            None if bodyless => Vec::new(),
            None if answer.header("transfer-encoding") == Some("chunked") => {
                std::iter::from_fn(|| self.chunk())
                    .collect::<String>()
                    .into()
            }
            None => self.rest(),
        };
        answer.body = String::from_utf8(bytes).unwrap();
        answer
    }

    /// Reads everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the server closed, and nothing more arrived.
    pub fn is_closed(&mut self) -> bool {
        self.fill() == 0 && self.buffer.is_empty()
    }

    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill() > 0, "closed within a body");
        }
        self.buffer.drain(..length).collect()
    }

    /// The next chunk of a stream (RFC 9112, section 7.1). `None` after the last chunk.
    pub fn chunk(&mut self) -> Option<String> {
        let line = self.until("\r\n");
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let chunk = self.exactly(length);
        assert_eq!(self.exactly(2), b"\r\n");
        (length > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    fn fill(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        let read = loop {
            match self.stream.read(&mut chunk) {
                // A read with a time-out returns `EINTR` when the machine was suspended meanwhile. It is repeated.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(e) => panic!("{e}; so far: {:?}", String::from_utf8_lossy(&self.buffer)),
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        n
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A client of the Unix socket: sends lines and reads JSON.
pub struct Lines {
    stream: BufReader<UnixStream>,
}

impl Lines {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub fn ask(&mut self, line: &str) -> serde_json::Value {
        self.send(format!("{line}\n"));
        self.read().expect("a reply")
    }

    /// Waits until something has arrived, without reading. Returns false if the daemon closed.
    pub fn has_something(&mut self) -> bool {
        let mut first = [0];
        let peeked = nix::sys::socket::recv(
            std::os::fd::AsRawFd::as_raw_fd(self.stream.get_ref()),
            &mut first,
            nix::sys::socket::MsgFlags::MSG_PEEK,
        );
        peeked.unwrap() > 0
    }

    /// Closes the sending side.
    pub fn end(&mut self) {
        self.stream
            .get_ref()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }

    /// The next line, or `None` if the daemon closed.
    pub fn read(&mut self) -> Option<serde_json::Value> {
        let mut line = String::new();
        let n = self.stream.read_line(&mut line).unwrap();
        (n > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}")))
    }
}

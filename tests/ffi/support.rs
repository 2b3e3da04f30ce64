//! The library and the daemon as they were built, C programs compiled against the one, and the other as a process.

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take before a test fails; nothing waits for so long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// Has cargo build what this test does not depend on by itself, and says where it is.
fn built(package: &str, file: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--quiet",
        "--profile",
        profile,
        "--package",
        package,
    ]);
    run(cargo.current_dir(repository()));
    // This test is target/PROFILE/deps/NAME.
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join(file)
}

pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| built("comet-ffi", "libcomet.so"))
}

fn daemon() -> &'static Path {
    static DAEMON: OnceLock<PathBuf> = OnceLock::new();
    DAEMON.get_or_init(|| built("comet-daemon", "comet"))
}

/// A directory with the library under the names that linker and loader look for.
pub(crate) fn library_dir() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lib");
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["libcomet.so", "libcomet.so.1"] {
            match symlink(library(), directory.join(name)) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => panic!("{name}: {e}"),
                _ => {}
            }
        }
        directory
    })
}

/// Runs a command to its end, and fails the test with what it printed unless it succeeds.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// Calls `condition` until it holds, and fails the test when it does not for long.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs tests/c/NAME.c, see [`steps`].
pub(crate) fn c_program(name: &str, arguments: &[&str], step: impl FnMut(&str)) {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Command::new(compile(name, directory.path()));
    steps(program.args(arguments), step);
}

/// Runs a program to its end and expects it to succeed. `step` is called with each line that it prints; then the
/// program goes on, with a line to read.
pub(crate) fn steps(program: &mut Command, mut step: impl FnMut(&str)) {
    let mut child = program
        .env("LD_LIBRARY_PATH", library_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        step(&line.unwrap());
        // A program that has printed its last line does not read any more.
        let _ = stdin.write_all(b"\n");
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program:?}: {}\n{stderr}",
        output.status
    );
    assert_eq!(stderr, "", "{program:?} prints nothing of its own accord");
}

/// A program of tests/c, compiled, to be run beside others: `arguments` go to each.
pub(crate) fn c_programs(name: &str, arguments: &[Vec<String>], directory: &Path) -> Vec<Child> {
    let program = compile(name, directory);
    let run = |arguments: &Vec<String>| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("LD_LIBRARY_PATH", library_dir());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    arguments.iter().map(run).collect()
}

fn compile(name: &str, directory: &Path) -> PathBuf {
    let (root, program) = (repository(), directory.join(name));
    let mut cc = Command::new("cc");
    cc.args([
        "-std=gnu11",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
    ]);
    cc.arg("-I").arg(root.join("include"));
    cc.arg(root.join(format!("tests/c/{name}.c")));
    cc.arg("-o").arg(&program).arg("-L").arg(library_dir());
    // A program that only loads the library must not be linked with it.
    cc.args(["-Wl,--as-needed", "-lcomet", "-ldl"]);
    run(&mut cc);
    program
}

/// A running `comet serve`; killed when dropped.
pub(crate) struct Daemon {
    root: TempDir,
    process: Option<(Child, BufReader<ChildStdout>)>,
    /// Where it listens for HTTP.
    pub(crate) addr: String,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let root = tempfile::Builder::new()
            .prefix("comet-test-")
            .tempdir()
            .unwrap();
        std::fs::create_dir(root.path().join("dir")).unwrap();
        std::fs::write(root.path().join("comet.toml"), "").unwrap();
        let mut daemon = Self {
            root,
            process: None,
            addr: String::new(),
        };
        daemon.go();
        daemon
    }

    /// The command line, for those who need more of it.
    pub(crate) fn program() -> &'static Path {
        daemon()
    }

    /// Starts it on the directory and the socket that it had.
    pub(crate) fn go(&mut self) {
        let mut child = Command::new(daemon())
            .args(["serve", "--listen", "127.0.0.1:0", "--dir"])
            .arg(self.dir())
            .arg("--socket")
            .arg(self.socket())
            .arg("--store")
            .arg(self.root.path().join("store"))
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.log()).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let addr = ready
            .strip_prefix("comet: listening on http://")
            .and_then(|rest| rest.split(',').next());
        self.addr = addr
            .unwrap_or_else(|| panic!("comet did not start: {ready}{}", self.said()))
            .to_owned();
        self.process = Some((child, stdout));
    }

    /// Its configuration: empty, until a test has written something there.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.path().join("comet.toml")
    }

    fn log(&self) -> PathBuf {
        self.root.path().join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _)) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it as Ctrl-Z does; returns when no thread of it runs any more.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.pid());
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(')')
                .next()
                .unwrap()
                .trim_start()
                .starts_with('T')
        };
        wait_for("the daemon to stop", || {
            std::fs::read_dir(&tasks)
                .unwrap()
                .all(stopped)
                .then_some(())
        });
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").0.id()
    }

    /// The directory that it watches.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("dir")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.path().join("comet.sock")
    }

    /// Lets the members of a group in, as an administrator does who has the daemon run in that group.
    pub(crate) fn admit(&self, group: &str) {
        for path in [self.root.path().to_owned(), self.socket(), self.spool()] {
            run(Command::new("chgrp").arg(group).arg(&path));
        }
        run(Command::new("chmod").arg("g+rx").arg(self.root.path()));
    }

    /// Goes on after a pause; returns when the spool is empty.
    pub(crate) fn resume_and_catch_up(&self) {
        self.resume();
        self.catch_up();
    }

    /// Returns when the spool is empty.
    pub(crate) fn catch_up(&self) {
        let waits = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().ends_with(".msg1")
        };
        wait_for("the spool to be taken", || {
            let waiting = std::fs::read_dir(self.spool()).unwrap().any(waits);
            (!waiting).then_some(())
        });
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.root.path().join("comet.spool")
    }

    /// A DSN for it, with the patience of a test.
    pub(crate) fn dsn(&self) -> String {
        self.dsn_within(PATIENCE)
    }

    pub(crate) fn dsn_within(&self, timeout: Duration) -> String {
        let (socket, dir, ms) = (self.socket(), self.dir(), timeout.as_millis());
        format!(
            "unix:{}?dir={}&timeout_ms={ms}",
            socket.display(),
            dir.display()
        )
    }

    /// All that the channel keeps, oldest first: id and data (base64 when it is no text).
    pub(crate) fn history(&self, channel: &str) -> Vec<(u64, String)> {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(
            stream,
            "{}",
            json!({"op": "history", "channels": [channel]})
        )
        .unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(&line).unwrap();
        let messages = reply["messages"]
            .as_array()
            .unwrap_or_else(|| panic!("refused: {line}"));
        let pair = |m: &Value| {
            (
                m["id"].as_u64().unwrap(),
                m["data"].as_str().unwrap().to_owned(),
            )
        };
        messages.iter().map(pair).collect()
    }

    pub(crate) fn data(&self, channel: &str) -> Vec<String> {
        self.history(channel)
            .into_iter()
            .map(|(_, data)| data)
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.said());
        }
    }
}

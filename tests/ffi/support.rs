//! Builds the library and the daemon, compiles C programs against the library, and runs the daemon as a process.

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

/// Time-out after which a test fails. No wait takes that long if all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// Lets cargo build a package that this test does not depend on. Returns the path of the file.
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
    // The path of this test is target/PROFILE/deps/NAME.
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

/// A directory with the library under the names that the linker and the loader use.
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

/// Runs a command to its end. If the command fails, the test fails with the command's output.
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

/// Repeats `condition` until it returns a value. After the time-out the test fails.
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

/// Runs tests/c/NAME.c with the steps of [`steps`].
pub(crate) fn c_program(name: &str, arguments: &[&str], step: impl FnMut(&str)) {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Command::new(compile(name, directory.path()));
    steps(program.args(arguments), step);
}

/// Runs a program to its end and expects success. Calls `step` for each line that the program prints, and then sends
/// the program a line, so that it continues.
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

/// Compiles a program of tests/c and starts it once for each list of arguments.
pub(crate) fn c_programs(name: &str, arguments: &[Vec<String>], directory: &Path) -> Vec<Child> {
    let program = compile(name, directory);
    let run = |arguments: &Vec<String>| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("LD_LIBRARY_PATH", library_dir());
        command
            .stdin(Stdio::piped())
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
    // A program that only loads the library at run time must not be linked with it.
    cc.args(["-Wl,--as-needed", "-lcomet", "-ldl"]);
    run(&mut cc);
    program
}

/// A running `comet serve`. It is killed when this value is dropped.
pub(crate) struct Daemon {
    root: TempDir,
    process: Option<(Child, BufReader<ChildStdout>)>,
    /// The address for HTTP.
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

    /// The path of the command line program.
    pub(crate) fn program() -> &'static Path {
        daemon()
    }

    /// Starts the daemon again on the same directory and socket.
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

    /// The path of its configuration file. The file is empty until a test writes to it.
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

    /// Stops the daemon as Ctrl-Z does. Returns when all its threads have stopped.
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

    /// Lets the members of a group connect, as an administrator does by running the daemon in that group.
    pub(crate) fn admit(&self, group: &str) {
        for path in [self.root.path().to_owned(), self.socket(), self.spool()] {
            run(Command::new("chgrp").arg(group).arg(&path));
        }
        run(Command::new("chmod").arg("g+rx").arg(self.root.path()));
    }

    /// Continues after a pause. Returns when the spool is empty.
    pub(crate) fn resume_and_catch_up(&self) {
        self.resume();
        self.catch_up();
    }

    /// Returns when the spool is empty.
    pub(crate) fn catch_up(&self) {
        wait_for("the daemon to publish the spool", || {
            (!self.has_spooled()).then_some(())
        });
    }

    /// Whether messages wait in the spool.
    pub(crate) fn has_spooled(&self) -> bool {
        let is_message = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().ends_with(".msg1")
        };
        std::fs::read_dir(self.spool()).unwrap().any(is_message)
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.root.path().join("comet.spool")
    }

    /// A DSN for the daemon with a long time-out.
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

    /// All messages of the channel, oldest first: id and data (base64 if the data is not UTF-8).
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

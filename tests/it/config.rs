//! Settings of the running daemon: a flag overrides the environment, and the environment overrides the file.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::daemon::{Daemon, Lines, directory, serve, signal};

/// A daemon started by a command of the test. It is killed when this value is dropped.
pub(crate) struct Served {
    child: Child,
    ready: String,
    root: tempfile::TempDir,
}

impl Served {
    /// Runs `command` until the daemon is ready, with settings that keep the daemon within `root`, and with `config` as
    /// its configuration file. Settings of the command itself are kept.
    pub(crate) fn start(root: tempfile::TempDir, mut command: Command, config: &str) -> Self {
        let path = |name: &str| root.path().join(name);
        let (dir, store, socket) = (path("dir"), path("store"), path("comet.sock"));
        let file = format!(
            "dir = {dir:?}\nlisten = \"127.0.0.1:0\"\n[store]\ndir = {store:?}\n[socket]\npath = {socket:?}\n{config}"
        );
        fs::write(path("comet.toml"), file).unwrap();
        command.arg("--config").arg(path("comet.toml"));
        Self::run(root, command)
    }

    /// Like [`Served::start`], but only with the settings of the command.
    fn run(root: tempfile::TempDir, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let served = Self { child, ready, root };
        assert!(
            served.ready.starts_with("comet: listening on http://"),
            "{}",
            served.ready
        );
        served
    }

    /// Sends a signal by its name, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_flag_beats_the_environment_beats_the_file() {
    let root = directory();
    let path = |name: &str| root.path().join(name);
    let (by_flag, by_environment) = (path("flag"), path("environment"));
    fs::create_dir(&by_flag).unwrap();
    fs::create_dir(&by_environment).unwrap();

    let mut command = serve(root.path());
    command
        .env("COMET_DIR", &by_environment)
        .env("COMET_SOCKET", path("environment.sock"));
    command.arg("--dir").arg(&by_flag);
    let daemon = Served::start(root, command, "");
    let expected = format!(
        ", socket {}, watching {}\n",
        daemon.path("environment.sock").display(),
        daemon.path("flag").display()
    );
    assert!(daemon.ready.ends_with(&expected), "{}", daemon.ready);
    Lines::connect(&daemon.path("environment.sock")).ask(r#"{"op":"ping"}"#);
}

#[test]
fn the_file_is_enough_and_empty_variables_are_none() {
    let root = directory();
    let mut command = serve(root.path());
    for name in [
        "COMET_DIR",
        "COMET_LISTEN",
        "COMET_SOCKET",
        "COMET_STORE",
        "COMET_DEMO",
        "COMET_LOG",
    ] {
        command.env(name, "");
    }
    let daemon = Served::start(root, command, "");
    let expected = format!(
        ", socket {}, watching {}\n",
        daemon.path("comet.sock").display(),
        daemon.path("dir").display()
    );
    assert!(daemon.ready.ends_with(&expected), "{}", daemon.ready);
}

#[test]
fn the_environment_names_the_file_and_its_settings_hold() {
    let root = directory();
    let file = root.path().join("other.toml");
    fs::write(&file, "[socket]\nmax_line = 2048\n").unwrap();
    let mut command = serve(root.path());
    command
        .env("COMET_CONFIG", &file)
        .env("COMET_DIR", root.path().join("dir"));
    command
        .env("COMET_LISTEN", "127.0.0.1:0")
        .env("COMET_SOCKET", root.path().join("s"));
    let daemon = Served::run(root, command);
    let mut client = Lines::connect(&daemon.path("s"));
    client.send("x".repeat(2048));
    let refusal = client.read().unwrap();
    assert!(
        refusal["message"].as_str().unwrap().contains("2048"),
        "{refusal}"
    );
    assert!(daemon.path("store/lock").exists(), "the log, too");
}

#[test]
fn history_limits_hold_by_prefix() {
    let config =
        "[history]\nbytes = \"4KiB\"\n[[history.prefix]]\nprefix = \"long\"\nbytes = \"1MiB\"\n";
    let daemon = Daemon::start(config);
    let data = "x".repeat(1000);
    for _ in 0..10 {
        daemon.publish("short", &data);
        daemon.publish("long.news", &data);
    }
    assert!(daemon.history("short").len() < 5);
    assert_eq!(daemon.history("long.news").len(), 10);
}

#[test]
fn a_mistake_ends_the_start_with_its_place() {
    let cases = [
        (
            "grace = 5\nidle = \"5m\"",
            "comet.toml:2:1: idle: unknown field `idle`",
        ),
        (
            "[socket]\nallow = [\"www-data\"]",
            "comet.toml:2:9: socket.allow: \"www-data\" is none of",
        ),
        ("listen = [", "comet.toml:1:"),
    ];
    for (config, expected) in cases {
        let log = Daemon::try_start_in(std::sync::Arc::new(directory()), config, &[]).err();
        let log = log.expect("a mistake");
        assert!(log.contains(expected), "{config}: {log}");
    }
}

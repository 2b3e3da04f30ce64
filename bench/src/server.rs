//! A measured server: its processes, its addresses, and its cost.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    kind::Kind,
    peers, process,
    publisher::{Publisher, Socket},
    started::{Started, root},
};

pub(crate) struct Server {
    pub(crate) kind: Kind,
    started: Started,
    /// Standard output of the server. It stays open, so that the server's writes do not fail.
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts the daemon with its defaults and with `config` (TOML). If the daemon keeps a log, the log is in `store`,
    /// or in the server's own temporary directory.
    pub(crate) fn comet(program: &Path, config: &str, store: Option<&Path>) -> Result<Self> {
        let root = root()?;
        let own = root.path().join("store");
        let file = root.path().join("comet.toml");
        fs::write(&file, config)?;
        let flags = ["serve", "--listen", "127.0.0.1:0", "--config"].map(OsStr::new);
        let mut command = Command::new(program);
        command.args(flags).arg(file);
        command.arg("--dir").arg(root.path().join("dir"));
        command.arg("--socket").arg(root.path().join("socket"));
        // The store is always set, even if it is not used, because the machine's own log may belong to an installed
        // daemon.
        command.arg("--store").arg(store.unwrap_or(&own));
        // Environment variables of Comet must not change the measurement.
        let ours = |name: &OsString| name.to_string_lossy().starts_with("COMET_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        Self::start(Kind::Comet, command, root)
    }

    /// Starts the bench's simplest server (`floor`).
    pub(crate) fn floor() -> Result<Self> {
        let root = root()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--floor");
        command.args(["dir", "socket"].map(|name| root.path().join(name)));
        Self::start(Kind::Floor, command, root)
    }

    /// Starts another server. The inner error says why the server cannot run here.
    pub(crate) fn peer(kind: Kind) -> Result<Result<Self, String>> {
        Ok(peers::start(kind)?.map(|started| Self {
            kind,
            started,
            _stdout: None,
        }))
    }

    /// Starts a program that prints its address when it is ready.
    fn start(kind: Kind, mut command: Command, root: TempDir) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut ready = String::new();
        stdout.read_line(&mut ready)?;
        let addr = ready
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split([',', '\n']).next()?.parse().ok());
        let Some(addr) = addr else {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "{} did not start: {ready:?}",
                command.get_program().display()
            );
        };
        Ok(Self {
            kind,
            started: Started {
                children: vec![child],
                uncounted: Vec::new(),
                addr,
                publish: addr,
                root,
            },
            _stdout: Some(stdout),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.started.addr
    }

    /// The file that publishes to `channel`.
    pub(crate) fn file(&self, channel: &str) -> PathBuf {
        let dir = self.started.root.path().join("dir");
        dir.join(format!("{channel}.comet"))
    }

    /// Opens a publisher of the kind that the server's users have: the Unix socket, HTTP, or a file.
    pub(crate) fn publisher(&self) -> Result<Publisher> {
        match self.kind {
            Kind::Comet | Kind::Floor => Ok(Publisher::Socket(self.socket()?)),
            Kind::Nchan | Kind::Pushpin => self.poster(),
            Kind::Php => Ok(Publisher::Files(self.started.root.path().join("dir"))),
        }
    }

    /// Connects to the Unix socket.
    pub(crate) fn socket(&self) -> Result<Socket> {
        Socket::connect(&self.socket_path())
    }

    pub(crate) fn socket_path(&self) -> PathBuf {
        self.started.root.path().join("socket")
    }

    /// Opens a publisher over HTTP.
    pub(crate) fn poster(&self) -> Result<Publisher> {
        Publisher::http(self.kind, self.started.publish)
    }

    /// The address for publishes over HTTP.
    pub(crate) fn publish_addr(&self) -> SocketAddr {
        self.started.publish
    }

    fn pids(&self) -> Vec<u32> {
        process::tree(&self.started.children)
    }

    /// Memory of its processes in bytes (PSS): their own pages, and their share of shared pages.
    pub(crate) fn pss(&self) -> Result<u64> {
        process::pss(&self.pids())
    }

    /// Number of descriptors that its processes have open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        process::descriptors(&self.pids())
    }

    /// CPU time that all threads of its processes have used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu(&self.pids())
    }

    /// Pins all threads of the server, and the calling thread, to these cores.
    pub(crate) fn run_on(&self, cores: &CpuSet) -> Result<()> {
        sched_setaffinity(Pid::from_raw(0), cores)?;
        process::run_on(&self.pids(), cores)
    }

    /// Waits until the server is idle except for its timers. Returns the CPU time that the server has used until then.
    pub(crate) fn at_rest(&self) -> Result<Duration> {
        const WINDOW: Duration = Duration::from_millis(20);
        let (start, mut before) = (Instant::now(), self.cpu()?);
        let mut calm = 0;
        while calm < self.kind.calm() {
            if start.elapsed() > Duration::from_secs(60) {
                bail!("{} never rests", self.kind.label());
            }
            thread::sleep(WINDOW);
            let now = self.cpu()?;
            // The sum no longer has the CPU time of a process that has ended.
            let used = now.saturating_sub(before);
            // On a busy machine a thread may have work and no core to run on.
            let rests = used < self.kind.timers() && !process::is_running(&self.pids());
            calm = if rests { calm + 1 } else { 0 };
            before = now;
        }
        Ok(before)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The project's own servers leave nothing behind that has to be cleaned up.
        if self.kind.is_ours() {
            for child in &mut self.started.children {
                let _ = child.kill();
            }
        }
        process::stop(&mut self.started.children);
        process::stop(&mut self.started.uncounted);
    }
}

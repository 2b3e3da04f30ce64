//! A server as a process of its own, and what the kernel says it costs.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tempfile::TempDir;

/// The daemon, or the program that does the least; both take the same requests.
pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    root: TempDir,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn comet(program: &Path) -> Result<Self> {
        let flags = ["serve", "--listen", "127.0.0.1:0", "--dir"];
        Self::start(program, flags.map(OsStr::new), |root| {
            vec![root.join("dir"), "--socket".into(), root.join("socket")]
        })
    }

    pub(crate) fn floor() -> Result<Self> {
        let program = std::env::current_exe()?;
        Self::start(&program, ["--floor"].map(OsStr::new), |root| {
            vec![root.join("dir"), root.join("socket")]
        })
    }

    fn start<const N: usize>(
        program: &Path,
        flags: [&OsStr; N],
        paths: impl FnOnce(&Path) -> Vec<PathBuf>,
    ) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("comet-bench-")
            .tempdir_in("/dev/shm")?;
        fs::create_dir(root.path().join("dir"))?;
        let mut command = Command::new(program);
        command.args(flags).args(paths(root.path()));
        // Nothing that is set here may change what is measured.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COMET_"))
        {
            command.env_remove(name);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
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
            bail!("{} did not start: {ready:?}", program.display());
        };
        Ok(Self {
            child,
            addr,
            root,
            _stdout: stdout,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The file that publishes to `channel`.
    pub(crate) fn file(&self, channel: &str) -> PathBuf {
        self.root
            .path()
            .join("dir")
            .join(format!("{channel}.comet"))
    }

    pub(crate) fn publisher(&self) -> Result<Publisher> {
        let stream = UnixStream::connect(self.root.path().join("socket"))
            .context("cannot connect to the socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Publisher {
            replies: BufReader::new(stream.try_clone()?),
            stream,
        })
    }

    /// Bytes that this process alone needs, with its part of what it shares.
    pub(crate) fn pss(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let rollup = fs::read_to_string(&path).with_context(|| path.clone())?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kilobytes =
            pss.and_then(|pss| pss.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kilobytes.with_context(|| format!("no Pss in {path}"))? * 1024)
    }

    /// CPU that all threads have used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            if let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) {
                let on_cpu = schedstat
                    .split(' ')
                    .next()
                    .and_then(|first| first.parse::<u64>().ok());
                nanoseconds += on_cpu.context("schedstat")?;
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Has all threads of the server, and this one, run on these cores.
    pub(crate) fn run_on(&self, cores: &CpuSet) -> Result<()> {
        sched_setaffinity(Pid::from_raw(0), cores)?;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let thread = task?.file_name().to_string_lossy().parse()?;
            // A thread may end meanwhile.
            match sched_setaffinity(Pid::from_raw(thread), cores) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until the server does nothing but its timers. Returns the CPU that it has used by then.
    pub(crate) fn at_rest(&self) -> Result<Duration> {
        const WINDOW: Duration = Duration::from_millis(20);
        const TIMERS: Duration = Duration::from_micros(200);
        let (start, mut before) = (Instant::now(), self.cpu()?);
        let mut calm = 0;
        while calm < 2 {
            if start.elapsed() > Duration::from_secs(60) {
                bail!("the server never rests");
            }
            thread::sleep(WINDOW);
            let now = self.cpu()?;
            calm = if now - before < TIMERS { calm + 1 } else { 0 };
            before = now;
        }
        Ok(before)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection to the Unix socket.
pub(crate) struct Publisher {
    pub(crate) stream: UnixStream,
    pub(crate) replies: BufReader<UnixStream>,
}

impl Publisher {
    /// Publishes and waits for the reply. Returns the id.
    pub(crate) fn publish(&mut self, channel: &str, data: &str) -> Result<u64> {
        self.stream.write_all(line(channel, data).as_bytes())?;
        let mut reply = String::new();
        self.replies.read_line(&mut reply)?;
        id(reply.as_bytes()).with_context(|| format!("not published: {reply:?}"))
    }
}

pub(crate) fn line(channel: &str, data: &str) -> String {
    format!("{{\"op\":\"publish\",\"channel\":\"{channel}\",\"data\":\"{data}\"}}\n")
}

/// The id in a reply to a publish; `None`: it was refused.
pub(crate) fn id(reply: &[u8]) -> Option<u64> {
    let digits = reply
        .trim_ascii()
        .strip_prefix(b"{\"ok\":true,\"id\":")?
        .strip_suffix(b"}")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

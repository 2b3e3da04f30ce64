//! The environment of one server: a directory, ports, settings, and processes that are stopped with it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use tempfile::TempDir;

use super::programs;
use crate::{
    process,
    started::{self, Started},
};

/// A server that has not answered after this time counts as failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two attempts to reach the server.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Stage {
    /// The values for the `@word@` placeholders in the settings.
    words: Vec<(&'static str, String)>,
    children: Running,
    uncounted: Running,
    /// The directory. It is removed after all processes have ended.
    root: TempDir,
}

/// Processes that are stopped when this value is dropped, unless they were taken out.
#[derive(Default)]
struct Running(Vec<Child>);

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let root = started::root()?;
        let (descriptors, cores) = (descriptors()?, thread::available_parallelism()?);
        let words = vec![
            ("root", root.path().display().to_string()),
            // A peer gets as many processes or threads as Comet has workers.
            ("cores", cores.to_string()),
            ("descriptors", descriptors.to_string()),
            // Connections: a twentieth of the descriptors is left for other uses, for example 19000 of 20000 are
            // connections.
            ("connections", (descriptors - descriptors / 20).to_string()),
        ];
        Ok(Self {
            words,
            children: Running::default(),
            uncounted: Running::default(),
            root,
        })
    }

    /// Finds ports that are free now, and sets the placeholders to them.
    pub(super) fn ports<const N: usize>(
        &mut self,
        words: [&'static str; N],
    ) -> Result<[SocketAddr; N]> {
        // All ports stay open until the last one is found, so that no port is returned twice.
        let mut held = Vec::new();
        let mut addrs = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
        for (addr, word) in addrs.iter_mut().zip(words) {
            let listener = TcpListener::bind(*addr)?;
            *addr = listener.local_addr()?;
            self.words.push((word, addr.port().to_string()));
            held.push(listener);
        }
        Ok(addrs)
    }

    /// Writes a settings file with the placeholders filled in.
    pub(super) fn write(&self, name: &str, template: &str) -> Result<PathBuf> {
        let path = self.root.path().join(name);
        fs::write(&path, filled(template, &self.words))?;
        Ok(path)
    }

    pub(super) fn nginx(&mut self, settings: &Path) -> Result<()> {
        let mut nginx = Command::new(programs::find("nginx").unwrap_or_default());
        nginx.arg("-p").arg(self.root.path());
        nginx.args(["-e", "stderr", "-c"]).arg(settings);
        self.run("nginx", &mut nginx)
    }

    /// Starts a program of this server. Its output is kept, to be shown if the program fails.
    pub(super) fn run(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let log = File::create(self.root.path().join(format!("{name}.log")))?;
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        self.children.0.push(child);
        Ok(())
    }

    /// Excludes the processes that run so far from the measurement.
    pub(super) fn leave_uncounted(&mut self) {
        self.uncounted.0.append(&mut self.children.0);
    }

    /// Waits until a GET gets a successful response.
    pub(super) fn wait(&mut self, addr: SocketAddr, path: &str) -> Result<()> {
        self.wait_until(|| answers(addr, path))
    }

    /// Waits until the port accepts a connection.
    pub(super) fn wait_for_port(&mut self, addr: SocketAddr) -> Result<()> {
        self.wait_until(|| TcpStream::connect(addr).ok().map(drop))
    }

    fn wait_until(&mut self, mut done: impl FnMut() -> Option<()>) -> Result<()> {
        let start = Instant::now();
        while done().is_none() {
            if self.has_lost_a_child() {
                bail!("it ended by itself:\n{}", self.said());
            }
            if start.elapsed() > PATIENCE {
                bail!("no answer in {PATIENCE:?}:\n{}", self.said());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn has_lost_a_child(&mut self) -> bool {
        let mut children = self.children.0.iter_mut().chain(&mut self.uncounted.0);
        children.any(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The last part of what each program printed.
    fn said(&self) -> String {
        const END: usize = 2000;
        let entries = fs::read_dir(self.root.path()).into_iter().flatten();
        let logs = entries
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        let texts = logs.filter_map(|log| fs::read(log.path()).ok());
        let ends = texts.map(|text| {
            let end = text.len().saturating_sub(END);
            String::from_utf8_lossy(&text[end..]).into_owned()
        });
        ends.collect()
    }

    pub(super) fn started(self, addr: SocketAddr, publish: SocketAddr) -> Started {
        Started {
            children: self.children.taken(),
            uncounted: self.uncounted.taken(),
            addr,
            publish,
            root: self.root,
        }
    }
}

impl Running {
    fn taken(mut self) -> Vec<Child> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        process::stop(&mut self.0);
    }
}

/// Returns the number of descriptors for one process. More than 65,536 are of no use, and nginx allocates memory for
/// each.
fn descriptors() -> Result<u64> {
    const OF_USE: u64 = 65536;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(limit.min(OF_USE))
}

fn filled(template: &str, words: &[(&str, String)]) -> String {
    let fill =
        |text: String, (word, value): &(&str, String)| text.replace(&format!("@{word}@"), value);
    words.iter().fold(template.to_owned(), fill)
}

/// Sends a GET. `None`: there is no successful response yet.
fn answers(addr: SocketAddr, path: &str) -> Option<()> {
    /// Time-out of one attempt. Some servers make a client wait while they are not yet connected to their own parts.
    const ANSWER: Duration = Duration::from_millis(300);
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut status = [0; b"HTTP/1.1 2".len()];
    stream.read_exact(&mut status).ok()?;
    (status == *b"HTTP/1.1 2").then_some(())
}

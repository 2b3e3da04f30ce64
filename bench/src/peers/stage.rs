//! What each of the others is started on: a directory, ports, settings, and processes that end with it.

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

/// Who does not answer after so long never will.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Stage {
    /// What the settings' @words@ stand for.
    words: Vec<(&'static str, String)>,
    children: Running,
    uncounted: Running,
    /// Removed when nothing runs in it any more.
    root: TempDir,
}

/// Stopped, unless they are taken out.
#[derive(Default)]
struct Running(Vec<Child>);

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let root = started::root()?;
        let (descriptors, cores) = (descriptors()?, thread::available_parallelism()?);
        let words = vec![
            ("root", root.path().display().to_string()),
            // As many as Comet has workers.
            ("cores", cores.to_string()),
            ("descriptors", descriptors.to_string()),
            // What a process needs beside them, generously: 19000 of 20000.
            ("connections", (descriptors - descriptors / 20).to_string()),
        ];
        Ok(Self {
            words,
            children: Running::default(),
            uncounted: Running::default(),
            root,
        })
    }

    /// Ports that are free now; the words stand for them from here on.
    pub(super) fn ports<const N: usize>(
        &mut self,
        words: [&'static str; N],
    ) -> Result<[SocketAddr; N]> {
        // All are held until the last is found: none is given twice.
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

    /// Settings with the words filled in, as a file.
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

    /// Starts a program of this server. What it prints is kept for the case that it fails.
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

    /// What runs so far is not part of what is measured.
    pub(super) fn leave_uncounted(&mut self) {
        self.uncounted.0.append(&mut self.children.0);
    }

    /// Until a GET is answered well.
    pub(super) fn wait(&mut self, addr: SocketAddr, path: &str) -> Result<()> {
        self.wait_until(|| answers(addr, path))
    }

    /// Until there is somebody to connect to.
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

    /// The ends of what the programs printed.
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

/// How many one process may have. The settings want no more than are of use, and nginx has memory for each.
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

/// `None`: not yet.
fn answers(addr: SocketAddr, path: &str) -> Option<()> {
    /// Some servers let one wait for what they have not connected to yet.
    const ANSWER: Duration = Duration::from_millis(300);
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut status = [0; b"HTTP/1.1 2".len()];
    stream.read_exact(&mut status).ok()?;
    (status == *b"HTTP/1.1 2").then_some(())
}

//! Runs Comet's daemon as a child process with its own directory, port and log.

use std::{
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Server, port, signal, wait_for};
use crate::{
    random::Random,
    target::{Kind, Target},
};

pub struct Comet {
    program: PathBuf,
    root: Option<TempDir>,
    path: PathBuf,
    addr: SocketAddr,
    child: Option<Child>,
}

impl Comet {
    /// Prepares a directory. `config` (TOML) is added to the required settings. `@root@` in it stands for the
    /// directory.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn prepare(program: &Path, config: &str, random: &mut Random) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("comet-torture-")
            .tempdir()?;
        let path = root.path().to_owned();
        fs::create_dir(path.join("dir"))?;
        let config = config.replace("@root@", &path.display().to_string());
        fs::write(path.join("comet.toml"), config)?;
        Ok(Self {
            program: program.into(),
            root: Some(root),
            path,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port(random)?)),
            child: None,
        })
    }

    /// Starts the daemon. Does not wait until it listens.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut command = Command::new(&self.program);
        command.args(["serve", "--listen", &self.addr.to_string(), "--config"]);
        command.arg(self.path.join("comet.toml"));
        command.arg("--dir").arg(self.dir());
        command.arg("--socket").arg(self.socket());
        command.arg("--store").arg(self.store());
        // Environment variables of Comet must not change the test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COMET_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        let child = command.stderr(log).spawn();
        self.child = Some(child.with_context(|| self.program.display().to_string())?);
        Ok(())
    }

    /// Waits until the daemon listens.
    ///
    /// # Errors
    /// When the daemon ends instead.
    pub fn wait(&mut self) -> Result<()> {
        let (addr, log) = (self.addr, self.log());
        let child = self.child.as_mut().context("it was started")?;
        wait_for(addr, || match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("comet ended ({status}): see {}", log.display()),
        })
    }

    /// Whether the daemon listens now.
    #[must_use]
    pub fn listens(&self) -> bool {
        TcpStream::connect(self.addr).is_ok_and(|s| s.local_addr().ok() != s.peer_addr().ok())
    }

    /// The exit status, if the daemon has ended.
    ///
    /// # Errors
    /// When the system does not report the status.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().map(Child::try_wait);
        Ok(child.transpose()?.flatten())
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn terminate(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::SIGTERM);
            child.wait()?;
        }
        Ok(())
    }

    /// The directory of all its files.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// The directory that the daemon watches.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.path.join("dir")
    }

    /// The path of the message log.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    /// What the daemon printed, over all starts.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    #[must_use]
    pub fn target(&self) -> Target {
        let mut target = Target::new(Kind::Comet, self.addr);
        target.socket = Some(self.socket());
        target
    }

    /// The paths of `[compat.nchan]`, where the daemon speaks like nchan.
    #[must_use]
    pub fn nchan_target(&self) -> Target {
        Target::nchan_of_comet(self.addr)
    }

    /// Keeps the directory for an investigation. Returns its path.
    pub fn keep(&mut self) -> PathBuf {
        self.root.take().map_or(self.path.clone(), TempDir::keep)
    }
}

impl Server for Comet {
    fn restart(&mut self, random: &mut Random) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!(
                "comet ended by itself ({status}): see {}",
                self.log().display()
            );
        }
        if random.once_in(2) {
            self.kill()?;
        } else {
            self.terminate()?;
        }
        self.start()?;
        self.wait()
    }

    fn restarts_by(&self) -> String {
        "SIGKILL or SIGTERM, and a start".into()
    }
}

impl Drop for Comet {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

//! Comet's daemon as a child, on a directory, a port and a log of its own.

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
    /// Prepares a directory; `config` (TOML) is added to what is needed. `@root@` in it is the directory.
    ///
    /// # Errors
    /// When there is no room.
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

    /// Starts it; does not wait until it listens.
    ///
    /// # Errors
    /// When the system does not.
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
        // Nothing that is set here may change what is tested.
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

    /// Waits until it listens.
    ///
    /// # Errors
    /// When it ends instead.
    pub fn wait(&mut self) -> Result<()> {
        let (addr, log) = (self.addr, self.log());
        let child = self.child.as_mut().context("it was started")?;
        wait_for(addr, || match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("comet ended ({status}): see {}", log.display()),
        })
    }

    /// Whether it listens by now.
    #[must_use]
    pub fn listens(&self) -> bool {
        TcpStream::connect(self.addr).is_ok_and(|s| s.local_addr().ok() != s.peer_addr().ok())
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().map(Child::try_wait);
        Ok(child.transpose()?.flatten())
    }

    /// SIGKILL, and its end.
    ///
    /// # Errors
    /// When the system does not.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and its end.
    ///
    /// # Errors
    /// When the system does not.
    pub fn terminate(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::SIGTERM);
            child.wait()?;
        }
        Ok(())
    }

    /// Everything that it has on disk.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// What it watches.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.path.join("dir")
    }

    /// Its log.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    /// What it said, over all starts.
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

    /// Leaves its directory for who wants to know why; returns where.
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

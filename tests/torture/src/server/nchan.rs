//! Runs nginx with nchan, from Debian's package, as a child process.

use std::{
    env, fs,
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Server, port, signal, wait_for};
use crate::{
    random::Random,
    target::{Kind, Target},
};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// The path of nginx, if nginx and the module are installed.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    // Servers are in sbin, which only root has in `PATH`.
    dirs.push("/usr/sbin".into());
    let mut found = dirs.into_iter().map(|dir| dir.join("nginx"));
    found.find(|nginx| nginx.is_file() && Path::new(MODULE).is_file())
}

pub struct Nchan {
    program: PathBuf,
    root: TempDir,
    addr: SocketAddr,
    child: Option<Child>,
}

impl Nchan {
    /// Starts nginx. Each channel keeps this many messages.
    ///
    /// # Errors
    /// When nginx does not start.
    pub fn start(program: PathBuf, messages: usize, random: &mut Random) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("comet-torture-")
            .tempdir()?;
        let port = port(random)?;
        let config = include_str!("../../nchan.conf")
            .replace("@root@", &root.path().display().to_string())
            .replace("@messages@", &messages.to_string())
            .replace("@port@", &port.to_string());
        fs::write(root.path().join("nginx.conf"), config)?;
        let mut nchan = Self {
            program,
            root,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            child: None,
        };
        nchan.go()?;
        Ok(nchan)
    }

    fn go(&mut self) -> Result<()> {
        let log = File::create(self.root.path().join("log"))?;
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(self.root.path());
        command.args(["-e", "stderr", "-c"]);
        command.arg(self.root.path().join("nginx.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        let child = command.stderr(log).spawn().context("cannot start nginx")?;
        let child = self.child.insert(child);
        let log = self.root.path().join("log");
        wait_for(self.addr, || match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "nginx ended ({status}): {}",
                fs::read_to_string(&log).unwrap_or_default()
            ),
        })
    }

    /// Stops nginx by SIGTERM. Its worker processes would survive a SIGKILL of the master.
    fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::SIGTERM);
            child.wait()?;
        }
        Ok(())
    }

    #[must_use]
    pub fn target(&self) -> Target {
        Target::new(Kind::Nchan, self.addr)
    }
}

impl Server for Nchan {
    fn restart(&mut self, _: &mut Random) -> Result<()> {
        self.stop()?;
        self.go()
    }

    fn restarts_by(&self) -> String {
        "SIGTERM, and a start".into()
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

//! Holds idle polls in a separate process. So the measuring process keeps its own descriptors and its own epoll
//! instance, and the bench can hold thousands of polls on several servers at once.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{kind::Kind, load::Load, server::Server};

/// A channel on which nothing is published.
const CHANNEL: &str = "idle";

pub(crate) struct Hold {
    child: Child,
}

impl Hold {
    /// Parks `count` polls. When this returns, the server is idle.
    pub(crate) fn park(server: &Server, count: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--hold")
            .args([server.kind.name(), &server.addr().to_string()])
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("it is piped")?;
        let hold = Self { child };
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        if ready.trim() != "parked" {
            bail!("{count} idle polls could not be parked");
        }
        server.at_rest()?;
        Ok(hold)
    }

    /// Parks `count` polls on each server. With a count of 0, nothing is parked.
    pub(crate) fn park_all(servers: &[Server], count: usize) -> Result<Vec<Self>> {
        let servers = servers.iter().filter(|_| count > 0);
        servers.map(|server| Self::park(server, count)).collect()
    }

    /// Checks that the polls still wait.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the idle polls did not stay: {status}"),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Holds `count` polls until standard input ends.
pub(crate) fn main(kind: Kind, addr: SocketAddr, count: usize) -> Result<()> {
    let mut load = Load::connect(kind, addr, CHANNEL, count)?;
    load.poll()?;
    println!("parked");
    load.hold(std::io::stdin().as_fd())
}

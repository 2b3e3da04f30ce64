//! A server that was started: its processes, its addresses and its directory.

use std::{fs, net::SocketAddr, process::Child};

use anyhow::Result;
use tempfile::TempDir;

/// What starting a server gives.
pub(crate) struct Started {
    /// Those that are told to stop; what they started themselves is found.
    pub(crate) children: Vec<Child>,
    /// What it needs to be of use and is not part of it, like an origin behind a proxy.
    pub(crate) uncounted: Vec<Child>,
    /// Where polls and streams go.
    pub(crate) addr: SocketAddr,
    /// Where HTTP publishes go.
    pub(crate) publish: SocketAddr,
    /// Everything that it needs on disk, and removed with it. Files that publish are `dir/CHANNEL.comet` in it, and
    /// the Unix socket is `socket`.
    pub(crate) root: TempDir,
}

/// A directory of its own, in memory, with the one for files in it.
pub(crate) fn root() -> Result<TempDir> {
    let root = tempfile::Builder::new()
        .prefix("comet-bench-")
        .tempdir_in("/dev/shm")?;
    fs::create_dir(root.path().join("dir"))?;
    Ok(root)
}

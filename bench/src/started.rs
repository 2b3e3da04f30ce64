//! A server that was started: its processes, its addresses and its directory.

use std::{fs, net::SocketAddr, process::Child};

use anyhow::Result;
use tempfile::TempDir;

/// The result of starting a server.
pub(crate) struct Started {
    /// The processes that are asked to stop. Their descendants are found when they are needed.
    pub(crate) children: Vec<Child>,
    /// Processes that the server needs but that do not belong to the measurement, such as the origin behind a proxy.
    pub(crate) uncounted: Vec<Child>,
    /// The address for polls and streams.
    pub(crate) addr: SocketAddr,
    /// The address for publishes over HTTP.
    pub(crate) publish: SocketAddr,
    /// The directory with all files of the server. It is removed with this value. Files that publish are
    /// `dir/CHANNEL.comet`, and the Unix socket is `socket`.
    pub(crate) root: TempDir,
}

/// Creates a temporary directory in memory, with the subdirectory for files that publish.
pub(crate) fn root() -> Result<TempDir> {
    let root = tempfile::Builder::new()
        .prefix("comet-bench-")
        .tempdir_in("/dev/shm")?;
    fs::create_dir(root.path().join("dir"))?;
    Ok(root)
}

//! How the commands find the daemon and its configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use comet_client::{Client, Options};
use comet_daemon::config::Config;

/// Time limit for the daemon's answer. A busy machine may need seconds, and a person or a cron job can wait that long.
const PATIENCE: Duration = Duration::from_secs(5);

/// How to find the daemon.
#[derive(clap::Args)]
pub(super) struct SocketArgument {
    /// Unix socket of the daemon
    ///
    /// [default: /run/comet/comet.sock if that directory can be used, else $XDG_RUNTIME_DIR/comet.sock]
    #[arg(
        long,
        value_name = "PATH",
        env = "COMET_SOCKET",
        hide_env_values = true
    )]
    pub(super) socket: Option<PathBuf>,
}

/// A client of the daemon at this socket.
pub(super) fn client(socket: SocketArgument) -> Client {
    Client::new(options(socket))
}

/// How the publishing client finds the daemon, and how long it waits.
pub(super) fn options(socket: SocketArgument) -> Options {
    Options {
        socket: socket.socket,
        timeout: PATIENCE,
        ..Options::default()
    }
}

/// Reads the configuration file, or returns the defaults if there is none.
pub(super) fn read_config(path: Option<&Path>) -> anyhow::Result<Config> {
    Ok(path.map_or_else(|| Ok(Config::default()), Config::read)?)
}

//! Blocking publisher: over the daemon's Unix socket ([`Client`]), which can leave messages in the [`Spool`] while
//! the daemon is away, and by files ([`Directory`]). The C library,
//! PHP and the command line use it. `comet_proto` defines the formats.

mod backlog;
mod client;
mod connection;
mod error;
mod files;
mod key;
mod options;
mod outbox;
mod path;
mod reply;
mod spool;

pub use client::{Acknowledge, Client, Outcome};
pub use comet_proto as proto;
pub use error::Error;
pub use files::{Directory, FileError};
pub use options::{Options, OptionsError, SpoolUse};
pub use path::{MAX_PATH, SYSTEM_SOCKET, SocketPathError, socket_path};
pub use spool::{
    SPOOL_LIMITS, SPOOL_SUFFIX, Spool, SpoolError, SpoolLimits, make_spool, spool_path, take_away,
    write_spool_limits,
};

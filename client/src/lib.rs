//! A blocking publisher, over the daemon's Unix socket ([`Client`]) or by files ([`Directory`]). While no daemon runs,
//! [`Client`] can store messages in the [`Spool`]. The C library, PHP and the command line use this crate. `comet_proto`
//! defines the formats.

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

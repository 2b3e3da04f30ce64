//! Blocking publisher: over the daemon's Unix socket ([`Client`]) and by files ([`Directory`]). The C library,
//! PHP and the command line stand on it. Formats are `comet_proto`'s; the daemon's side is elsewhere.

mod client;
mod connection;
mod error;
mod files;
mod key;
mod options;
mod path;

pub use client::{Acknowledge, Client};
pub use comet_proto as proto;
pub use error::Error;
pub use files::{Directory, FileError};
pub use options::{Options, OptionsError};
pub use path::{MAX_PATH, SYSTEM_SOCKET, SocketPathError, socket_path};

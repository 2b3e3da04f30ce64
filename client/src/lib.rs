//! Blocking publisher.

mod path;

pub use path::{MAX_PATH, SYSTEM_SOCKET, SocketPathError, socket_path};

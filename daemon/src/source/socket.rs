//! Unix socket.

//! The comet daemon.

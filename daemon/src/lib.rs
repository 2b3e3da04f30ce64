//! The comet daemon: sources publish into the [`hub`], transports carry what it keeps to those who wait.

pub mod auth;
pub mod config;
pub mod hub;
pub mod metrics;
pub mod source;

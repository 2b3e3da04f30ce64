//! The comet daemon: sources publish into the [`hub`], and transports carry messages to subscribers.

pub mod access;
mod api;
pub mod broker;
mod compat;
pub mod config;
mod connection;
pub mod drain;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod hub;
#[cfg(test)]
mod layout;
mod log_limit;
mod machine;
pub mod metrics;
pub mod presence;
pub mod run;
mod session;
pub mod source;
pub mod store;
mod transport;
pub mod users;
pub mod worker;

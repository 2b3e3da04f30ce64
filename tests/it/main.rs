//! Everything that a user can see, against the real daemon: one file per subject.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(unreachable_pub, reason = "pub is what other modules of the tests use")]

mod browser;
mod browser_client;
mod cli;
mod config;
mod daemon;
mod files;
mod files_refused;
mod files_rescan;
mod http_limits;
mod http;
mod sse;
mod iframe;
mod http2;
mod novcomet;
mod zeitoun;
mod shutdown;
mod longpoll;
mod socket;
mod webdriver;
mod websocket;
mod wire;

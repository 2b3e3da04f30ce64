//! Everything that a user can see, against the real daemon: one file per subject.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(unreachable_pub, reason = "pub is what other modules of the tests use")]

mod advice;
mod browser;
mod browser_client;
mod browser_restart;
mod ceiling;
mod cli;
mod clock;
mod config;
mod cross_site;
mod crowded_socket;
mod cursors;
mod daemon;
mod exhausted;
mod files;
mod files_refused;
mod files_rescan;
mod hostile_files;
mod hostile_socket;
mod http;
mod http2;
mod http2_hostile;
mod http_bodies;
mod http_limits;
mod http_refused;
mod iframe;
mod injection;
mod http_validators;
mod inotify_limits;
mod longpoll;
mod negotiated;
mod novcomet;
mod origins;
mod other_user;

mod proxies;
mod reload;
mod resumed;
mod rights;
mod service;
mod shutdown;
mod smuggling;
mod socket;
mod socket_file;
mod socket_subscribers;
mod sse;
mod store;
mod timers;
mod tokens;
mod tokens_brought;
mod tokens_expire;
mod webdriver;
mod websocket;
mod websocket_browser;
mod websocket_frames;
mod websocket_handshake;
mod websocket_hostile;
mod wire;
mod zeitoun;

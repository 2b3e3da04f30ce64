//! Everything that a user can see, against the real daemon: one file per subject.

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
mod longpoll;
mod socket;
mod webdriver;
mod websocket;
mod wire;

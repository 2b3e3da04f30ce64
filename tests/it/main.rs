//! Everything that a user can see, against the real daemon: one file per subject.

mod daemon;
mod files;
mod files_refused;
mod files_rescan;
mod browser;
mod browser_client;
mod webdriver;
mod websocket;
mod http_limits;
mod longpoll;
mod wire;
mod cli;
mod config;
mod socket;

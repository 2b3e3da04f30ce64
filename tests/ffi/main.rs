//! libcomet as programs in C and Python see it: the library that is shipped, the headers, and the real daemon,
//! or a peer on its worst day. And PHP, over it: tests/php.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod headers;
mod library;
#[path = "../php/mod.rs"]
mod php;
mod programs;
mod support;

//! Tests libcomet from C and Python: the built library and its headers, against the real daemon or against a faulty
//! server. Tests of PHP over libcomet are in tests/php.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod headers;
mod library;
#[path = "../php/mod.rs"]
mod php;
mod programs;
mod support;

//! Builds with cargo the programs that these tests run without depending on their packages.
#![allow(dead_code, reason = "each of the tests needs a part of it")]

use std::{path::PathBuf, process::Command};

/// The path of the daemon.
pub(crate) fn daemon() -> PathBuf {
    built("comet-daemon", "comet")
}

/// The path of libcomet.so.
pub(crate) fn library() -> PathBuf {
    built("comet-ffi", "libcomet.so")
}

fn built(package: &str, file: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--profile", profile]);
    cargo.args(["--package", package]);
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(status.unwrap().success(), "{cargo:?}");
    // The path of this test is target/PROFILE/deps/NAME.
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join(file)
}

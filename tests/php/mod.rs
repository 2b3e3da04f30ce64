//! Tests Comet from PHP: `Comet\Client` over FFI and over the extension, and a whole site with php-fpm and nginx.

mod client;
mod relay;
mod server;
mod site;

use std::{path::Path, process::Command, sync::OnceLock};

use super::support::{library, library_dir, repository, run};

/// Builds the extension with the script that users run.
fn extension() -> &'static Path {
    static EXTENSION: OnceLock<std::path::PathBuf> = OnceLock::new();
    EXTENSION.get_or_init(|| {
        library();
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        let mut build = Command::new(repository().join("php-ext-example/build"));
        run(build.arg(profile)).trim().into()
    })
}

/// How the class calls the library.
#[derive(Debug, Clone, Copy)]
enum Over {
    Ffi,
    Extension,
}

const BOTH: [Over; 2] = [Over::Ffi, Over::Extension];

/// PHP's command line with a script of this directory. Every warning is an error.
fn php(over: Over, script: &str) -> Command {
    let mut php = Command::new("php");
    php.env("LD_LIBRARY_PATH", library_dir());
    php.args([
        "-d",
        "error_reporting=-1",
        "-d",
        "display_errors=stderr",
        "-d",
        "log_errors=0",
    ]);
    if let Over::Extension = over {
        php.arg("-d")
            .arg(format!("extension={}", extension().display()));
    }
    php.arg(repository().join("tests/php").join(script));
    php
}

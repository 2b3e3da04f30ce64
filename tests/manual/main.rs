//! The manuals are run, not read: the commands of README.md, docs/operations.md and php-ext-example/README.md, as they
//! are printed there, set up a machine, and what they promise is tried on it.
//!
//! In the Markdown `<!-- run: NAME -->` before a block names the block for these tests. A page does not show the mark.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod installation;
mod machine;
mod markdown;
mod publishing;
mod service;
mod settings;
mod walk;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test fails; nothing waits for so long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// The profile by which cargo has built these tests, as `make` takes it.
fn profile() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

/// Waits until there is a value.
fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command to its end; what it printed, and whether it succeeded.
fn output(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Runs a command that must succeed; what it printed.
fn run(command: &mut Command) -> String {
    let (succeeded, text) = output(command);
    assert!(succeeded, "{command:?}\n{text}");
    text
}

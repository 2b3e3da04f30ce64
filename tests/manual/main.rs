//! Runs the commands of README.md, docs/operations.md and php-ext-example/README.md exactly as they are printed there,
//! sets up a machine with them, and tests what these manuals promise.
//!
//! In the Markdown `<!-- run: NAME -->` before a block names the block for these tests. A rendered page does not show
//! it.

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

/// Time-out after which a test fails. No wait takes that long if all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// The cargo profile of these tests, in the form that `make` accepts.
fn profile() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

/// Repeats `attempt` until it returns a value.
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

/// Runs a command to its end. Returns whether it succeeded, and its output.
fn output(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Runs a command that must succeed. Returns its output.
fn run(command: &mut Command) -> String {
    let (succeeded, text) = output(command);
    assert!(succeeded, "{command:?}\n{text}");
    text
}

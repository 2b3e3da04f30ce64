//! The `comet` command.

mod cli;

use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if error.is::<cli::ClosedPipe>() => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody listens to errors either, the exit code still tells.
            let text = format!("{error:#}");
            let _ = writeln!(std::io::stderr(), "comet: {}", cli::visible(&text));
            ExitCode::FAILURE
        }
    }
}

//! The `comet` command.

mod cli;

use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has closed it, which is no error.
        Err(error) if error.is::<cli::ClosedPipe>() => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, too, the exit code still reports the failure.
            let text = format!("{error:#}");
            let _ = writeln!(std::io::stderr(), "comet: {}", cli::visible(&text));
            ExitCode::FAILURE
        }
    }
}

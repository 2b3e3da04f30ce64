//! What Comet costs: memory of a parked poll, CPU of a delivery, time from a touch to the client, and publishes a
//! second. The real daemon runs beside programs that do the least there is to do (`floor`), in one run and in
//! turns, so that a busy machine touches both.
//!
//! Every delivery is checked; one that is lost, doubled, out of order or not ours ends the run with an error.

mod answer;
mod floor;
mod load;
mod measure;
mod report;
mod server;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use measure::Scale;
use report::Report;

/// Measure Comet beside programs that do the least
///
/// Prints medians (and the least and the greatest), and exits with an error when any delivery was lost, doubled, out
/// of order or foreign.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  comet-bench --quick                         a minute's run with few connections
  comet-bench --json raw.json                 everything, with each single measurement in a file
  comet-bench memory --connections 5000       one subject")]
struct Arguments {
    /// What to measure [default: all]
    #[arg(value_enum)]
    subjects: Vec<Subject>,
    /// Few connections and rounds: to see that it works, not to compare
    #[arg(long)]
    quick: bool,
    /// Connections in the memory test [default: 15000]; the fan-out takes two thirds of them
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Rounds of the interleaved measurements [default: 7]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Writes each single measurement to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The daemon's program [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    comet: Option<PathBuf>,
    /// Be the program that does the least, for a directory and a socket
    #[arg(long, hide = true, num_args = 2, value_names = ["DIR", "SOCKET"])]
    floor: Option<Vec<PathBuf>>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// User memory of a parked poll, and its growth
    Memory,
    /// CPU of a delivery
    Fanout,
    /// From a touch to the client
    Touch,
    /// Publishes a second over the Unix socket
    Publish,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("comet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    raise_descriptor_limit()?;
    if let Some([dir, socket]) = arguments.floor.as_deref() {
        return floor::main(dir, socket);
    }
    let scale = Scale::new(arguments.quick, arguments.connections, arguments.rounds);
    let wants = |subject| arguments.subjects.is_empty() || arguments.subjects.contains(&subject);
    if wants(Subject::Memory) || wants(Subject::Fanout) {
        check_descriptor_limit(scale.connections)?;
    }
    let comet = match arguments.comet {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("comet"),
    };
    if !comet.exists() {
        bail!(
            "{} does not exist: cargo build --release -p comet-daemon, or --comet PATH",
            comet.display()
        );
    }

    let mut report = Report::new(&comet, &scale)?;
    if wants(Subject::Memory) {
        measure::memory(&comet, &scale, &mut report).context("memory")?;
    }
    if wants(Subject::Fanout) {
        measure::fanout(&comet, &scale, &mut report).context("fanout")?;
    }
    if wants(Subject::Touch) {
        measure::touch(&comet, &scale, &mut report).context("touch")?;
    }
    if wants(Subject::Publish) {
        measure::publish(&comet, &scale, &mut report).context("publish")?;
    }
    report.print();
    if let Some(path) = arguments.json {
        report
            .write_json(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Soft to hard; the servers that are started inherit it.
fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the descriptor limit")
}

fn check_descriptor_limit(connections: usize) -> Result<()> {
    /// What a process needs beside its connections, generously.
    const OTHER: u64 = 300;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = connections as u64 + OTHER;
    if hard < needed {
        bail!(
            "the limit of {hard} descriptors a process is too low for {connections} connections, which need \
             {needed}: raise it (ulimit -Hn, as root) or use --connections {}",
            hard.saturating_sub(OTHER)
        );
    }
    Ok(())
}

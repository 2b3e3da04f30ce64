//! Measures what Comet costs, beside other servers: memory of a parked poll, CPU of a delivery, latencies, and
//! publishes a second.
//!
//! The bench starts the real daemon, the other servers, and programs that do the minimum of work (`floor`). All are
//! measured in one run and in turns, so that a busy machine affects all of them.
//!
//! Every delivery is checked. A message of Comet's that is lost, doubled, out of order or foreign ends the run with an
//! error. Such messages of other servers are counted.

mod answer;
mod bench;
mod dialect;
mod floor;
mod hold;
mod kind;
mod load;
mod machine;
mod measure;
mod message;
mod peers;
mod plot;
mod posts;
mod process;
mod publisher;
mod report;
mod scale;
mod server;
mod started;
mod stream;
mod wait;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{
    Parser, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use bench::Bench;
use kind::Kind;
use machine::Machine;
use measure::SUBJECTS;
use report::Report;
use scale::Scale;

/// Measure Comet beside other servers, and beside programs that do the least
///
/// Prints medians (and the least and the greatest), and exits with an error when any delivery of Comet's was lost,
/// doubled, out of order or foreign. Servers that are not installed are left out, which is said.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  comet-bench --quick                         a run of two minutes with few connections
  comet-bench --json raw.json                 everything, with each single measurement in a file
  comet-bench memory --connections 5000       one subject
  comet-bench fanout --only comet,nchan       some of the servers")]
struct Arguments {
    /// What to measure [default: all]
    #[arg(value_parser = subjects())]
    subjects: Vec<String>,
    /// Few connections and rounds: to see that it works, not to compare
    #[arg(long)]
    quick: bool,
    /// Connections of the largest audience [default: 15000]; a fan-out takes two thirds of them
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Rounds of the interleaved measurements [default: 7, and 5 of those that take long]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Servers that take part [default: all that are installed]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Writes each single measurement to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the table to a file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes plots (SVG) to a directory
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// The daemon's program [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    comet: Option<PathBuf>,
    /// Be the program that does the least, for a directory and a socket
    #[arg(long, hide = true, num_args = 2, value_names = ["DIR", "SOCKET"])]
    floor: Option<Vec<PathBuf>>,
    /// Hold idle polls
    #[arg(long, hide = true, num_args = 3, value_names = ["SERVER", "ADDR", "COUNT"])]
    hold: Option<Vec<String>>,
}

fn subjects() -> PossibleValuesParser {
    let values = SUBJECTS.iter();
    PossibleValuesParser::new(
        values.map(|subject| PossibleValue::new(subject.name).help(subject.about)),
    )
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
    let descriptors = raise_descriptor_limit()?;
    if let Some([dir, socket]) = arguments.floor.as_deref() {
        return floor::main(dir, socket);
    }
    if let Some([kind, addr, count]) = arguments.hold.as_deref() {
        let kind = Kind::from_str(kind, false).map_err(anyhow::Error::msg)?;
        return hold::main(kind, addr.parse()?, count.parse()?);
    }
    let scale = Scale::new(arguments.quick, arguments.connections, arguments.rounds);
    check_descriptor_limit(scale.connections, descriptors)?;
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

    let mut report = Report::new(Machine::look(&comet, descriptors)?, scale);
    let bench = Bench::new(comet, scale, arguments.only);
    let wanted = &arguments.subjects;
    for subject in SUBJECTS {
        if wanted.is_empty() || wanted.iter().any(|name| name == subject.name) {
            (subject.run)(&bench, &mut report).context(subject.name)?;
        }
    }
    report.left_out = bench.left_out();
    report.print();
    if let Some(path) = arguments.json {
        report.write_json(&path)?;
    }
    if let Some(path) = arguments.markdown {
        report.write_markdown(&path)?;
    }
    if let Some(dir) = arguments.plots {
        plot::write(&report.curves, &dir)?;
    }
    Ok(())
}

/// Raises the soft limit of descriptors to the hard limit. The started servers inherit the limit.
fn raise_descriptor_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the descriptor limit")?;
    Ok(hard)
}

fn check_descriptor_limit(connections: usize, limit: u64) -> Result<()> {
    /// Descriptors that a process needs beside its connections, rounded up.
    const OTHER: u64 = 300;
    let needed = connections as u64 + OTHER;
    if limit < needed {
        bail!(
            "the limit of {limit} descriptors a process is too low for {connections} connections, which need \
             {needed}: raise it (ulimit -Hn, as root) or use --connections {}",
            limit.saturating_sub(OTHER)
        );
    }
    Ok(())
}

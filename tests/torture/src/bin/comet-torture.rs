//! Kills Comet's daemon thousands of times: `make torture`, docs/delivery.md.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::Parser;
use comet_torture::crash::{self, Plan};

/// Kill the daemon at random moments while messages are published, and check that none is lost, doubled or out of order
///
/// Exits with 1, and says where the daemon's directory and log are kept, when one is.
#[derive(Parser)]
struct Arguments {
    /// How often
    #[arg(long, value_name = "N", default_value_t = 5000)]
    kills: usize,
    /// How often the log is harmed as well, after that: its end cut, a byte changed, something written behind it
    #[arg(long, value_name = "N", default_value_t = 90)]
    tears: usize,
    /// Kills between two verdicts
    #[arg(long, value_name = "N", default_value_t = 50)]
    round: usize,
    /// Repeats the choices of a run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Comet's program [default: the one beside this]
    #[arg(long, value_name = "PATH")]
    comet: Option<PathBuf>,
    /// libcomet.so [default: the one beside this]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("comet-torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let beside = |given: &Option<PathBuf>, name| match given {
        Some(path) => Ok(path.clone()),
        None => Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name(name)),
    };
    let plan = Plan {
        program: beside(&arguments.comet, "comet")?,
        library: beside(&arguments.library, "libcomet.so")?,
        seed: match arguments.seed {
            Some(seed) => seed,
            None => std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64,
        },
        kills: arguments.kills,
        round: arguments.round.max(1),
        config: crash::CONFIG.into(),
    };
    for needed in [&plan.program, &plan.library] {
        if !needed.exists() {
            bail!(
                "{} is not there: cargo build -p comet-daemon -p comet-ffi",
                needed.display()
            );
        }
    }
    println!("seed {}", plan.seed);
    let survived = crash::run(&plan)?;
    let f = survived.figures;
    println!(
        "{} kills survived, {} of them before it listened; {} messages acknowledged, {} deliveries of them checked: \
         none lost, doubled or out of order; {} gaps told in vain; {} files told again",
        survived.kills,
        survived.early,
        survived.acknowledged,
        f.delivered,
        f.false_gaps,
        f.repeated
    );
    let torn = crash::tear(&plan, arguments.tears)?;
    println!(
        "{} logs with something behind their last record: nothing lost; {} without their end, {} with a changed byte: \
         {} messages lost and told, {} of lost ends that cannot be known of",
        torn.appended, torn.cut, torn.changed, torn.told, torn.unknowable
    );
    Ok(())
}

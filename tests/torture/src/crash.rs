//! Kills Comet's daemon at random moments. Meanwhile publishers send messages by HTTP, the socket, the C library and
//! files, and subscribers read by long-poll and event stream.
//!
//! After some kills everything comes to rest and is judged. Then the test continues.

mod cast;
mod tear;

pub use tear::{Torn, tear};

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    random::Random,
    server::Comet,
    subscriber::lock,
    verdict::{Figures, judge},
};
use cast::Cast;

/// The plan of a test: programs, number of kills and settings.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Path of Comet's program.
    pub program: PathBuf,
    /// Path of libcomet.so.
    pub library: PathBuf,
    pub seed: u64,
    /// Number of times that the daemon is killed.
    pub kills: usize,
    /// Number of kills between two verdicts.
    pub round: usize,
    /// Further settings (TOML) of the daemon. `@root@` stands for its directory.
    pub config: String,
}

/// The result of a test.
#[derive(Debug, Default, Clone, Copy)]
pub struct Survived {
    pub kills: usize,
    /// Kills before the daemon listened.
    pub early: usize,
    /// Acknowledged messages, without files.
    pub acknowledged: u64,
    /// The sum over all subscribers.
    pub figures: Figures,
}

/// The daemon's limits. It keeps few messages, so that the log is compacted all the time, but enough for all
/// subscribers that are disconnected while the daemon is down.
pub const CONFIG: &str = r#"
[http]
publish = true
[history]
messages = 1000
age = "1h"
[store]
durability = "process"
rewrite = "256KiB"
"#;

/// Time-out for any step while the daemon is not killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the daemon as often as planned.
///
/// # Errors
/// When an acknowledged message is missing, arrived twice or out of order, or when the daemon does not start again. The
/// daemon's directory is kept then, and the error names it.
pub fn run(plan: &Plan) -> Result<Survived> {
    let mut random = Random::new(plan.seed, "crash");
    let mut comet = Comet::prepare(&plan.program, &plan.config, &mut random)?;
    let mut survived = Survived::default();
    let done = torture(plan, &mut comet, &mut random, &mut survived);
    if let Err(error) = done {
        let kept = comet.keep();
        return Err(error.context(format!(
            "seed {}, after {} kills; the daemon's directory is kept: {}",
            plan.seed,
            survived.kills,
            kept.display()
        )));
    }
    Ok(survived)
}

fn torture(
    plan: &Plan,
    comet: &mut Comet,
    random: &mut Random,
    survived: &mut Survived,
) -> Result<()> {
    comet.start()?;
    comet.wait()?;
    let mut cast = Cast::assemble(comet, &plan.library, plan.seed)?;
    cast.wait_for_first()?;
    while survived.kills < plan.kills {
        let kills = plan.round.min(plan.kills - survived.kills);
        for _ in 0..kills {
            kill(comet, random, survived)?;
        }
        comet.wait()?;
        judge_round(&mut cast, survived)?;
    }
    Ok(())
}

/// Kills the daemon at a random moment after its start, and starts it again.
fn kill(comet: &mut Comet, random: &mut Random, survived: &mut Survived) -> Result<()> {
    let life = match random.below(20) {
        // While the daemon starts, reads its log, or compacts it.
        0..5 => random.millis(0, 6),
        5..8 => random.millis(0, 50),
        8..19 => random.millis(20, 250),
        _ => random.millis(300, 900),
    };
    thread::sleep(life);
    if let Some(status) = comet.ended()? {
        bail!("the daemon ended by itself: {status}");
    }
    if !comet.listens() {
        survived.early += 1;
    }
    comet.kill()?;
    survived.kills += 1;
    comet.start()
}

/// Lets publishers and subscribers come to rest, and compares the received with the acknowledged messages.
fn judge_round(cast: &mut Cast, survived: &mut Survived) -> Result<()> {
    cast.rest(PATIENCE)?;
    let behind = cast.wait_for_last(PATIENCE);
    // A message that must not arrive could arrive after the last expected one.
    thread::sleep(Duration::from_millis(100));
    let (figures, mut examples) = cast.judge();
    survived.figures += figures;
    survived.acknowledged = cast.acknowledged();
    examples.extend(cast.refusals());
    if figures.faulty() || figures.told > 0 || !examples.is_empty() {
        bail!("{figures:?}\n{}", examples.join("\n"));
    }
    behind?;
    cast.read_all_again(PATIENCE)?;
    cast.begin_again();
    Ok(())
}

/// Waits until `done` returns true. After `patience` returns an error that names what was waited for.
fn wait_until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > patience {
            bail!("waited {patience:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Cast {
    /// Judges all subscribers. Returns the sum of the figures, and descriptions of the faults.
    fn judge(&self) -> (Figures, Vec<String>) {
        let (mut sum, mut examples) = (Figures::default(), Vec::new());
        for transcript in &self.transcripts {
            let transcript = lock(transcript);
            let judgement = judge(&self.ledger, &transcript);
            sum += judgement.figures;
            examples.extend(judgement.examples);
            examples.extend(transcript.complaints.iter().cloned());
        }
        (sum, examples)
    }

    /// Checks that a subscriber without a cursor gets all kept messages, without a hole.
    fn read_all_again(&mut self, patience: Duration) -> Result<()> {
        let mut reader = self.reader("0")?;
        let read = wait_until("what is kept", patience, || {
            self.ledger.publishers().all(|p| {
                let last = self.ledger.page(p).last_acknowledged();
                lock(&reader.transcript).last(p) >= last
            })
        });
        reader.stop();
        let judgement = judge(&self.ledger, &lock(&reader.transcript));
        if judgement.figures.faulty() || judgement.figures.told > 0 {
            bail!("{:?}\n{}", judgement.figures, judgement.examples.join("\n"));
        }
        read.context("reading everything again")
    }
}

//! Comet's daemon, killed at random moments: publishers by HTTP, socket, C library and files, subscribers by long-poll and
//! event stream, and no mercy. After some kills all is left in peace and judged, then it goes on.

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

/// What is tested with what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Comet's program.
    pub program: PathBuf,
    /// libcomet.so
    pub library: PathBuf,
    pub seed: u64,
    /// Times that the daemon is killed.
    pub kills: usize,
    /// Kills between two verdicts.
    pub round: usize,
    /// Further settings (TOML) of the daemon; `@root@` is its directory.
    pub config: String,
}

/// What was shown.
#[derive(Debug, Default, Clone, Copy)]
pub struct Survived {
    pub kills: usize,
    /// Kills before the daemon listened.
    pub early: usize,
    /// Messages that were acknowledged, files left aside.
    pub acknowledged: u64,
    /// Of all subscribers.
    pub figures: Figures,
}

/// What the daemon keeps. Few messages, so that the log is written anew all the time; enough for all who are away
/// while it is down.
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

/// What anybody may need when nobody is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the daemon as often as planned.
///
/// # Errors
/// When anything that was acknowledged is missing, or came twice or in disorder, or the daemon does not come back. The
/// daemon's directory is kept then, and the error says where.
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

/// Kills it at some moment from its start on, and starts it again.
fn kill(comet: &mut Comet, random: &mut Random, survived: &mut Survived) -> Result<()> {
    let life = match random.below(20) {
        // Starting, reading its log, writing it anew.
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

/// Lets all come to rest, and compares what came with what was acknowledged.
fn judge_round(cast: &mut Cast, survived: &mut Survived) -> Result<()> {
    cast.rest(PATIENCE)?;
    let behind = cast.wait_for_last(PATIENCE);
    // What should not come may come after the last.
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

/// Until `done`, or an error that says what was waited for.
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
    /// Judges all subscribers: the sum, and what is wrong.
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

    /// Somebody who comes without having seen anything gets all that is kept, without a hole.
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

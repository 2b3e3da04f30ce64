//! Damages the log while the daemon does not run: an unfinished write at its end, a missing end that never reached the
//! disk, or a changed byte. Then compares what the new daemon has with what was acknowledged.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{PATIENCE, Plan, cast::Cast};
use crate::{
    http::{Body, Head},
    ledger::Fate,
    random::Random,
    server::Comet,
    stage::Stage,
    target::{Target, Transport},
    wire::Wire,
};

/// The result of a test.
#[derive(Debug, Default, Clone, Copy)]
pub struct Torn {
    /// Logs with a partial record or random bytes after their last record.
    pub appended: usize,
    /// Logs without their end.
    pub cut: usize,
    /// Logs with a changed byte before intact records.
    pub changed: usize,
    /// Lost messages for which a gap was reported to a client that had not seen them.
    pub told: usize,
    /// Messages of a lost end. A client that has not seen them cannot know of them.
    pub unknowable: usize,
}

/// A kind of damage to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Appended,
    Cut,
    Changed,
}

/// Kills the daemon `times` times and damages its log before each start.
///
/// # Errors
/// When the daemon does not start, or when it does not report a loss that it can detect. Its directory is kept then.
pub fn tear(plan: &Plan, times: usize) -> Result<Torn> {
    let mut random = Random::new(plan.seed, "tear");
    let mut comet = Comet::prepare(&plan.program, &plan.config, &mut random)?;
    let mut torn = Torn::default();
    let done = tear_all(plan, times, &mut comet, &mut random, &mut torn);
    done.map(|()| torn).map_err(|error| {
        let kept = comet.keep();
        let (seed, kept) = (plan.seed, kept.display());
        error.context(format!(
            "seed {seed}, {torn:?}; the daemon's directory is kept: {kept}"
        ))
    })
}

fn tear_all(
    plan: &Plan,
    times: usize,
    comet: &mut Comet,
    random: &mut Random,
    torn: &mut Torn,
) -> Result<()> {
    comet.start()?;
    comet.wait()?;
    let mut cast = Cast::assemble(comet, &plan.library, plan.seed)?;
    cast.wait_for_first()?;
    for i in 0..times {
        let harm = [Harm::Appended, Harm::Cut, Harm::Changed][i % 3];
        once(comet, &mut cast, harm, random, torn).with_context(|| format!("{i}: {harm:?}"))?;
    }
    Ok(())
}

fn once(
    comet: &mut Comet,
    cast: &mut Cast,
    harm: Harm,
    random: &mut Random,
    torn: &mut Torn,
) -> Result<()> {
    let before = Answer::get(&cast.target, None)?.cursor;
    cast.go_on();
    thread::sleep(random.millis(50, 300));
    cast.rest(PATIENCE)?;
    cast.wait_for_last(PATIENCE)?;
    // The subscribers received everything before the damage.
    let (figures, examples) = cast.judge();
    if figures.faulty() {
        bail!("before: {figures:?}\n{}", examples.join("\n"));
    }
    let acknowledged = cast.ids_after(before);
    let newest = *acknowledged.last().context("nothing was published")?;

    comet.kill()?;
    let place = do_harm(&comet.store(), harm, random)?;
    comet.start()?;
    comet.wait()?;

    let (came, gap) = read_from(&cast.target, before)?;
    let missing = acknowledged.difference(&came).count();
    match (harm, gap) {
        (Harm::Appended, _) if missing > 0 => bail!("{missing} messages are missing: {place}"),
        (Harm::Changed, false) if missing > 0 => {
            bail!("{missing} messages are missing and no gap was told: {place}")
        }
        (Harm::Cut, false) => torn.unknowable += missing,
        _ => torn.told += missing,
    }
    // A client that has seen a lost message gets a gap.
    let seen = Answer::get(&cast.target, Some(newest))?;
    if !came.contains(&newest) && !seen.gap {
        bail!("a cursor of a message that is lost is no gap: {newest}, {place}");
    }
    match harm {
        Harm::Appended => torn.appended += 1,
        Harm::Cut => torn.cut += 1,
        Harm::Changed => torn.changed += 1,
    }
    cast.begin_again();
    Ok(())
}

/// Damages the log. Returns a description of the damage.
fn do_harm(store: &Path, harm: Harm, random: &mut Random) -> Result<String> {
    /// The length of several whole records.
    const SOME: u64 = 2 << 10;
    let mut segments: Vec<PathBuf> = fs::read_dir(store)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    segments.retain(|path| path.extension().is_some_and(|end| end == "log"));
    segments.sort();
    let newest = segments.last().context("no log in the store")?;
    let mut file = OpenOptions::new().read(true).write(true).open(newest)?;
    let length = file.metadata()?.len();
    let back = random.below(1 + (20 << 10).min(length as usize / 2)) as u64;
    match harm {
        Harm::Appended => {
            // A part of a record of the log, or random bytes.
            let mut part = vec![0; 1 + random.below(200)];
            if random.once_in(2) {
                file.seek(SeekFrom::Start(length - back.min(length)))?;
                let read = file.read(&mut part)?;
                part.truncate(read.max(1));
            } else {
                part.iter_mut()
                    .for_each(|byte| *byte = random.number() as u8);
            }
            file.seek(SeekFrom::End(0))?;
            file.write_all(&part[..part.len().min(40)])?;
        }
        Harm::Cut => file.set_len(length - back)?,
        Harm::Changed => {
            let at = length.saturating_sub(SOME + back);
            file.seek(SeekFrom::Start(at))?;
            let mut byte = [0];
            file.read_exact(&mut byte)?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&[byte[0] ^ (1 + random.below(255) as u8)])?;
        }
    }
    let name = newest.display();
    Ok(format!("{name}, {length} bytes long, {back} bytes back"))
}

/// One response to a long-poll that does not wait.
struct Answer {
    cursor: u64,
    gap: bool,
    ids: Vec<u64>,
}

impl Answer {
    fn get(target: &Target, since: Option<u64>) -> Result<Self> {
        let wire = Wire::connect(target.addr, Arc::new(Stage::default()), Random::new(0, ""))?;
        let mut reader = BufReader::new(wire);
        let channels = super::cast::CHANNELS.map(str::to_owned);
        let mut target = target.clone();
        target.poll = "/ch/{}?wait=0".into();
        let query = since.map_or(String::new(), |id| format!("since={id}"));
        let request = target.get(Transport::Poll, &channels, &query, "");
        reader.get_mut().send(request.as_bytes())?;
        let text = Head::read(&mut reader)
            .and_then(|head| Body::new(&head, &mut reader)?.text())
            .map_err(|trouble| anyhow::Error::msg(format!("{trouble:?}")))?;
        let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let messages = json["messages"].as_array().with_context(|| text.clone())?;
        let ids = messages.iter().filter_map(|message| message["id"].as_u64());
        Ok(Self {
            cursor: json["cursor"].as_str().context("a cursor")?.parse()?,
            gap: json["gap"] == true,
            ids: ids.collect(),
        })
    }
}

/// Reads all ids after a cursor, and whether a gap was reported.
fn read_from(target: &Target, cursor: u64) -> Result<(BTreeSet<u64>, bool)> {
    let (mut came, mut gap, mut cursor) = (BTreeSet::new(), false, cursor);
    loop {
        let answer = Answer::get(target, Some(cursor))?;
        gap |= answer.gap;
        if answer.ids.is_empty() {
            return Ok((came, gap));
        }
        if !answer.ids.is_sorted_by(|a, b| a < b) || came.last() >= answer.ids.first() {
            bail!("ids out of order: {:?} after {:?}", answer.ids, came.last());
        }
        came.extend(answer.ids);
        cursor = answer.cursor;
    }
}

impl Cast {
    /// Acknowledged ids after this cursor.
    fn ids_after(&self, cursor: u64) -> BTreeSet<u64> {
        let mut ids = BTreeSet::new();
        for publisher in self.ledger.publishers() {
            let page = self.ledger.page(publisher);
            ids.extend(page.fates.iter().filter_map(|fate| match fate {
                Fate::Acknowledged(Some(id)) if *id > cursor => Some(*id),
                _ => None,
            }));
        }
        ids
    }
}

//! From a touch to the last byte at the client: one parked poll, one file, both servers in turns.

use std::{
    fs::{File, FileTimes},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;

use super::Scale;
use crate::{
    load::Load,
    report::{Budget, Compare, Report, percentile},
    server::Server,
};

const CHANNEL: &str = "touched";

pub(crate) fn touch(comet: &Path, scale: &Scale, report: &mut Report) -> Result<()> {
    let servers = [Server::comet(comet)?, Server::floor()?];
    let mut loads = Vec::new();
    for server in &servers {
        // The first touch of all creates the file, which is another thing.
        File::create(server.file(CHANNEL))?;
        server.at_rest()?;
        let mut load = Load::connect(server.addr(), CHANNEL, 1)?;
        load.poll()?;
        server.at_rest()?;
        loads.push(load);
    }
    let mut medians = [Vec::new(), Vec::new()];
    let mut tails = [Vec::new(), Vec::new()];
    for _ in 0..scale.rounds {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..scale.touches {
            for ((server, load), times) in servers.iter().zip(&mut loads).zip(&mut times) {
                times.push(once(&server.file(CHANNEL), load)?.as_secs_f64() * 1e6);
                // As seldom as people touch: the server has parked the poll and sleeps.
                thread::sleep(Duration::from_millis(1));
            }
        }
        for (i, times) in times.iter_mut().enumerate() {
            times.sort_by(f64::total_cmp);
            medians[i].push(percentile(times, 50.0));
            tails[i].push(percentile(times, 99.0));
        }
    }
    // A touch that became two messages shows at the latest now.
    for (server, load) in servers.iter().zip(&mut loads) {
        server.at_rest()?;
        load.quiet()?;
    }
    let budget = Some(Budget::AtMost(60.0));
    report.add(
        "touch to client, median",
        "us",
        medians.into(),
        Compare::Difference,
        budget,
    );
    report.add(
        "touch to client, 99th percentile",
        "us",
        tails.into(),
        Compare::Difference,
        None,
    );
    Ok(())
}

/// As touch(1) does it. Polls again afterwards.
fn once(file: &Path, load: &mut Load) -> Result<Duration> {
    load.quiet()?;
    let start = Instant::now();
    let now = SystemTime::now();
    let times = FileTimes::new().set_accessed(now).set_modified(now);
    File::options().write(true).open(file)?.set_times(times)?;
    let end = load.collect("")?;
    load.poll()?;
    Ok(end - start)
}

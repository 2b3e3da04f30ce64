//! From a touch to the last byte at the client: one parked poll, one file, all servers in turns; with no other polls,
//! and with thousands that are idle.

use std::{
    fs::{File, FileTimes},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;

use super::latency::Latencies;
use crate::{
    bench::Bench,
    hold::Hold,
    kind::Kind,
    load::Load,
    report::{Limit, Report, Row},
    server::Server,
};

const CHANNEL: &str = "touched";

pub(crate) fn touch(bench: &Bench, report: &mut Report) -> Result<()> {
    for idle in [0, bench.scale.fanout()] {
        let mut latencies = measure(bench, idle)?;
        if idle > 0 {
            latencies.plot("touch", report);
        }
        let what = |which| format!("touch to client, {which}, {idle} idle polls");
        report.add(
            Row::new(what("median"), "us", latencies.median)
                .difference()
                .must(Kind::Floor, Limit::AtMost(60.0))
                .stretch(Kind::Floor, Limit::AtMost(30.0)),
        );
        report.add(
            Row::new(what("99th percentile"), "us", latencies.tail)
                .must(Kind::Floor, Limit::AtMost(2.0)),
        );
    }
    Ok(())
}

fn measure(bench: &Bench, idle: usize) -> Result<Latencies> {
    let servers = bench.servers(&[Kind::Comet, Kind::Floor])?;
    let mut holds = Hold::park_all(&servers, idle)?;
    let mut loads: Vec<Load> = servers.iter().map(ready).collect::<Result<_>>()?;
    let mut latencies = Latencies::default();
    for _ in 0..bench.scale.rounds {
        let mut times = vec![Vec::new(); servers.len()];
        for _ in 0..bench.scale.touches {
            for ((server, load), times) in servers.iter().zip(&mut loads).zip(&mut times) {
                times.push(once(&server.file(CHANNEL), load)?);
                // As seldom as people touch: the server has parked the poll and sleeps.
                thread::sleep(Duration::from_millis(1));
            }
        }
        for (server, times) in servers.iter().zip(times) {
            latencies.round(server.kind, times);
        }
    }
    // A touch that became two messages shows at the latest now.
    for (server, load) in servers.iter().zip(&mut loads) {
        server.at_rest()?;
        load.quiet()?;
    }
    holds.iter_mut().try_for_each(Hold::check)?;
    Ok(latencies)
}

/// One poll that waits for the file, which is there: the first touch of all creates it, which is another thing.
fn ready(server: &Server) -> Result<Load> {
    File::create(server.file(CHANNEL))?;
    server.at_rest()?;
    let mut load = Load::connect(server.kind, server.addr(), CHANNEL, 1)?;
    load.poll()?;
    server.at_rest()?;
    Ok(load)
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

//! Measures the time from a touch of a file to the last byte at the client, with one parked poll and one file. All
//! servers take turns. It is measured without other polls, and with thousands of idle polls.

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
                // The pause lets the server park the poll and go to sleep, as between two touches in real use.
                thread::sleep(Duration::from_millis(1));
            }
        }
        for (server, times) in servers.iter().zip(times) {
            latencies.round(server.kind, times);
        }
    }
    // If one touch became two messages, the second one is visible now at the latest.
    for (server, load) in servers.iter().zip(&mut loads) {
        server.at_rest()?;
        load.quiet()?;
    }
    holds.iter_mut().try_for_each(Hold::check)?;
    Ok(latencies)
}

/// Parks one poll that waits for the file. The file exists already, because the first touch creates it, which is a
/// different event.
fn ready(server: &Server) -> Result<Load> {
    File::create(server.file(CHANNEL))?;
    server.at_rest()?;
    let mut load = Load::connect(server.kind, server.addr(), CHANNEL, 1)?;
    load.poll()?;
    server.at_rest()?;
    Ok(load)
}

/// Touches the file as touch(1) does, waits for the response, and polls again.
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

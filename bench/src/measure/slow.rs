//! Clients that never read, beside others that do: what these notice of them, and what they take of memory.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{
    rounds,
    stream::{judge, open, percentile},
};
use crate::{
    bench::Bench,
    report::{Figures, Limit, Report, Row},
    server::{Kind, Server},
    stream::{Pump, Streams, Target, Transport},
};

const CHANNEL: &str = "slow";

/// Messages a second to those that read.
const RATE: u32 = 200;

/// Messages until the buffers between the server and a client that reads nothing are full.
const FILL: u32 = 1000;

pub(crate) fn slow(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = bench.scale.streams();
    let servers = bench.servers(&[Kind::Comet, Kind::Nchan])?;
    let mut found = Found::default();
    // Comet cuts them after half a minute: each round has fresh ones.
    rounds(bench.scale.dear_rounds, &servers, |server| {
        let mut readers = open(server, CHANNEL, Transport::Sse, count)?;
        let alone = tail(bench, server, &mut readers, &mut found.alone).context("alone")?;
        let before = server.pss()?;
        let target = Target::new(server.kind, server.addr(), CHANNEL, Transport::Sse);
        let stuck = Streams::stuck(&target, count)?;
        fill(server, &mut readers).context("filling")?;
        let beside =
            tail(bench, server, &mut readers, &mut found.beside).context("beside stuck ones")?;
        let grown = server.pss()? as f64 - before as f64;
        found.ratio.push(server.kind, beside / alone);
        found.memory.push(server.kind, grown / count as f64);
        drop((readers, stuck));
        server.at_rest()?;
        Ok(())
    })?;
    let what =
        format!("99th percentile of latency, SSE to {count} that read, {RATE} messages a second");
    report.add(Row::new(format!("{what}, alone"), "ms", found.alone));
    let beside = format!("{what}, beside {count} that never read");
    report.add(Row::new(&beside, "ms", found.beside));
    report.add(
        Row::new(format!("{beside}, by that alone"), "x", found.ratio)
            .alone()
            .must(Kind::Comet, Limit::AtMost(1.1)),
    );
    let what = format!("memory of an SSE stream that is never read, {count} of them");
    report.add(Row::new(what, "bytes", found.memory));
    Ok(())
}

#[derive(Default)]
struct Found {
    alone: Figures,
    beside: Figures,
    ratio: Figures,
    memory: Figures,
}

/// Until those that do not read have all that fits.
fn fill(server: &Server, readers: &mut Streams) -> Result<()> {
    let mut pump = Pump::new(server, CHANNEL)?;
    let (tally, ()) = readers.receive(FILL, |run| pump.flood(run, FILL, 1))?;
    judge(server, &tally, &mut Figures::default())?;
    server.at_rest()?;
    Ok(())
}

/// Milliseconds.
fn tail(
    bench: &Bench,
    server: &Server,
    readers: &mut Streams,
    figures: &mut Figures,
) -> Result<f64> {
    let messages = (f64::from(RATE) * bench.scale.steady).ceil() as u32;
    let mut pump = Pump::new(server, CHANNEL)?;
    readers.note_latency()?;
    let every = Duration::from_secs(1) / RATE;
    let (tally, _) = readers.receive(messages, |run| pump.steady(run, messages, every))?;
    let tail = percentile(&readers.latency().context("nothing was noted")?, 99.0) / 1e3;
    figures.push(server.kind, tail);
    judge(server, &tally, figures)?;
    Ok(tail)
}

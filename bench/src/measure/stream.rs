//! Measures streams: the cost of a delivery at full speed, the cost of a delivery of single messages, and the memory of
//! an idle stream.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::polls::rounds;
use crate::{
    bench::Bench,
    kind::Kind,
    report::{Figures, Limit, Report, Row},
    server::Server,
    stream::{Pump, Streams, Tally, Target, Transport},
};

const CHANNEL: &str = "stream";

/// Publishes under way at the same time.
pub(super) const IN_FLIGHT: u32 = 16;

/// Messages a second when each message is delivered separately.
const SELDOM: u32 = 50;

/// Number of new servers whose memory is measured. Their figures differ by about one percent.
const RUNS: usize = 3;

pub(crate) fn stream(bench: &Bench, report: &mut Report) -> Result<()> {
    for transport in [Transport::Sse, Transport::WebSocket] {
        flood(bench, report, transport)?;
        seldom(bench, report, transport)?;
        let kinds = [Kind::Comet, Kind::Nchan];
        idle(
            bench,
            report,
            transport,
            &kinds,
            bench.scale.connections / 3,
        )?;
    }
    let kinds = [Kind::Comet, Kind::Pushpin];
    idle(bench, report, Transport::Sse, &kinds, bench.scale.pushpin())
}

/// Publishes at full speed, with several publishes under way.
fn flood(bench: &Bench, report: &mut Report, transport: Transport) -> Result<()> {
    let (count, messages) = (bench.scale.streams(), bench.scale.messages);
    let servers = bench.servers(&[Kind::Comet, Kind::Nchan])?;
    let (mut per_cpu, mut rate) = <(Figures, Figures)>::default();
    rounds(bench.scale.rounds, &servers, |server| {
        let mut streams = open(server, CHANNEL, transport, count)?;
        let mut pump = Pump::new(server, CHANNEL)?;
        // The first messages allocate what the later ones reuse, so they are not measured.
        let first = IN_FLIGHT.min(messages);
        streams.receive(first, |run| pump.flood(run, first, IN_FLIGHT))?;
        let before = server.at_rest()?;
        let start = Instant::now();
        let (tally, ()) = streams.receive(messages, |run| pump.flood(run, messages, IN_FLIGHT))?;
        let cpu = server.at_rest()?.saturating_sub(before);
        let delivered = tally.delivered as f64;
        per_cpu.push(server.kind, delivered / cpu.as_secs_f64());
        rate.push(server.kind, delivered / (tally.last - start).as_secs_f64());
        judge(server, &tally, &mut per_cpu)
    })?;
    let what = format!(
        "{} to {count} of them, {IN_FLIGHT} publishes in flight",
        transport.label()
    );
    let mut row = Row::new(format!("deliveries per CPU second, {what}"), "1/s", per_cpu);
    if transport == Transport::Sse {
        row = row
            .must(Kind::Nchan, Limit::AtLeast(2.0))
            .stretch(Kind::Nchan, Limit::AtLeast(3.0));
    }
    report.add(row);
    report.add(Row::new(
        format!("deliveries a second, {what}"),
        "1/s",
        rate,
    ));
    Ok(())
}

/// Publishes single messages. Each delivery has finished before the next publish, so deliveries cannot be merged.
fn seldom(bench: &Bench, report: &mut Report, transport: Transport) -> Result<()> {
    let count = bench.scale.streams();
    let messages = (f64::from(SELDOM) * bench.scale.steady).ceil() as u32;
    let servers = bench.servers(&[Kind::Comet, Kind::Nchan])?;
    let (mut cpu, mut tail) = <(Figures, Figures)>::default();
    let mut all: BTreeMap<Kind, Histogram<u64>> = BTreeMap::new();
    rounds(bench.scale.dear_rounds, &servers, |server| {
        let mut streams = open(server, CHANNEL, transport, count)?;
        let mut pump = Pump::new(server, CHANNEL)?;
        streams.note_latency()?;
        let before = server.at_rest()?;
        let every = Duration::from_secs(1) / SELDOM;
        let (tally, _) = streams.receive(messages, |run| pump.steady(run, messages, every))?;
        let used = server.at_rest()?.saturating_sub(before);
        let each = used.as_secs_f64() * 1e6 / tally.delivered as f64;
        cpu.push(server.kind, each);
        let latency = streams.latency().context("nothing was noted")?;
        tail.push(server.kind, percentile(&latency, 99.0) / 1e3);
        match all.get_mut(&server.kind) {
            Some(all) => all.add(latency)?,
            None => drop(all.insert(server.kind, latency)),
        }
        judge(server, &tally, &mut cpu)
    })?;
    let what = format!(
        "{} to {count} of them, {SELDOM} messages a second",
        transport.label()
    );
    report.add(Row::new(format!("CPU of a delivery, {what}"), "us", cpu));
    report.add(Row::new(
        format!("99th percentile of latency, {what}"),
        "ms",
        tail,
    ));
    if transport == Transport::Sse {
        for (kind, latency) in all {
            report.curve("stream", kind, curve(&latency));
        }
    }
    Ok(())
}

/// Draws the cumulative distribution: the share of deliveries that had finished after a given time.
fn curve(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    // Steps of half a percent, and finer steps for the tail.
    let percents = (1..199).map(|half| f64::from(half) / 2.0);
    let percents = percents.chain((0..=10).map(|tenth| 99.0 + f64::from(tenth) / 10.0));
    percents
        .map(|percent| (percentile(latency, percent), percent))
        .collect()
}

/// Measures the memory of idle streams: the growth of the server's PSS, divided by the number of streams.
fn idle(
    bench: &Bench,
    report: &mut Report,
    transport: Transport,
    kinds: &[Kind],
    count: usize,
) -> Result<()> {
    let mut figures = Figures::default();
    for &kind in (0..bench.scale.rounds.min(RUNS)).flat_map(|_| kinds) {
        let Some(server) = bench.server(kind)? else {
            continue;
        };
        match memory(&server, transport, count) {
            Ok((bytes, tally)) => {
                figures.push(kind, bytes);
                judge(&server, &tally, &mut figures)?;
            }
            // This server did not accept all streams. The figures of the other servers are still valid.
            Err(error) if !kind.is_ours() => eprintln!("{}: left out: {error:#}", kind.label()),
            Err(error) => return Err(error),
        }
    }
    let what = format!(
        "memory of an idle stream, {}, {count} of them",
        transport.label()
    );
    let mut row = Row::new(what, "bytes", figures);
    if transport == Transport::Sse && kinds.contains(&Kind::Nchan) {
        row = row
            .must(Kind::Comet, Limit::AtMost(1500.0))
            .stretch(Kind::Comet, Limit::AtMost(1100.0));
    }
    report.add(row);
    Ok(())
}

/// Returns the memory of one stream in bytes.
fn memory(server: &Server, transport: Transport, count: usize) -> Result<(f64, Tally)> {
    // The first requests allocate memory once, which must not be counted for a stream.
    once(server, &mut open(server, "warm", transport, 10)?, "warm")?;
    server.at_rest()?;
    let before = server.pss()?;
    let mut streams = open(server, CHANNEL, transport, count)?;
    let bytes = server.pss()?.saturating_sub(before);
    // A message to all of them proves that all are open streams.
    let tally = once(server, &mut streams, CHANNEL)?;
    Ok((bytes as f64 / count as f64, tally))
}

/// Opens streams. When this returns, the server is idle again.
pub(super) fn open(
    server: &Server,
    channel: &str,
    transport: Transport,
    count: usize,
) -> Result<Streams> {
    let target = Target::new(server.kind, server.addr(), channel, transport);
    let streams = Streams::open(&target, count)?;
    server.at_rest()?;
    Ok(streams)
}

/// Publishes one message to all streams.
pub(super) fn once(server: &Server, streams: &mut Streams, channel: &str) -> Result<Tally> {
    let mut pump = Pump::new(server, channel)?;
    let (tally, ()) = streams.receive(1, |run| pump.flood(run, 1, 1))?;
    Ok(tally)
}

/// Ends the run for a fault of the project's own servers. Faults of other servers are counted.
pub(super) fn judge(server: &Server, tally: &Tally, figures: &mut Figures) -> Result<()> {
    if server.kind.is_ours() {
        return tally.check();
    }
    figures.faults(server.kind, tally.faults);
    Ok(())
}

/// Returns a percentile in microseconds. The histogram has nanoseconds.
pub(super) fn percentile(latency: &Histogram<u64>, percent: f64) -> f64 {
    latency.value_at_percentile(percent) as f64 / 1e3
}

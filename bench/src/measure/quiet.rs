//! Measures a quiet channel beside a busy channel: how much its one subscriber and its publisher are slowed down while
//! thousands of subscribers of the busy channel get a message every millisecond.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    polls::rounds,
    stream::{IN_FLIGHT, judge, open, percentile},
};
use crate::{
    bench::Bench,
    kind::Kind,
    report::{self, Figures, Report, Row},
    server::Server,
    stream::{Pump, Steady, Streams, Tally, Transport},
};

/// Messages a second on the quiet channel.
const QUIET: u32 = 50;

/// Messages a second on the busy channel. The rate is reduced, down to `LEAST`, if server and client cannot keep up.
const LOUD: u32 = 1000;
const LEAST: u32 = 10;

/// The last message of a steady run may be this late.
const LATE: Duration = Duration::from_millis(250);

pub(crate) fn quiet(bench: &Bench, report: &mut Report) -> Result<()> {
    let (seconds, count) = (bench.scale.steady, bench.scale.connections / 3);
    let servers = bench.servers(&[Kind::Comet, Kind::Nchan])?;
    let (mut alone, mut beside) = <(QuietLatencies, QuietLatencies)>::default();
    let (mut rate, mut deliveries) = <(Figures, Figures)>::default();
    // Each round begins with the rate that the server could handle in the round before. To find that a rate is too high
    // takes long.
    let mut bearable: BTreeMap<Kind, u32> = BTreeMap::new();
    rounds(bench.scale.dear_rounds, &servers, |server| {
        let mut quiet = Channel::open(server, "quiet", 1)?;
        alone.push(server, &quiet.run(QUIET, seconds)?, &mut quiet)?;
        let mut loud = Channel::open(server, "loud", count)?;
        let loudness = match bearable.get(&server.kind) {
            Some(&known) => known,
            None => loud.guess(count)?,
        };
        let (ours, theirs, loudness) = both(server, &mut quiet, &mut loud, loudness, seconds)?;
        bearable.insert(server.kind, loudness);
        beside.push(server, &ours, &mut quiet)?;
        rate.push(server.kind, theirs.steady.rate);
        deliveries.push(
            server.kind,
            theirs.tally.delivered as f64 / theirs.took.as_secs_f64(),
        );
        judge(server, &theirs.tally, &mut rate)?;
        drop(loud);
        server.at_rest()?;
        Ok(())
    })?;
    let what = format!("a loud channel with {count} subscribers");
    report.add(Row::new(
        format!("messages a second on {what}"),
        "1/s",
        rate,
    ));
    report.add(Row::new(
        format!("deliveries a second on {what}"),
        "1/s",
        deliveries,
    ));
    alone.report("alone", report);
    beside.report("beside the loud one", report);
    Ok(())
}

/// One channel with its subscribers and its publisher.
struct Channel {
    streams: Streams,
    pump: Pump,
}

/// Result of a run at a steady rate.
struct RunResult {
    tally: Tally,
    steady: Steady,
    took: Duration,
}

impl Channel {
    fn open(server: &Server, name: &str, count: usize) -> Result<Self> {
        Ok(Self {
            streams: open(server, name, Transport::Sse, count)?,
            pump: Pump::new(server, name)?,
        })
    }

    fn run(&mut self, rate: u32, seconds: f64) -> Result<RunResult> {
        let messages = (f64::from(rate) * seconds).ceil() as u32;
        let pump = &mut self.pump;
        self.streams.note_latency()?;
        let start = Instant::now();
        let every = Duration::from_secs(1) / rate;
        let (tally, steady) = self
            .streams
            .receive(messages, |run| pump.steady(run, messages, every))?;
        let took = tally.last - start;
        Ok(RunResult {
            tally,
            steady,
            took,
        })
    }

    /// Returns half of the rate that the server reaches at full speed, at most the wanted rate.
    fn guess(&mut self, count: usize) -> Result<u32> {
        /// A channel keeps at least this many messages, so none is lost.
        const MESSAGES: u32 = 100;
        let (pump, start) = (&mut self.pump, Instant::now());
        let (tally, ()) = self
            .streams
            .receive(MESSAGES, |run| pump.flood(run, MESSAGES, IN_FLIGHT))?;
        let deliveries = tally.delivered as f64 / (tally.last - start).as_secs_f64();
        Ok(((deliveries / count as f64 / 2.0) as u32).clamp(LEAST, LOUD))
    }
}

impl RunResult {
    fn kept_up(&self, rate: u32, seconds: f64) -> bool {
        self.tally.check().is_ok()
            && self.took < Duration::from_secs_f64(seconds) + LATE
            && self.steady.complete
            && self.steady.rate > f64::from(rate) * 0.95
    }
}

/// Runs both channels at the same time. The rate of the busy channel is halved until server and client can keep up.
fn both(
    server: &Server,
    quiet: &mut Channel,
    loud: &mut Channel,
    mut rate: u32,
    seconds: f64,
) -> Result<(RunResult, RunResult, u32)> {
    loop {
        let (ours, theirs) = thread::scope(|scope| {
            let theirs = scope.spawn(|| loud.run(rate, seconds));
            let ours = quiet.run(QUIET, seconds);
            let theirs = theirs.join().ok();
            let theirs = theirs.context("the loud channel's thread panicked")?;
            anyhow::Ok((ours?, theirs?))
        })?;
        if rate <= LEAST || theirs.kept_up(rate, seconds) {
            return Ok((ours, theirs, rate));
        }
        eprintln!(
            "{}: {rate} messages a second are too many",
            server.kind.label()
        );
        rate = (rate / 2).max(LEAST);
        server.at_rest()?;
        // Reads late messages here, so that they do not count in the next run.
        loud.streams.expect(0);
        loud.streams.collect()?;
    }
}

/// Latencies of the quiet channel in microseconds.
#[derive(Default)]
struct QuietLatencies {
    median: Figures,
    tail: Figures,
    acknowledged: Figures,
    acknowledged_tail: Figures,
}

impl QuietLatencies {
    fn push(&mut self, server: &Server, result: &RunResult, channel: &mut Channel) -> Result<()> {
        let latency = channel.streams.latency().context("nothing was noted")?;
        self.median.push(server.kind, percentile(&latency, 50.0));
        self.tail.push(server.kind, percentile(&latency, 99.0));
        let acknowledged = result.steady.acknowledged.iter();
        let mut acknowledged: Vec<f64> =
            acknowledged.map(|time| time.as_secs_f64() * 1e6).collect();
        acknowledged.sort_by(f64::total_cmp);
        for (percent, figures) in [
            (50.0, &mut self.acknowledged),
            (99.0, &mut self.acknowledged_tail),
        ] {
            figures.push(server.kind, report::percentile(&acknowledged, percent));
        }
        judge(server, &result.tally, &mut self.median)
    }

    fn report(self, how: &str, report: &mut Report) {
        for (what, figures) in [
            ("to its subscriber, median", self.median),
            ("to its subscriber, 99th percentile", self.tail),
            ("to its acknowledgement, median", self.acknowledged),
            (
                "to its acknowledgement, 99th percentile",
                self.acknowledged_tail,
            ),
        ] {
            let what = format!("a publish on a quiet channel {what}, {how}");
            report.add(Row::new(what, "us", figures));
        }
    }
}

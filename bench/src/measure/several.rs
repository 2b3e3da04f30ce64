//! Measures how the cost of a delivery depends on the number of the subscriber's other channels, in which nothing is
//! published.

use std::time::Duration;

use anyhow::Result;

use super::stream::judge;
use crate::{
    bench::Bench,
    kind::Kind,
    report::{Figures, Limit, Report, Row},
    server::Server,
    stream::{Pump, Streams, Target, Transport},
};

const CHANNEL: &str = "several";

/// Channels of a subscriber: one that all of them have, and 99 that nobody else has. That is as many as Comet allows.
const CHANNELS: usize = 100;

/// Each message is delivered to all streams before the next one, so deliveries cannot be merged.
const EVERY: Duration = Duration::from_millis(20);

pub(crate) fn several(bench: &Bench, report: &mut Report) -> Result<()> {
    compare(bench, report, Transport::Sse)
}

/// Measures a delivery to subscribers of one channel and of [`CHANNELS`] channels.
pub(super) fn compare(bench: &Bench, report: &mut Report, transport: Transport) -> Result<()> {
    let Some(server) = bench.server(Kind::Comet)? else {
        return Ok(());
    };
    let count = bench.scale.streams();
    let (mut one, mut many, mut ratio) = <(Figures, Figures, Figures)>::default();
    for round in 0..bench.scale.rounds {
        // The first of two measurements may have an advantage, so the order rotates.
        let mut channels = [1, CHANNELS];
        channels.rotate_left(round % 2);
        let mut measured = [0.0; 2];
        for channels in channels {
            let cpu = delivery(&server, bench.scale.steady, transport, count, channels)?;
            measured[usize::from(channels > 1)] = cpu;
        }
        one.push(Kind::Comet, measured[0]);
        many.push(Kind::Comet, measured[1]);
        ratio.push(Kind::Comet, measured[1] / measured[0]);
    }
    let label = transport.label();
    let of = |channels| format!("CPU of a delivery, {label} to {count} streams of {channels}");
    report.add(Row::new(of("1 channel".into()), "us", one));
    report.add(Row::new(of(format!("{CHANNELS} channels")), "us", many));
    let what = format!("CPU of a delivery, {label}, {CHANNELS} channels by 1 channel");
    report.add(
        Row::new(what, "times", ratio)
            .alone()
            .must(Kind::Comet, Limit::AtMost(1.3)),
    );
    Ok(())
}

/// Microseconds of CPU for a delivery of single messages to streams of so many channels.
fn delivery(
    server: &Server,
    seconds: f64,
    transport: Transport,
    count: usize,
    channels: usize,
) -> Result<f64> {
    let target = Target::new(server.kind, server.addr(), CHANNEL, transport);
    let mut streams = Streams::open(&target.with_own_channels(channels - 1), count)?;
    let mut pump = Pump::new(server, CHANNEL)?;
    let messages = (seconds / EVERY.as_secs_f64()).ceil() as u32;
    // The first message allocates what the later ones reuse.
    streams.receive(1, |run| pump.steady(run, 1, EVERY))?;
    let before = server.at_rest()?;
    let (tally, _) = streams.receive(messages, |run| pump.steady(run, messages, EVERY))?;
    let used = server.at_rest()?.saturating_sub(before);
    judge(server, &tally, &mut Figures::default())?;
    Ok(used.as_secs_f64() * 1e6 / tally.delivered as f64)
}

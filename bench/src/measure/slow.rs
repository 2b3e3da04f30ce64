//! Measures clients that never read, beside clients that do: the delay that the readers notice, and the memory that the
//! others need.
//!
//! It is measured twice, at once and again later. When a client's receive window is full, the kernel probes it again
//! and again: 0.2 s after it was full, then after 0.4 s, 0.8 s and so on (RFC 9293, section 3.8.6.1). All these clients
//! are full at the same moment, so they are also probed at the same moments.

use std::time::Duration;

use anyhow::{Context, Result};

use super::stream::{judge, open, percentile};
use crate::{
    bench::Bench,
    kind::Kind,
    report::{Figures, Limit, Report, Row},
    server::Server,
    stream::{Pump, Streams, Target, Transport},
};

const CHANNEL: &str = "slow";

/// Messages a second to the clients that read.
const RATE: u32 = 200;

/// Messages that fill the buffers of clients that never read: the size of a burst and the number of bursts. Such a
/// client receives only a part.
const FILL: (u32, usize) = (100, 10);

pub(crate) fn slow(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = bench.scale.streams();
    let (mut figures, mut kinds) = (SlowFigures::default(), vec![Kind::Comet, Kind::Nchan]);
    for _ in 0..bench.scale.dear_rounds {
        let mut able = Vec::new();
        for kind in kinds {
            // A new server for each round: Comet closes such connections after half a minute, and other servers may
            // never become idle again.
            let Some(server) = bench.server(kind)? else {
                continue;
            };
            if figures.round(bench, &server, count)? {
                able.push(kind);
            } else {
                let label = kind.label();
                eprintln!(
                    "{label} cannot keep up beside {count} that never read, and is left out from here on"
                );
            }
        }
        kinds = able;
    }
    let what =
        format!("99th percentile of latency, SSE to {count} that read, {RATE} messages a second");
    report.add(Row::new(format!("{what}, alone"), "ms", figures.alone));
    let beside = format!("{what}, beside {count} that never read");
    report.add(Row::new(&beside, "ms", figures.beside));
    for (when, ratio) in [
        ("by that alone", figures.ratio),
        ("afterwards, by that alone", figures.ratio_later),
    ] {
        report.add(
            Row::new(format!("{beside}, {when}"), "x", ratio)
                .alone()
                .must(Kind::Comet, Limit::AtMost(1.1)),
        );
    }
    let what = format!("memory of an SSE stream that is never read, {count} of them");
    report.add(Row::new(what, "bytes", figures.memory));
    Ok(())
}

#[derive(Default)]
struct SlowFigures {
    alone: Figures,
    beside: Figures,
    ratio: Figures,
    ratio_later: Figures,
    memory: Figures,
}

impl SlowFigures {
    /// Measures one round. Returns false if the server could not keep up.
    fn round(&mut self, bench: &Bench, server: &Server, count: usize) -> Result<bool> {
        let kind = server.kind;
        let mut readers = open(server, CHANNEL, Transport::Sse, count)?;
        // The first deliveries allocate memory once, which must not be counted.
        fill(server, &mut readers).context("alone")?;
        let alone = tail(bench, server, &mut readers, &mut self.alone).context("alone")?;
        let before = server.pss()? as f64;
        let target = Target::new(kind, server.addr(), CHANNEL, Transport::Sse);
        let stuck = Streams::stuck(&target, count)?;
        let beside = match fill(server, &mut readers).context("while they are filled")? {
            true => tail(bench, server, &mut readers, &mut self.beside),
            false => Ok(None),
        };
        let beside = beside.context("beside those that never read")?;
        let later = match beside {
            Some(_) => tail(bench, server, &mut readers, &mut Figures::default())?,
            None => None,
        };
        self.memory
            .push(kind, (server.pss()? as f64 - before) / count as f64);
        drop((readers, stuck));
        if let (Some(alone), Some(beside)) = (alone, beside) {
            self.ratio.push(kind, beside / alone);
            later
                .into_iter()
                .for_each(|later| self.ratio_later.push(kind, later / alone));
        }
        Ok(alone.and(beside).is_some())
    }
}

/// Publishes more than the buffers between the server and a client that never reads can hold. Returns false if that
/// took far too long.
fn fill(server: &Server, readers: &mut Streams) -> Result<bool> {
    let mut pump = Pump::new(server, CHANNEL)?;
    let (messages, times) = FILL;
    // Each burst is no larger than a channel's history, so readers that are late lose nothing.
    for _ in 0..times {
        let at_once = Duration::ZERO;
        let (tally, steady) =
            readers.receive(messages, |run| pump.steady(run, messages, at_once))?;
        if !steady.complete && !server.kind.is_ours() {
            return Ok(false);
        }
        judge(server, &tally, &mut Figures::default())?;
    }
    Ok(true)
}

/// Returns the latency in milliseconds, or `None` if the server could not keep up.
fn tail(
    bench: &Bench,
    server: &Server,
    readers: &mut Streams,
    figures: &mut Figures,
) -> Result<Option<f64>> {
    let messages = (f64::from(RATE) * bench.scale.steady).ceil() as u32;
    let mut pump = Pump::new(server, CHANNEL)?;
    readers.note_latency()?;
    let every = Duration::from_secs(1) / RATE;
    let (tally, steady) = readers.receive(messages, |run| pump.steady(run, messages, every))?;
    let latency = readers.latency().context("nothing was noted")?;
    if !steady.complete && !server.kind.is_ours() {
        return Ok(None);
    }
    let tail = percentile(&latency, 99.0) / 1e3;
    figures.push(server.kind, tail);
    judge(server, &tally, figures)?;
    Ok(Some(tail))
}

//! Measures sessions: the memory of an idle one, and the cost of a delivery to sessions of many channels.

use anyhow::Result;

use super::{
    several,
    stream::{judge, once},
};
use crate::{
    bench::Bench,
    kind::Kind,
    report::{Figures, Limit, Report, Row},
    server::Server,
    stream::{Streams, Target, Transport},
};

const CHANNEL: &str = "session";

/// Channels of a session whose memory is measured.
const CHANNELS: usize = 5;

/// Number of new servers whose memory is measured. Their figures differ by about one percent.
const RUNS: usize = 3;

pub(crate) fn session(bench: &Bench, report: &mut Report) -> Result<()> {
    for own in [0, 1] {
        memory(bench, report, own)?;
    }
    several::compare(bench, report, Transport::Session)
}

/// Measures the memory of an idle session of which so many channels are its own.
fn memory(bench: &Bench, report: &mut Report, own: usize) -> Result<()> {
    let (mut figures, count) = (Figures::default(), bench.scale.connections / 3);
    for _ in 0..bench.scale.rounds.min(RUNS) {
        let Some(server) = bench.server(Kind::Comet)? else {
            return Ok(());
        };
        figures.push(Kind::Comet, each(&server, own, count)?);
    }
    let of = match own {
        0 => format!("{CHANNELS} channels"),
        own => format!("{CHANNELS} channels, {own} of them its own"),
    };
    let what = format!("memory of an idle session of {of}, {count} of them");
    let row = Row::new(what, "bytes", figures);
    report.add(match own {
        0 => row.must(Kind::Comet, Limit::AtMost(900.0)),
        _ => row,
    });
    Ok(())
}

/// Returns the memory of one session in bytes.
fn each(server: &Server, own: usize, count: usize) -> Result<f64> {
    let target = |channel| {
        let target = Target::new(server.kind, server.addr(), channel, Transport::Session);
        target
            .with_shared_channels(CHANNELS - 1 - own)
            .with_own_channels(own)
    };
    // The first sessions allocate memory once, which must not be counted for a session.
    once(server, &mut Streams::open(&target("warm"), 10)?, "warm")?;
    server.at_rest()?;
    let before = server.pss()?;
    let mut streams = Streams::open(&target(CHANNEL), count)?;
    server.at_rest()?;
    let bytes = server.pss()?.saturating_sub(before);
    // A message to all of them proves that all are open.
    judge(
        server,
        &once(server, &mut streams, CHANNEL)?,
        &mut Figures::default(),
    )?;
    Ok(bytes as f64 / count as f64)
}

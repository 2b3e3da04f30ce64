//! Measures one message to many parked polls: the CPU of a delivery, the CPU of parking again, and the time until the
//! last client has the message. The CPU is the run time of all threads of the server, from just before the publish
//! until the server is idle again, divided by the number of deliveries.

use std::time::Duration;

use anyhow::Result;

use super::polls::{Polls, rounds};
use crate::{
    bench::Bench,
    kind::Kind,
    report::{Figures, Limit, Report, Row, median},
    server::Server,
};

/// Messages while one server's clients are connected. Their median is the value of the round.
const MESSAGES: usize = 3;

pub(crate) fn fanout(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = bench.scale.fanout();
    let kinds = [Kind::Comet, Kind::Floor, Kind::Nchan];
    let measured = measure(bench, &kinds, count, bench.scale.rounds)?;
    report.add(
        Row::new(
            format!("CPU of a delivery, {count} parked polls"),
            "us",
            measured.delivery,
        )
        .must(Kind::Floor, Limit::AtMost(1.2))
        .stretch(Kind::Floor, Limit::AtMost(1.1))
        .must(Kind::Nchan, Limit::AtMost(0.8)),
    );
    report.add(
        Row::new(
            "CPU of reading and parking a poll again",
            "us",
            measured.parking,
        )
        .must(Kind::Nchan, Limit::AtMost(0.9))
        .stretch(Kind::Nchan, Limit::AtMost(0.6)),
    );
    report.add(
        Row::new(
            format!("time to the last of {count} deliveries"),
            "ms",
            measured.last,
        )
        .must(Kind::Nchan, Limit::AtMost(1.0))
        .stretch(Kind::Nchan, Limit::AtMost(0.7)),
    );
    small(bench, report, Kind::Pushpin, bench.scale.pushpin())?;
    small(bench, report, Kind::Php, bench.scale.php)
}

/// Compares Comet with a server that cannot hold as many polls.
fn small(bench: &Bench, report: &mut Report, other: Kind, count: usize) -> Result<()> {
    let kinds = [Kind::Comet, other];
    let measured = measure(bench, &kinds, count, bench.scale.dear_rounds)?;
    for (what, unit, figures) in [
        ("CPU of a delivery", "us", measured.delivery),
        ("CPU of parking a poll again", "us", measured.parking),
        ("time to the last delivery", "ms", measured.last),
    ] {
        let what = format!("{what}, {count} parked polls");
        report.add(Row::new(what, unit, figures));
    }
    Ok(())
}

#[derive(Default)]
pub(super) struct Measured {
    pub(super) delivery: Figures,
    pub(super) parking: Figures,
    pub(super) last: Figures,
}

fn measure(bench: &Bench, kinds: &[Kind], count: usize, times: usize) -> Result<Measured> {
    let servers = bench.servers(kinds)?;
    let mut measured = Measured::default();
    rounds(times, &servers, |server| measured.round(server, count))?;
    Ok(measured)
}

impl Measured {
    /// Measures one round: microseconds of CPU, and milliseconds until the last delivery.
    pub(super) fn round(&mut self, server: &Server, count: usize) -> Result<()> {
        let mut polls = Polls::park(server, "bench", count)?;
        // The first delivery allocates what the later ones reuse, so it is not measured.
        polls.deliver()?;
        polls.again()?;
        let each = |from: Duration, to: Duration| {
            to.saturating_sub(from).as_secs_f64() * 1e6 / count as f64
        };
        let (mut deliveries, mut parkings, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..MESSAGES {
            let before = server.cpu()?;
            last.push(polls.deliver()?.as_secs_f64() * 1e3);
            let delivered = server.at_rest()?;
            let parked = polls.again()?;
            deliveries.push(each(before, delivered));
            parkings.push(each(delivered, parked));
        }
        let kind = server.kind;
        self.delivery.push(kind, median(&deliveries));
        self.delivery.faults(kind, polls.faults());
        self.parking.push(kind, median(&parkings));
        self.last.push(kind, median(&last));
        polls.leave()
    }
}

//! Measures the memory of a parked poll: the growth of the server's PSS and of the kernel's caches, divided by the
//! number of polls. Afterwards, rounds of one message to all and parking again must not let the memory grow.

use anyhow::Result;

use super::polls::Polls;
use crate::{
    bench::Bench,
    kind::Kind,
    process,
    report::{Figures, Limit, Report, Row},
    server::Server,
};

/// Number of new servers that are measured. Their figures differ by about one percent.
const RUNS: usize = 3;

pub(crate) fn memory(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut curves: [(Kind, Vec<(f64, f64)>); 3] =
        [Kind::Comet, Kind::Floor, Kind::Nchan].map(|kind| (kind, Vec::new()));
    let runs = bench.scale.dear_rounds.min(RUNS);
    let audiences = bench.scale.audiences();
    for count in audiences {
        let mut kinds = vec![Kind::Comet, Kind::Floor, Kind::Nchan];
        if count <= bench.scale.pushpin() {
            kinds.push(Kind::Pushpin);
        }
        let mut parked = Figures::default();
        for &kind in (0..runs).flat_map(|_| &kinds) {
            if let Some(server) = bench.server(kind)? {
                parked.push(kind, user(&server, count)?);
            }
        }
        for (kind, points) in &mut curves {
            let bytes = parked.median(*kind) * count as f64;
            points.push((count as f64, bytes / f64::from(1 << 20)));
        }
        let what = format!("memory of a parked poll, {count} of them");
        let row = Row::new(what, "bytes", parked);
        report.add(if count == bench.scale.connections {
            goals(row)
        } else {
            row
        });
    }
    for (kind, points) in curves {
        if points.iter().all(|(_, mebibytes)| mebibytes.is_finite()) {
            report.curve("memory", kind, points);
        }
    }
    php(bench, report)?;
    kernel(bench, report)?;
    growth(bench, report)
}

fn goals(row: Row) -> Row {
    row.must(Kind::Comet, Limit::AtMost(1300.0))
        .stretch(Kind::Comet, Limit::AtMost(800.0))
        .must(Kind::Nchan, Limit::AtMost(1.0 / 7.0))
}

/// Measures a server that needs one process for each poll.
fn php(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut parked = Figures::default();
    for _ in 0..bench.scale.dear_rounds.min(RUNS) {
        for kind in [Kind::Comet, Kind::Php] {
            if let Some(server) = bench.server(kind)? {
                parked.push(kind, user(&server, bench.scale.php)?);
            }
        }
    }
    let what = format!("memory of a parked poll, {} of them", bench.scale.php);
    report.add(Row::new(what, "bytes", parked));
    Ok(())
}

/// Returns the server's memory for one poll, in bytes.
fn user(server: &Server, count: usize) -> Result<f64> {
    warm(server)?;
    let before = server.pss()?;
    let polls = Polls::park(server, "bench", count)?;
    let parked = server.pss()?;
    drop(polls);
    Ok((parked as f64 - before as f64) / count as f64)
}

/// Measures the kernel's memory for each connection, for both ends together.
fn kernel(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = bench.scale.connections;
    let mut parked = Figures::default();
    for _ in 0..bench.scale.dear_rounds.min(RUNS) {
        for kind in [Kind::Comet, Kind::Floor, Kind::Nchan] {
            let Some(server) = bench.server(kind)? else {
                continue;
            };
            warm(&server)?;
            let before = process::slab_at_rest()?;
            let polls = Polls::park(&server, "bench", count)?;
            let grown = process::slab_at_rest()? as f64 - before as f64;
            drop(polls);
            parked.push(kind, grown / count as f64);
        }
    }
    let what = format!("kernel memory of a connection with its poll, both ends, {count} of them");
    report.add(Row::new(what, "bytes", parked));
    Ok(())
}

/// Sends the first requests. They allocate memory once, which must not be counted for a poll.
fn warm(server: &Server) -> Result<()> {
    let mut first = Polls::park(server, "warm", 10)?;
    first.deliver()?;
    drop(first);
    server.at_rest()?;
    Ok(())
}

/// Measures the growth over rounds of a delivery to all and parking again.
fn growth(bench: &Bench, report: &mut Report) -> Result<()> {
    let Some(server) = bench.server(Kind::Comet)? else {
        return Ok(());
    };
    let (count, rounds) = (bench.scale.connections, bench.scale.repolls);
    warm(&server)?;
    let before = server.pss()? as f64;
    let mut polls = Polls::park(&server, "bench", count)?;
    let parked = server.pss()? as f64;
    let (mut first, mut all) = (f64::NAN, f64::NAN);
    for round in 0..rounds {
        polls.deliver()?;
        polls.again()?;
        all = server.pss()? as f64 - parked;
        if round == 0 {
            first = all;
        }
    }
    let over = |rounds: &str| format!("growth of a parked poll, {rounds} of fan-out and re-poll");
    let row = |what: &str, unit, value| {
        let mut figures = Figures::default();
        figures.push(Kind::Comet, value);
        Row::new(over(what), unit, figures)
    };
    // Separates what is allocated once from what each round adds.
    report.add(row("first round", "bytes", first / count as f64));
    let what = format!("{rounds} rounds");
    report.add(row(&what, "bytes", all / count as f64));
    // A few pages are not growth: real growth would appear in every round.
    let share = 100.0 * all / (parked - before);
    report.add(row(&what, "percent", share).must(Kind::Comet, Limit::AtMost(1.0)));
    Ok(())
}

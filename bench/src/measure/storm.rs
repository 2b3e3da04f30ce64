//! Measures a storm: all clients connect and poll at the same time, as after a restart of a server. The figures are the
//! cost of a connect, how fast the clients are accepted, and the memory that remains when they have left.

use std::{thread, time::Duration};

use anyhow::Result;

use super::polls::{LENGTH, Polls, rounds};
use crate::{
    bench::Bench,
    kind::Kind,
    load::{Load, StormResult},
    message::Series,
    report::{Figures, Limit, Report, Row},
    server::Server,
};

const CHANNEL: &str = "storm";

/// Connects under way at the same time. More of them would only wait in the client.
const AT_ONCE: usize = 1000;

const STORMS: usize = 3;

/// Number of new servers whose memory is measured.
const RUNS: usize = 3;

/// Time in which a server can notice that all clients have left, and free their memory.
const AFTER: Duration = Duration::from_secs(3);

pub(crate) fn storm(bench: &Bench, report: &mut Report) -> Result<()> {
    connects(bench, report)?;
    memory(bench, report)
}

fn connects(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = bench.scale.connections;
    let servers = bench.servers(&[Kind::Comet, Kind::Floor, Kind::Nchan])?;
    let (mut rate, mut cpu, mut slow) = <(Figures, Figures, Figures)>::default();
    rounds(bench.scale.rounds, &servers, |server| {
        let before = server.at_rest()?;
        let (mut load, rush) = rush(server, count)?;
        let used = server.at_rest()?.saturating_sub(before);
        all_are_served(server, &mut load)?;
        let kind = server.kind;
        rate.push(kind, count as f64 / rush.took.as_secs_f64());
        rate.faults(kind, load.faults());
        cpu.push(kind, used.as_secs_f64() * 1e6 / count as f64);
        slow.push(kind, rush.slow as f64);
        drop(load);
        server.at_rest()?;
        Ok(())
    })?;
    report.add(
        Row::new(
            format!("connects with a poll each, {count} at once"),
            "1/s",
            rate,
        )
        .must(Kind::Nchan, Limit::AtLeast(1.0))
        .stretch(Kind::Nchan, Limit::AtLeast(1.6)),
    );
    report.add(
        Row::new("CPU of a connect with its poll", "us", cpu).must(Kind::Nchan, Limit::AtMost(1.0)),
    );
    let what = "connects that took the kernel a second try";
    report.add(Row::new(what, "of them", slow).alone());
    Ok(())
}

fn memory(bench: &Bench, report: &mut Report) -> Result<()> {
    const MIB: f64 = (1 << 20) as f64;
    let count = bench.scale.fanout();
    let (mut before, mut after, mut growth) = <(Figures, Figures, Figures)>::default();
    for kind in (0..bench.scale.rounds.min(RUNS)).flat_map(|_| [Kind::Comet, Kind::Nchan]) {
        let Some(server) = bench.server(kind)? else {
            continue;
        };
        // The first requests allocate memory once, which must not be counted for the storm.
        Polls::park(&server, "warm", 10)?.deliver()?;
        server.at_rest()?;
        let calm = server.pss()? as f64;
        for _ in 0..STORMS {
            let (mut load, _) = rush(&server, count)?;
            all_are_served(&server, &mut load)?;
            after.faults(kind, load.faults());
        }
        thread::sleep(AFTER);
        server.at_rest()?;
        let left = server.pss()? as f64;
        before.push(kind, calm / MIB);
        after.push(kind, left / MIB);
        growth.push(kind, left / calm);
    }
    report.add(Row::new("memory of a fresh server", "MiB", before));
    let what = format!("memory after {STORMS} storms of {count} connections, all closed again");
    report.add(Row::new(&what, "MiB", after));
    report.add(
        Row::new(format!("{what}, by that of a fresh server"), "x", growth)
            .alone()
            .must(Kind::Comet, Limit::AtMost(1.2))
            .stretch(Kind::Comet, Limit::AtMost(1.1)),
    );
    Ok(())
}

fn rush(server: &Server, count: usize) -> Result<(Load, StormResult)> {
    Load::rush(server.kind, server.addr(), CHANNEL, (count, AT_ONCE))
}

/// Publishes one message and checks that every client gets it.
fn all_are_served(server: &Server, load: &mut Load) -> Result<()> {
    // A client that polls from now on without a cursor would miss the message.
    server.at_rest()?;
    let data = Series::new(CHANNEL).next(LENGTH);
    server.publisher()?.publish(CHANNEL, &data)?;
    load.collect(&data)?;
    load.quiet()
}

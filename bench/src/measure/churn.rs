//! Measures clients that come and go as fast as they can. Each client connects and polls. One half leaves without a
//! response. The other half gets one message and leaves. No message may be lost, and no memory may remain in use.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::polls::{LENGTH, Polls};
use crate::{
    bench::Bench,
    kind::Kind,
    load::Load,
    message::{Faults, Series},
    report::{Figures, Limit, Report, Row},
    server::Server,
};

const CHANNEL: &str = "churn";

/// Clients of each kind that connect together.
const TOGETHER: usize = 500;

/// Time in which a server can notice that all clients have left, and free their memory.
const AFTER: Duration = Duration::from_secs(3);

pub(crate) fn churn(bench: &Bench, report: &mut Report) -> Result<()> {
    let (mut rate, mut growth, mut left) = <(Figures, Figures, Figures)>::default();
    for kind in (0..bench.scale.dear_rounds).flat_map(|_| [Kind::Comet, Kind::Nchan]) {
        let Some(server) = bench.server(kind)? else {
            continue;
        };
        // The first requests allocate memory once, which must not be counted for a client.
        Polls::park(&server, "warm", 10)?.deliver()?;
        server.at_rest()?;
        let (descriptors, memory) = (server.descriptors()?, server.pss()? as f64);
        let (clients, faults) = come_and_go(&server, bench.scale.steady)?;
        rate.push(kind, clients);
        rate.faults(kind, faults);
        thread::sleep(AFTER);
        server.at_rest()?;
        left.push(kind, server.descriptors()? as f64 - descriptors as f64);
        growth.push(kind, server.pss()? as f64 / memory);
    }
    report.add(Row::new("clients that come, poll, and leave", "1/s", rate));
    let what = "descriptors left when they have gone";
    report.add(
        Row::new(what, "of them", left)
            .alone()
            .must(Kind::Comet, Limit::AtMost(0.0)),
    );
    let what = "memory when they have gone, by that before they came";
    report.add(
        Row::new(what, "x", growth)
            .alone()
            .must(Kind::Comet, Limit::AtMost(1.2)),
    );
    Ok(())
}

/// Returns clients a second, and the faults of those clients that stayed.
fn come_and_go(server: &Server, seconds: f64) -> Result<(f64, Faults)> {
    let (mut publisher, mut series) = (server.publisher()?, Series::new(CHANNEL));
    let (start, mut clients, mut faults) = (Instant::now(), 0, Faults::default());
    let come = || Load::rush(server.kind, server.addr(), CHANNEL, (TOGETHER, TOGETHER));
    for turn in 0.. {
        let ((leave, _), (mut stay, _)) = (come()?, come()?);
        // A client that polls after the publish would not get the message.
        server.at_rest()?;
        // The clients leave before the publish, or while the message is on its way to them.
        let leave = Some(leave).filter(|_| turn % 2 == 0);
        let data = series.next(LENGTH);
        publisher.send(CHANNEL, &data)?;
        drop(leave);
        stay.collect(&data)?;
        publisher.confirm()?;
        faults += stay.faults();
        clients += 2 * TOGETHER;
        if start.elapsed().as_secs_f64() > seconds {
            break;
        }
    }
    Ok((clients as f64 / start.elapsed().as_secs_f64(), faults))
}

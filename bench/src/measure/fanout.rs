//! CPU of a delivery: one message to many parked polls. What all threads of the server ran from just before the
//! publish until it is at rest again, by deliveries; parking again is measured apart.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{Polls, Scale};
use crate::{
    report::{Budget, Compare, Report, percentile},
    server::Server,
};

/// Messages while one server's clients are connected; their median is the round's value.
const MESSAGES: usize = 3;

pub(crate) fn fanout(comet: &Path, scale: &Scale, report: &mut Report) -> Result<()> {
    let (comet, floor) = (Server::comet(comet)?, Server::floor()?);
    let mut deliver = (Vec::new(), Vec::new());
    let mut park = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        // Who is first may have an advantage: they take turns.
        let mut sides = [
            (&comet, &mut deliver.0, &mut park.0),
            (&floor, &mut deliver.1, &mut park.1),
        ];
        sides.rotate_left(round % 2);
        for (server, deliver, park) in sides {
            let (delivery, parking) = measure(server, scale.fanout)?;
            deliver.push(delivery);
            park.push(parking);
        }
    }
    let what = format!("CPU of a delivery, {} parked polls", scale.fanout);
    report.add(
        &what,
        "us",
        deliver,
        Compare::Ratio,
        Some(Budget::AtMost(1.2)),
    );
    report.add("CPU of parking again", "us", park, Compare::Ratio, None);
    Ok(())
}

/// Microseconds of CPU: of a delivery, and of parking again.
fn measure(server: &Server, count: usize) -> Result<(f64, f64)> {
    let mut polls = Polls::park(server, "bench", count)?;
    // The first one pays for what the others find ready.
    polls.deliver()?;
    polls.again()?;
    let each = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / count as f64;
    let (mut deliveries, mut parkings) = (Vec::new(), Vec::new());
    for _ in 0..MESSAGES {
        let before = server.cpu()?;
        polls.deliver()?;
        let delivered = server.at_rest()?;
        polls.again()?;
        let parked = server.at_rest()?;
        deliveries.push(each(before, delivered));
        parkings.push(each(delivered, parked));
    }
    drop(polls);
    server.at_rest()?;
    for values in [&mut deliveries, &mut parkings] {
        values.sort_by(f64::total_cmp);
    }
    Ok((percentile(&deliveries, 50.0), percentile(&parkings, 50.0)))
}

//! User memory of a parked poll: growth of the server's PSS while polls park, by polls. Afterwards rounds of one
//! message to all and parking again, after which it should not have grown.

use std::path::Path;

use anyhow::Result;

use super::{Polls, Scale};
use crate::{
    report::{Budget, Compare, Report},
    server::Server,
};

/// Fresh servers are measured at most; they differ by a percent.
const RUNS: usize = 3;

pub(crate) fn memory(comet: &Path, scale: &Scale, report: &mut Report) -> Result<()> {
    let (mut parked, mut growth) = <([Vec<f64>; 2], [Vec<f64>; 2])>::default();
    for _ in 0..scale.rounds.min(RUNS) {
        for (i, server) in [Server::comet(comet), Server::floor()]
            .into_iter()
            .enumerate()
        {
            let values = measure(&server?, scale)?;
            parked[i].push(values.0);
            growth[i].push(values.1);
        }
    }
    let what = format!("memory of a parked poll, {} of them", scale.connections);
    let budget = Some(Budget::AtMost(1300.0));
    report.add(&what, "bytes", parked.into(), Compare::Nothing, budget);
    let what = format!("its growth over {} rounds", scale.repolls);
    report.add(&what, "bytes", growth.into(), Compare::Nothing, None);
    Ok(())
}

/// Bytes per poll: parked, and what the rounds added.
fn measure(server: &Server, scale: &Scale) -> Result<(f64, f64)> {
    // What the first requests need once is no poll's.
    let mut first = Polls::park(server, "warm", 10)?;
    first.deliver()?;
    drop(first);
    server.at_rest()?;

    let before = server.pss()?;
    let mut polls = Polls::park(server, "bench", scale.connections)?;
    let parked = server.pss()?;
    for _ in 0..scale.repolls {
        polls.deliver()?;
        polls.again()?;
    }
    let after = server.pss()?;
    let each = |from: u64, to: u64| (to as f64 - from as f64) / scale.connections as f64;
    Ok((each(before, parked), each(parked, after)))
}

//! Measures the CPU of a server that holds thousands of polls without any message.

use std::{thread, time::Duration};

use anyhow::Result;

use super::polls::rounds;
use crate::{
    bench::Bench,
    hold::Hold,
    kind::Kind,
    report::{Figures, Limit, Report, Row},
};

pub(crate) fn idle(bench: &Bench, report: &mut Report) -> Result<()> {
    let (count, window) = (bench.scale.connections, bench.scale.idle);
    let servers = bench.servers(&[Kind::Comet, Kind::Floor, Kind::Nchan])?;
    let mut share = Figures::default();
    rounds(bench.scale.dear_rounds, &servers, |server| {
        let mut hold = Hold::park(server, count)?;
        let before = server.cpu()?;
        thread::sleep(Duration::from_secs_f64(window));
        let used = server.cpu()?.saturating_sub(before);
        hold.check()?;
        share.push(server.kind, 100.0 * used.as_secs_f64() / window);
        drop(hold);
        server.at_rest()?;
        Ok(())
    })?;
    let what = format!("CPU of a core while {count} parked polls are idle");
    report.add(
        Row::new(what, "percent", share)
            .alone()
            .must(Kind::Comet, Limit::AtMost(0.5)),
    );
    Ok(())
}

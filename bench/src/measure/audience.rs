//! Measures how the cost of a delivery grows with the number of subscribers.

use anyhow::Result;

use super::{fanout::Measured, polls::rounds};
use crate::{
    bench::Bench,
    kind::Kind,
    report::{Figures, Limit, Report, Row},
};

const KINDS: [Kind; 3] = [Kind::Comet, Kind::Floor, Kind::Nchan];

pub(crate) fn audience(bench: &Bench, report: &mut Report) -> Result<()> {
    let audiences = bench.scale.audiences();
    let servers = bench.servers(&KINDS)?;
    let mut measured: Vec<Measured> = audiences.iter().map(|_| Measured::default()).collect();
    // Each round measures all sizes, so that a busy machine affects all sizes alike.
    rounds(bench.scale.dear_rounds, &servers, |server| {
        let mut sizes = audiences.iter().zip(&mut measured);
        sizes.try_for_each(|(&count, measured)| measured.round(server, count))
    })?;
    for kind in KINDS {
        let last = measured.iter().map(|measured| measured.last.median(kind));
        let counts = audiences.iter().map(|&count| count as f64);
        let points: Vec<(f64, f64)> = counts.zip(last).collect();
        if points.iter().all(|(_, last)| last.is_finite()) {
            report.curve("last", kind, points);
        }
    }
    let flat = flatness(&measured);
    for (count, measured) in audiences.iter().zip(measured) {
        let what = format!("CPU of a delivery to an audience of {count}");
        report.add(Row::new(what, "us", measured.delivery));
    }
    let what = "CPU of a delivery, greatest by least of these medians";
    report.add(
        Row::new(what, "times", flat)
            .alone()
            .must(Kind::Comet, Limit::AtMost(1.15)),
    );
    Ok(())
}

/// One value for each server: the median over the rounds, which varies far less than a single round.
fn flatness(measured: &[Measured]) -> Figures {
    let mut flat = Figures::default();
    for kind in KINDS {
        let medians = measured
            .iter()
            .map(|measured| measured.delivery.median(kind));
        let greatest = medians.clone().fold(f64::NAN, f64::max);
        let least = medians.fold(f64::NAN, f64::min);
        if least.is_finite() {
            flat.push(kind, greatest / least);
        }
    }
    flat
}

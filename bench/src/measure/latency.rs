//! Collects latencies in microseconds by server: the median and the tail of each round, and the distribution of all.

use std::time::Duration;

use crate::{
    kind::Kind,
    message::Faults,
    report::{Figures, Report, percentile},
};

#[derive(Default)]
pub(super) struct Latencies {
    pub(super) median: Figures,
    pub(super) tail: Figures,
    all: Figures,
}

impl Latencies {
    /// Adds the times of one round.
    pub(super) fn round(&mut self, kind: Kind, times: Vec<Duration>) {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        times.sort_by(f64::total_cmp);
        self.median.push(kind, percentile(&times, 50.0));
        self.tail.push(kind, percentile(&times, 99.0));
        self.all.values.entry(kind).or_default().extend(times);
    }

    pub(super) fn faults(&mut self, kind: Kind, faults: Faults) {
        self.median.faults(kind, faults);
    }

    /// Draws the cumulative distribution: the share of all events that had finished after a given time.
    pub(super) fn plot(&mut self, plot: &'static str, report: &mut Report) {
        for (&kind, times) in &mut self.all.values {
            times.sort_by(f64::total_cmp);
            // Steps of half a percent, and finer steps for the tail.
            let percents = (1..198).map(|half| f64::from(half) / 2.0);
            let percents = percents.chain((0..=10).map(|tenth| 99.0 + f64::from(tenth) / 10.0));
            let points = percents.map(|percent| (percentile(times, percent), percent));
            report.curve(plot, kind, points.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{machine::Machine, scale::Scale};

    #[test]
    fn a_plot_ends_with_the_slowest_of_all_rounds() {
        let mut latencies = Latencies::default();
        let micros = |range: std::ops::Range<u64>| range.map(Duration::from_micros).collect();
        latencies.round(Kind::Comet, micros(1..101));
        latencies.round(Kind::Comet, micros(101..201));
        assert_eq!(latencies.median.values[&Kind::Comet], [50.5, 150.5]);
        assert_eq!(latencies.tail.values[&Kind::Comet], [99.0, 199.0]);

        let machine = Machine::look(Path::new("true"), 1).unwrap();
        let mut report = Report::new(machine, Scale::new(true, None, None));
        latencies.plot("touch", &mut report);
        let points = &report.curves[0].points;
        assert_eq!(points.last(), Some(&(200.0, 100.0)));
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1));
    }
}

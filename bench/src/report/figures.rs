//! Values of single measurements by server, and statistics over them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{kind::Kind, message::Faults};

/// The values of each server, one for each round.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) values: BTreeMap<Kind, Vec<f64>>,
    pub(crate) faults: BTreeMap<Kind, Faults>,
}

impl Figures {
    pub(crate) fn push(&mut self, kind: Kind, value: f64) {
        self.values.entry(kind).or_default().push(value);
    }

    pub(crate) fn faults(&mut self, kind: Kind, faults: Faults) {
        *self.faults.entry(kind).or_default() += faults;
    }

    /// The median of one server. `NAN`: the server was not measured.
    pub(crate) fn median(&self, kind: Kind) -> f64 {
        self.values
            .get(&kind)
            .map_or(f64::NAN, |values| median(values))
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(&sorted(values), 50.0)
}

/// The value below which `percent` of the sorted values lie (nearest rank). The median of an even number of values is
/// the mean of the two in the middle.
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let count = sorted.len();
    if percent == 50.0 && count.is_multiple_of(2) && count > 0 {
        return f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]);
    }
    let rank = (percent / 100.0 * count as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Formats `median (least-greatest)`.
pub(super) fn summary(values: &[f64]) -> Option<String> {
    let sorted = sorted(values);
    let (least, greatest) = (sorted.first()?, sorted.last()?);
    let middle = number(percentile(&sorted, 50.0));
    Some(if sorted.len() == 1 {
        middle
    } else {
        format!("{middle} ({}-{})", number(*least), number(*greatest))
    })
}

/// Formats a number with three digits. Noise makes more digits meaningless.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Formats a whole number such as `1,234,567`.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_those_of_the_book() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 50.0), 50.5);
        assert_eq!(percentile(&sorted, 99.0), 99.0);
        assert_eq!(median(&[8.0, 3.0, 4.0]), 4.0);
        assert!(median(&[]).is_nan());
        assert_eq!(summary(&[8.0, 3.0, 4.0]).unwrap(), "4.00 (3.00-8.00)");
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        let numbers = [0.0, 0.0038, 0.654, 12.34, 999.4, 1300.0, -1_234_567.8];
        let texts = [
            "0.00",
            "0.0038",
            "0.65",
            "12.3",
            "999",
            "1,300",
            "-1,234,568",
        ];
        assert_eq!(numbers.map(number), texts);
    }
}

//! What was measured: each single value for a machine to read, medians for people.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::measure::Scale;

#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    scale: Scale,
    rows: Vec<Row>,
}

/// Where the numbers come from: they mean nothing without it.
#[derive(Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    comet: String,
    /// Of one minute, at the start: more than a little, and the times are doubtful.
    load: String,
}

/// One line of the table.
#[derive(Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    comet: Vec<f64>,
    /// What the program that does the least gave in the same rounds.
    floor: Vec<f64>,
    compare: Compare,
    budget: Option<Budget>,
}

/// What the budget is for, and the last column but one.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compare {
    /// Comet's figure itself.
    Nothing,
    /// Comet's figure, in each round, by the other's.
    Ratio,
    /// What Comet has more, in each round.
    Difference,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

impl Report {
    pub(crate) fn new(comet: &Path, scale: &Scale) -> Result<Self> {
        let version = Command::new(comet).arg("--version").output()?;
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        Ok(Self {
            machine: Machine {
                cpu: field(&read("/proc/cpuinfo"), "model name")
                    .unwrap_or_else(|| "unknown CPU".into()),
                cores: std::thread::available_parallelism()?.get(),
                memory_mib: memory.trim_end_matches(" kB").parse().unwrap_or(0) / 1024,
                kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
                comet: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
                load: read("/proc/loadavg")
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            },
            scale: *scale,
            rows: Vec::new(),
        })
    }

    /// A figure of both, measured in turns.
    pub(crate) fn add(
        &mut self,
        what: &str,
        unit: &'static str,
        (comet, floor): (Vec<f64>, Vec<f64>),
        compare: Compare,
        budget: Option<Budget>,
    ) {
        let row = Row {
            what: what.into(),
            unit,
            comet,
            floor,
            compare,
            budget,
        };
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    pub(crate) fn print(&self) {
        let machine = &self.machine;
        println!(
            "{}; {} cores, {} MiB, Linux {}, load {} at the start",
            machine.cpu, machine.cores, machine.memory_mib, machine.kernel, machine.load
        );
        println!(
            "{}; beside programs of comet-bench {} that do the least",
            machine.comet,
            env!("CARGO_PKG_VERSION")
        );
        println!("medians (least-greatest) of single measurements");
        if cfg!(debug_assertions) {
            println!("NOT OPTIMISED: cargo run --release, or the figures mean nothing");
        }
        println!();
        println!(
            "{}",
            columns("", "comet", "the least", "beside it", "budget")
        );
        for row in &self.rows {
            println!("{}", row.line());
        }
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).context("a report has a JSON form")?;
        json.push(b'\n');
        Ok(fs::write(path, json)?)
    }
}

fn columns(what: &str, comet: &str, floor: &str, beside: &str, budget: &str) -> String {
    format!("{what:<46} {comet:>27} {floor:>27} {beside:>22} {budget:>18}")
}

impl Row {
    fn line(&self) -> String {
        let pairs = self.comet.iter().zip(&self.floor);
        let (mark, beside): (_, Vec<f64>) = match self.compare {
            Compare::Nothing => ("", Vec::new()),
            Compare::Ratio => ("x ", pairs.map(|(comet, floor)| comet / floor).collect()),
            Compare::Difference => ("+ ", pairs.map(|(comet, floor)| comet - floor).collect()),
        };
        let figure = if self.compare == Compare::Nothing {
            &self.comet
        } else {
            &beside
        };
        let figure = median(figure);
        let budget = self.budget.map_or(String::new(), |budget| {
            let (sign, limit, met) = match budget {
                Budget::AtMost(limit) => ("<=", limit, figure <= limit),
                Budget::AtLeast(limit) => (">=", limit, figure >= limit),
            };
            format!(
                "{} {sign} {mark}{}",
                if met { "met" } else { "MISSED" },
                number(limit)
            )
        });
        let beside = summary(&beside).map_or(String::new(), |beside| format!("{mark}{beside}"));
        columns(
            &format!("{}, {}", self.what, self.unit),
            &summary(&self.comet).unwrap_or_default(),
            &summary(&self.floor).unwrap_or_default(),
            &beside,
            &budget,
        )
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 50.0)
}

/// `median (least-greatest)`.
fn summary(values: &[f64]) -> Option<String> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (sorted.first()?, sorted.last()?);
    let middle = number(percentile(&sorted, 50.0));
    Some(if sorted.len() == 1 {
        middle
    } else {
        format!("{middle} ({}-{})", number(*least), number(*greatest))
    })
}

/// The value below which `percent` of the sorted values lie (nearest rank; the median of an even number is the mean
/// of the two in the middle).
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

/// Three digits are more than the noise leaves.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_those_of_the_book() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 50.0), 50.5);
        assert_eq!(percentile(&sorted, 99.0), 99.0);
        assert_eq!(percentile(&[3.0, 4.0, 8.0], 50.0), 4.0);
        assert_eq!(summary(&[8.0, 3.0, 4.0]).unwrap(), "4.00 (3.00-8.00)");
        assert_eq!(summary(&[]), None);
    }
}

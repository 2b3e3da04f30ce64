//! One row of the report: the values of each server, the comparison of Comet with the others in the same rounds, and
//! the goals.

use serde::Serialize;

use super::figures::{Figures, median, number, summary};
use crate::kind::Kind;

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    compare: Compare,
    pub(crate) figures: Figures,
    goals: Vec<Goal>,
}

/// How Comet is compared with another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Compare {
    /// No comparison.
    Alone,
    /// Comet's value divided by the other server's value, in each round.
    Ratio,
    /// Comet's value minus the other server's value, in each round.
    Difference,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// A goal. If `against` is Comet, the goal is for Comet's own value, otherwise for the comparison with that server.
#[derive(Clone, Copy, Debug, Serialize)]
struct Goal {
    against: Kind,
    limit: Limit,
    level: &'static str,
}

/// A line of the table.
pub(super) struct Line {
    pub(super) server: &'static str,
    pub(super) value: String,
    pub(super) beside: String,
    /// The goals, reached or missed, and the faults.
    pub(super) goals: Vec<String>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, figures: Figures) -> Self {
        Self {
            what: what.into(),
            unit,
            compare: Compare::Ratio,
            figures,
            goals: Vec::new(),
        }
    }

    /// Compares by difference instead of ratio.
    pub(crate) fn difference(mut self) -> Self {
        self.compare = Compare::Difference;
        self
    }

    /// Disables the comparison, for values that say more without it.
    pub(crate) fn alone(mut self) -> Self {
        self.compare = Compare::Alone;
        self
    }

    pub(crate) fn must(self, against: Kind, limit: Limit) -> Self {
        self.goal(against, limit, "must")
    }

    pub(crate) fn stretch(self, against: Kind, limit: Limit) -> Self {
        self.goal(against, limit, "stretch")
    }

    fn goal(mut self, against: Kind, limit: Limit, level: &'static str) -> Self {
        self.goals.push(Goal {
            against,
            limit,
            level,
        });
        self
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        let measured = |kind: Kind| self.figures.values.contains_key(&kind);
        // A goal for a server that was not measured counts as not reached, if the server could have been measured.
        let has = |&kind: &Kind| {
            let is_goal = self.goals.iter().any(|goal| goal.against == kind);
            measured(kind) || is_goal && measured(Kind::Comet)
        };
        Kind::ALL
            .into_iter()
            .filter(has)
            .map(|kind| self.line(kind))
            .collect()
    }

    fn line(&self, kind: Kind) -> Line {
        let beside = self.beside(kind);
        let values = self
            .figures
            .values
            .get(&kind)
            .map_or(&[][..], Vec::as_slice);
        let goals = self.goals.iter().filter(|goal| goal.against == kind);
        let judged = if kind == Kind::Comet { values } else { &beside };
        let mut goals: Vec<String> = goals
            .map(|goal| goal.text(self.mark(kind), judged))
            .collect();
        if let Some(faults) = self.figures.faults.get(&kind)
            && faults.any()
        {
            goals.push(faults.to_string());
        }
        Line {
            server: kind.label(),
            value: summary(values).unwrap_or("not measured".into()),
            beside: summary(&beside).map_or(String::new(), |beside| {
                format!("{}{beside}", self.mark(kind))
            }),
            goals,
        }
    }

    /// The comparison of Comet with this server, in each round that has both.
    fn beside(&self, kind: Kind) -> Vec<f64> {
        let of = |kind| self.figures.values.get(&kind).into_iter().flatten();
        if kind == Kind::Comet {
            return Vec::new();
        }
        let pairs = of(Kind::Comet).zip(of(kind));
        match self.compare {
            Compare::Alone => Vec::new(),
            // A ratio to a value near 0 would be huge and says nothing.
            Compare::Ratio
                if self.figures.median(kind) * 50.0 < self.figures.median(Kind::Comet) =>
            {
                Vec::new()
            }
            Compare::Ratio => pairs.map(|(comet, other)| comet / other).collect(),
            Compare::Difference => pairs.map(|(comet, other)| comet - other).collect(),
        }
    }

    fn mark(&self, kind: Kind) -> &'static str {
        match (kind, self.compare) {
            (Kind::Comet, _) | (_, Compare::Alone) => "",
            (_, Compare::Ratio) => "x ",
            (_, Compare::Difference) => "+ ",
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}, {}", self.what, self.unit);
        for line in self.lines() {
            let columns = format!(
                "\n  {:<18} {:>26}  {:<22}  {}",
                line.server,
                line.value,
                line.beside,
                line.goals.join("; ")
            );
            text += columns.trim_end();
        }
        text
    }
}

impl Goal {
    fn text(&self, mark: &str, values: &[f64]) -> String {
        let figure = median(values);
        let (sign, limit, met) = match self.limit {
            Limit::AtMost(limit) => ("<=", limit, figure <= limit),
            Limit::AtLeast(limit) => (">=", limit, figure >= limit),
        };
        let result = match met {
            true => "met",
            false if figure.is_nan() => "not measured",
            false => "MISSED",
        };
        format!("{} {sign} {mark}{} {result}", self.level, number(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Fault, Faults};

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (comet, nchan) in [(2.0, 4.0), (3.0, 4.0), (6.0, 6.0)] {
            figures.push(Kind::Comet, comet);
            figures.push(Kind::Nchan, nchan);
        }
        figures
    }

    #[test]
    fn compares_round_by_round() {
        // The ratio of the medians would be the same here. The ratio of the greatest values would differ.
        let row = Row::new("CPU", "us", figures());
        assert_eq!(row.beside(Kind::Nchan), [0.5, 0.75, 1.0]);
        assert_eq!(row.difference().beside(Kind::Nchan), [-2.0, -1.0, 0.0]);
    }

    #[test]
    fn goals_stand_at_the_server_they_are_about() {
        let row = Row::new("CPU", "us", figures())
            .must(Kind::Comet, Limit::AtMost(3.0))
            .stretch(Kind::Comet, Limit::AtLeast(3.5))
            .must(Kind::Nchan, Limit::AtMost(0.8))
            .stretch(Kind::Nchan, Limit::AtMost(0.7))
            .must(Kind::Floor, Limit::AtMost(1.2));
        let [comet, floor, nchan] = &row.lines()[..] else {
            panic!("three lines");
        };
        assert_eq!(comet.value, "3.00 (2.00-6.00)");
        assert_eq!(comet.beside, "");
        assert_eq!(comet.goals, ["must <= 3.00 met", "stretch >= 3.50 MISSED"]);
        assert_eq!(floor.value, "not measured");
        assert_eq!(floor.goals, ["must <= x 1.20 not measured"]);
        assert_eq!(nchan.beside, "x 0.75 (0.50-1.00)");
        assert_eq!(
            nchan.goals,
            ["must <= x 0.80 met", "stretch <= x 0.70 MISSED"]
        );
    }

    #[test]
    fn faults_are_shown() {
        let (mut figures, mut faults) = (figures(), Faults::default());
        figures.faults(Kind::Nchan, faults);
        faults.count(Fault::Lost, 2);
        figures.faults(Kind::Nchan, faults);
        figures.faults(Kind::Nchan, faults);
        let row = Row::new("CPU", "us", figures);
        assert!(row.text().ends_with("lost 4"), "{}", row.text());
    }
}

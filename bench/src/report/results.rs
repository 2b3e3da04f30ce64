//! The results of all measurements.

use std::collections::BTreeMap;

use serde::Serialize;

use super::row::Row;
use crate::{kind::Kind, machine::Machine, scale::Scale};

/// All results. The JSON form has each single measurement.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) scale: Scale,
    /// The reason why a server is missing.
    pub(crate) left_out: BTreeMap<Kind, String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) curves: Vec<Curve>,
}

/// The line of one server in a plot.
#[derive(Serialize)]
pub(crate) struct Curve {
    /// Name of the plot. Curves with the same name are drawn together.
    pub(crate) plot: &'static str,
    pub(crate) server: Kind,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Report {
    pub(crate) fn new(machine: Machine, scale: Scale) -> Self {
        Self {
            machine,
            scale,
            left_out: BTreeMap::new(),
            rows: Vec::new(),
            curves: Vec::new(),
        }
    }

    /// Adds a row and prints it. A row without values is dropped.
    pub(crate) fn add(&mut self, row: Row) {
        if row.figures.values.is_empty() {
            return;
        }
        eprintln!("{}", row.text());
        self.rows.push(row);
    }

    pub(crate) fn curve(&mut self, plot: &'static str, server: Kind, points: Vec<(f64, f64)>) {
        self.curves.push(Curve {
            plot,
            server,
            points,
        });
    }
}

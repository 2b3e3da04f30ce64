//! The results: a row for each question, a line for each server in the row, and the comparison of Comet with the
//! others.

mod figures;
mod row;
mod table;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use figures::{Figures, median, percentile};
pub(crate) use row::{Limit, Row};

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

    pub(crate) fn print(&self) {
        print!("{}", table::text(self));
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).context("a report has a JSON form")?;
        json.push(b'\n');
        write(path, &json)
    }

    pub(crate) fn write_markdown(&self, path: &Path) -> Result<()> {
        write(path, table::markdown(self).as_bytes())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

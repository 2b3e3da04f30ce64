//! Writes the verdict as a Markdown table and as JSON.

use std::{fmt::Write, path::Path};

use anyhow::Result;
use serde::Serialize;

use crate::{scenario::Outcome, verdict::Figures};

/// The figures of one transport under one disturbance.
#[derive(Debug, Serialize)]
struct Row<'a> {
    server: &'a str,
    disturbance: &'static str,
    transport: String,
    #[serde(flatten)]
    figures: Figures,
}

/// Writes the table. docs/delivery.md explains its columns.
#[must_use]
pub fn table(server: &str, outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "| {server} | transport | due | delivered | lost without a gap | missing, with a gap | doubled | reordered | damaged | \
         gaps (in vain) |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    for outcome in outcomes {
        for (transport, f) in &outcome.figures {
            let damaged = f.damaged + f.refused;
            let _ = writeln!(
                text,
                "| {} | {transport} | {} | {} | {} | {} | {} | {} | {damaged} | {} ({}) |",
                outcome.disturbance.name(),
                f.due,
                f.delivered,
                f.lost,
                f.told,
                f.doubled,
                f.reordered,
                f.gaps,
                f.false_gaps
            );
        }
    }
    text
}

/// Describes what was done, and what the figures cannot show.
#[must_use]
pub fn lines(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for o in outcomes {
        let unknown: u64 = o.figures.iter().map(|(_, f)| f.unknown).sum();
        let _ = writeln!(
            text,
            "{}: {} published, {} acknowledged; {} connections cut, {} made again, {} restarts; {unknown} deliveries \
             of messages that were not acknowledged",
            o.disturbance.name(),
            o.published,
            o.acknowledged,
            o.cuts,
            o.reconnects,
            o.restarts
        );
    }
    text
}

/// Writes all results as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(server: &str, outcomes: &[Outcome], path: &Path) -> Result<()> {
    let rows: Vec<Row<'_>> = outcomes
        .iter()
        .flat_map(|o| {
            o.figures.iter().map(|(transport, figures)| Row {
                server,
                disturbance: o.disturbance.name(),
                transport: transport.to_string(),
                figures: *figures,
            })
        })
        .collect();
    Ok(std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?)
}

/// Whether a transport lost a message silently, delivered one twice, or changed the order. With `strict`, reported
/// losses count as well.
#[must_use]
pub fn faulty(outcomes: &[Outcome], strict: bool) -> bool {
    let mut figures = outcomes.iter().flat_map(|o| &o.figures);
    figures.any(|(_, f)| f.faulty() || (strict && f.told > 0))
}

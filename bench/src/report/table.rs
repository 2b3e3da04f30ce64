//! Formats the report for readers, as plain text and as Markdown.

use std::fmt::Write;

use super::{results::Report, row::Row};
use crate::kind::Kind;

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for line in preface(report) {
        text += &line;
        text.push('\n');
    }
    for row in &report.rows {
        text += &format!("\n{}\n", row.text());
    }
    text
}

pub(super) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for line in preface(report) {
        text += &format!("- {line}\n");
    }
    text += "\n| question | server | median (least-greatest) | Comet beside it | goals, faults |\n|---|---|---|---|---|\n";
    for row in &report.rows {
        text += &markdown_row(row);
    }
    text
}

fn markdown_row(row: &Row) -> String {
    let mut text = String::new();
    let mut what = format!("{}, {}", row.what, row.unit);
    for line in row.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {} | {} |",
            line.server,
            line.value,
            line.beside,
            line.goals.join("; ")
        );
        what.clear();
    }
    text
}

fn preface(report: &Report) -> Vec<String> {
    let machine = &report.machine;
    let mut lines = vec![format!(
        "{}; {} cores, {} MiB, Linux {}, load {} at the start",
        machine.cpu, machine.cores, machine.memory_mib, machine.kernel, machine.load
    )];
    let name = |kind: Kind, version: &String| format!("{}: {version}", kind.label());
    let versions: Vec<String> = machine
        .versions
        .iter()
        .map(|(kind, version)| name(*kind, version))
        .collect();
    lines.push(versions.join("; "));
    for (kind, why) in &report.left_out {
        lines.push(format!("{} is left out: {why}", kind.label()));
    }
    lines.push(
        "medians (least-greatest) of single measurements; beside it: Comet's by the other's (x) or what it has more \
         (+), in the same rounds"
            .into(),
    );
    if cfg!(debug_assertions) {
        lines.push("NOT OPTIMISED: cargo run --release, or the figures mean nothing".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        machine::Machine,
        report::{Figures, Limit},
        scale::Scale,
    };

    fn report() -> Report {
        let machine = Machine::look(Path::new("true"), 1).unwrap();
        let mut report = Report::new(machine, Scale::new(true, None, None));
        let mut figures = Figures::default();
        figures.push(Kind::Comet, 2.0);
        figures.push(Kind::Floor, 1.0);
        let row = Row::new("CPU", "us", figures).must(Kind::Floor, Limit::AtMost(1.2));
        report.add(row);
        report.left_out.insert(Kind::Php, "it is not there".into());
        report
    }

    #[test]
    fn both_forms_say_the_same() {
        let report = report();
        let text = text(&report);
        assert!(text.contains("php-fpm, sleeping is left out: it is not there"));
        assert!(text.contains("\nCPU, us\n  Comet "));
        let markdown = markdown(&report);
        assert!(markdown.contains("| CPU, us | Comet | 2.00 |  |  |\n"));
        assert!(markdown.contains("|  | bare loop | 1.00 | x 2.00 | must <= x 1.20 MISSED |\n"));
    }

    #[test]
    fn the_raw_form_has_each_value() {
        let mut report = report();
        report.curve("memory", Kind::Comet, vec![(1.0, 2.5)]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["figures"]["values"]["comet"][0], 2.0);
        assert_eq!(json["rows"][0]["goals"][0]["limit"]["at_most"], 1.2);
        assert_eq!(json["curves"][0]["points"][0][1], 2.5);
        assert!(json["machine"]["versions"]["floor"].is_string());
    }
}

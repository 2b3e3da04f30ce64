//! Prints the report, and writes it to files.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{results::Report, table};

impl Report {
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

//! Describes the machine. Figures mean nothing without this description.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::Result;
use serde::Serialize;

use crate::{kind::Kind, peers};

#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Load average of one minute at the start. With a high load, the measured times are doubtful.
    pub(crate) load: String,
    /// Number of descriptors that one process may open.
    pub(crate) descriptors: u64,
    pub(crate) versions: BTreeMap<Kind, String>,
}

impl Machine {
    pub(crate) fn look(comet: &Path, descriptors: u64) -> Result<Self> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let load = read("/proc/loadavg");
        Ok(Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown CPU".into()),
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: memory.trim_end_matches(" kB").parse().unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            descriptors,
            versions: versions(comet),
        })
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Versions of the servers that are installed.
fn versions(comet: &Path) -> BTreeMap<Kind, String> {
    let output = Command::new(comet).arg("--version").output();
    let comet = output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    let version = |kind| match kind {
        Kind::Comet => comet.clone(),
        Kind::Floor => format!("comet-bench {}", env!("CARGO_PKG_VERSION")),
        Kind::Nchan | Kind::Pushpin | Kind::Php => peers::version(kind),
    };
    let versions = Kind::ALL.map(|kind| (kind, version(kind)));
    let found = versions.into_iter().filter(|(_, text)| !text.is_empty());
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_this_machine() {
        let machine = Machine::look(Path::new("true"), 1).unwrap();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty());
        assert!(machine.versions.contains_key(&Kind::Floor));
    }
}

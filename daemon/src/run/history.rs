//! Opens the hub with the history that an earlier daemon kept.

use std::{io, sync::Arc, time::Instant};

use anyhow::Context;

use crate::{
    config::Config,
    hub::{Hub, LogSettings},
    store::{self, Durability, LogDirectory},
};

/// `workers` counts every thread with subscribers.
pub(super) fn open_hub(config: &Config, workers: usize) -> anyhow::Result<Arc<Hub>> {
    let (history, store) = (config.hub_history(), &config.store);
    let given = store.dir.as_deref();
    if store.durability == Durability::Memory {
        store::end(given)?;
        return Ok(Hub::new(history, workers));
    }
    let dir = store::directory(given)?;
    let disk = LogDirectory::open(&dir).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => anyhow::anyhow!(
            "another comet keeps its history in {} (use another directory with --store or COMET_STORE)",
            dir.display()
        ),
        _ => anyhow::anyhow!(
            "cannot keep history in {}: {error} (use another directory with --store or COMET_STORE)",
            dir.display()
        ),
    })?;
    let settings = LogSettings {
        durability: store.durability,
        on_error: store.on_error,
        rewrite_bytes: store.rewrite as u64,
        boot: store::boot(),
    };
    let begun = Instant::now();
    let (hub, found) = Hub::open(history, workers, Arc::new(disk), &settings)
        .context("cannot read the history in the log")?;
    found.log(&dir, begun.elapsed());
    Ok(hub)
}

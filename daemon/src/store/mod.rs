//! The store: a log of published messages in a directory, so that messages survive a restart. The hub gives ids and decides
//! which messages are kept. The store only writes messages and reads them back.

pub mod disk;
#[cfg(test)]
pub(crate) mod fake;
mod head;
mod log;
mod mark;
pub mod record;
mod replay;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use disk::LogDirectory;
pub use log::{Base, FilePart, Log, LogSummary};
pub use mark::Mark;
use nix::unistd::{AccessFlags, access};
pub use record::{MessageRecord, Record};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// The failures that an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// None: after a restart there is no history.
    Memory,
    /// A crash of the daemon, but not of the machine.
    Process,
    /// A crash of the machine, and the loss of power.
    Disk,
}

/// What to do with messages that cannot be written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Subscribers get the messages, and the publisher gets the error that they are not kept.
    Deliver,
    /// Messages are refused while writing fails.
    Refuse,
}

/// Why an operation of the store failed. The text needs no context.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {what} {}: {cause}", path.display())]
pub struct StoreError {
    what: &'static str,
    path: PathBuf,
    cause: Arc<io::Error>,
}

impl StoreError {
    pub(crate) fn new(what: &'static str, path: PathBuf, cause: io::Error) -> Self {
        Self {
            what,
            path,
            cause: Arc::new(cause),
        }
    }

    fn of(
        what: &'static str,
        disk: &dyn disk::Disk,
        name: &str,
    ) -> impl Fn(io::Error) -> Self + use<> {
        let path = disk.path(name);
        move |cause| Self::new(what, path.clone(), cause)
    }
}

/// The directory of the log: `given`, or by default `/var/lib/comet` if the daemon can write there, or else `comet` in
/// `$XDG_STATE_HOME` or `~/.local/state`.
///
/// # Errors
/// No directory can be used.
pub fn directory(given: Option<&Path>) -> Result<PathBuf, NoLogDirectory> {
    if let Some(given) = given {
        return Ok(given.into());
    }
    let system = Path::new("/var/lib/comet");
    if usable(system) || (!system.exists() && usable(Path::new("/var/lib"))) {
        return Ok(system.into());
    }
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    let state = absolute("XDG_STATE_HOME").or_else(home);
    state.map(|state| state.join("comet")).ok_or(NoLogDirectory)
}

/// The boot id of the machine. If the system reports none, the present time is used, so that every start counts as a new boot.
#[must_use]
pub fn boot() -> u128 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().as_nanos()
    })
}

/// Writes into an existing log that a daemon runs without a log. The messages of this run will be missing, so a later daemon
/// must not take the log for complete.
///
/// # Errors
/// There is a log, and it cannot be written.
pub fn end(given: Option<&Path>) -> Result<(), StoreError> {
    let Ok(path) = directory(given) else {
        return Ok(());
    };
    if !path.join(disk::LOCK).exists() {
        return Ok(());
    }
    let failed = |error| StoreError::new("end the log in", path.clone(), error);
    let disk = LogDirectory::open(&path).map_err(failed)?;
    let mut last_was_memory = false;
    let (mut log, found) = Log::open(Arc::new(disk), &mut |record| {
        if let Record::Start { durability, .. } = record {
            last_was_memory = durability == Durability::Memory;
        }
    })?;
    if found.boot.is_none() || last_was_memory {
        return Ok(());
    }
    let began = Record::Start {
        id: found.last + 1,
        after: found.last,
        boot: boot(),
        durability: Durability::Memory,
    };
    log.append([began])
}

impl LogSummary {
    /// Logs what was found.
    pub fn log(&self, dir: &Path, took: Duration) {
        let dir = dir.display();
        for FilePart {
            file,
            offset,
            length,
        } in &self.damaged
        {
            warn!(
                "{dir}/{file}: {length} bytes at {offset} are damaged and were skipped; clients that reconnect get a gap"
            );
        }
        if let Some(FilePart {
            file,
            offset,
            length,
        }) = &self.torn
        {
            warn!(
                "{dir}/{file}: the last write was not finished; {length} bytes at {offset}, which were not acknowledged, were cut off"
            );
        }
        if self.outdated {
            info!("{dir} has the format of an earlier comet, and will be rewritten");
        }
        info!(messages = self.messages, ?took, "history read from {dir}");
    }
}

fn usable(directory: &Path) -> bool {
    directory.is_dir() && access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// See [`directory`].
#[derive(Debug, thiserror::Error)]
#[error(
    "no directory for the log: /var/lib/comet cannot be used, and neither XDG_STATE_HOME nor HOME is set; set a directory with --store, or set durability = \"memory\" under [store]"
)]
pub struct NoLogDirectory;

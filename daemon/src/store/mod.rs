//! The store: what was published, kept in a directory so that a restart forgets nothing. The hub numbers and decides
//! what is kept; here it is only written down and read back.

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

pub use disk::Directory;
pub use log::{Base, Found, Log};
pub use mark::Mark;
use nix::unistd::{AccessFlags, access};
pub use record::Record;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: a restart begins with nothing.
    Memory,
    /// The end of the daemon, however it comes; not that of the machine.
    Process,
    /// The loss of power.
    Disk,
}

/// What to do with messages that cannot be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Subscribers get them; the publisher is told that they are not kept.
    Deliver,
    /// Nobody gets them, once it is known that writing fails.
    Refuse,
}

/// Why the store does not do what it should. The text stands alone.
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

/// Where the log is when nothing says otherwise: `/var/lib/comet` where it can be used, else `comet` in
/// `$XDG_STATE_HOME` or `~/.local/state`.
///
/// # Errors
/// There is none that can be used.
pub fn directory(given: Option<&Path>) -> Result<PathBuf, NoDirectory> {
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
    state.map(|state| state.join("comet")).ok_or(NoDirectory)
}

/// Which boot of the machine this is. Where the system does not say, every one is another.
#[must_use]
pub fn boot() -> u128 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().as_nanos()
    })
}

/// Says in a log that is there, if there is one, that a daemon begins that does not use it: whoever reads it later must not take it
/// for complete.
///
/// # Errors
/// There is one, and it cannot be told.
pub fn end(given: Option<&Path>) -> Result<(), StoreError> {
    let Ok(path) = directory(given) else {
        return Ok(());
    };
    if !path.join(disk::LOCK).exists() {
        return Ok(());
    }
    let failed = |error| StoreError::new("end the log in", path.clone(), error);
    let disk = Directory::open(&path).map_err(failed)?;
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

impl Found {
    /// Tells people what was found.
    pub fn log(&self, dir: &Path, took: Duration) {
        let dir = dir.display();
        for (file, place, length) in &self.damaged {
            warn!(
                "{dir}/{file}: {length} bytes at {place} are damaged and were skipped; clients are told that messages are missing"
            );
        }
        if let Some((file, place, length)) = &self.torn {
            warn!(
                "{dir}/{file}: the last write was not finished; cut {length} bytes at {place}, which nobody was told are kept"
            );
        }
        if self.outdated {
            info!("{dir} had the format of an earlier comet, and is written anew");
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
    "no directory for the log: /var/lib/comet cannot be used, and neither XDG_STATE_HOME nor HOME is set; name one by --store, or set durability = \"memory\" under [store]"
)]
pub struct NoDirectory;

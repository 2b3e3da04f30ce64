//! Why a file of the spool is refused, and how many refusals are logged.

use std::time::Duration;

use comet_proto::{ChannelName, line::LineError};
use nix::errno::Errno;
use tokio::time::Instant;
use tracing::warn;

use crate::{source::socket::peer::user_name, users::entry_of};

/// Why a file is not taken as a message. The text fits after "NAME refused: ".
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolRefusal {
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    #[error("it has {0} names (hard links); only files with one name are taken")]
    Links(u64),
    #[error(
        "it has {size} bytes, over the limit of {max} (max_line under [socket] in the configuration)"
    )]
    TooLarge { size: u64, max: usize },
    #[error("{0}")]
    Line(#[from] LineError),
    #[error("it is not one line with its line end that says op publish")]
    NoPublish,
    #[error("its name is too long for the key that it lacks")]
    Key,
    #[error("it belongs to {}, who may not publish here; it is allowed by allow = [{:?}] under [{table}]", user_name(*owner), entry_of(*owner))]
    Owner { owner: u32, table: &'static str },
    #[error("it belongs to {}, who may not publish to {channel}; it is allowed by socket = [{:?}] under [[channel]] with prefix = {prefix:?}", user_name(*owner), entry_of(*owner))]
    Channel {
        owner: u32,
        channel: ChannelName,
        prefix: String,
    },
    #[error("it was swapped for another file while it was opened")]
    Swapped,
    #[error("it cannot be read: {}", .0.desc())]
    Unreadable(#[from] Errno),
}

impl SpoolRefusal {
    /// Whether the reason may go away by itself, as with a lease (fcntl). Such a file stays in the spool.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Self::Unreadable(errno) => !matches!(errno, Errno::EACCES | Errno::EPERM),
            _ => false,
        }
    }

    /// Whether the system can open no file at all now.
    pub(super) fn is_shortage(&self) -> bool {
        let Self::Unreadable(errno) = self else {
            return false;
        };
        matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
    }
}

/// Limits the logged refusals: anyone who may add files could fill the log.
#[derive(Default)]
pub(super) struct RefusalLogLimit {
    since: Option<Instant>,
    count: u32,
}

impl RefusalLogLimit {
    const WHILE: Duration = Duration::from_secs(60);
    const MOST: u32 = 100;

    /// Whether one more line may be logged.
    pub(super) fn add(&mut self) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= Self::WHILE) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        if self.count == Self::MOST {
            warn!("many files in the spool refused; the next ones of this minute are only counted");
        }
        self.count < Self::MOST
    }
}

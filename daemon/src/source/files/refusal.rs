//! Why an entry of the directory is no message, said once for each entry and reason.

use std::{
    collections::HashSet,
    ffi::OsStr,
    hash::{BuildHasher, RandomState},
    mem::discriminant,
    sync::Arc,
};

use comet_proto::ChannelNameError;
use nix::{
    errno::Errno,
    unistd::{Uid, User},
};
use tracing::warn;

use crate::metrics::Metrics;

/// Entry and reason pairs that are told; more are only counted, or whoever may create files could fill the log.
const MOST_LOGGED: usize = 4096;

/// Why an entry is no message. The text fits after "NAME.comet refused: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Name(#[from] ChannelNameError),
    /// Opening a FIFO or a device does something; a symbolic link may lead to any file of this machine.
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    #[error("it belongs to {}; to take this user's files, write under [files] in the configuration: allow = [\"user:{}\"]", owner(*.0), owner(*.0))]
    Owner(u32),
    /// A link to somebody's file, which whoever made it could perhaps not read.
    #[error("it has content and {0} names (hard links); only files with one name are read")]
    Links(u64),
    #[error(
        "its content of {size} bytes is over the limit of {max} (max_bytes under [files] in the configuration)"
    )]
    TooLarge { size: u64, max: usize },
    #[error("it cannot be read: {}", .0.desc())]
    Unreadable(Errno),
}

fn owner(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Counts refusals, and logs each pair of entry and reason once.
pub(super) struct Refusals {
    logged: HashSet<u64>,
    hasher: RandomState,
    metrics: Arc<Metrics>,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            logged: HashSet::new(),
            hasher: RandomState::new(),
            metrics,
        }
    }

    /// True: it was logged.
    pub(super) fn add(&mut self, file: &OsStr, refusal: &Refusal) -> bool {
        self.metrics.files_refused.add(1);
        if self.logged.len() >= MOST_LOGGED {
            return false;
        }
        let pair = self.hasher.hash_one((file, discriminant(refusal)));
        if !self.logged.insert(pair) {
            return false;
        }
        // Debug escapes what a name may hold to forge lines of the log.
        warn!("{file:?} refused: {refusal}");
        if self.logged.len() == MOST_LOGGED {
            warn!("{MOST_LOGGED} refusals logged; further ones are only counted");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_line_that_would_allow_the_owner() {
        let text = Refusal::Owner(0).to_string();
        assert!(
            text.ends_with(r#"under [files] in the configuration: allow = ["user:root"]"#),
            "{text}"
        );
        let unknown = Refusal::Owner(4_000_000_000).to_string();
        assert!(
            unknown.ends_with(r#"allow = ["user:4000000000"]"#),
            "{unknown}"
        );
    }

    #[test]
    fn says_each_reason_for_each_entry_once_and_counts_all() {
        let metrics = Arc::new(Metrics::default());
        let mut refusals = Refusals::new(metrics.clone());
        let (a, b) = (OsStr::new("a.comet"), OsStr::new("b.comet"));
        assert!(refusals.add(a, &Refusal::Kind("a FIFO")));
        assert!(!refusals.add(a, &Refusal::Kind("a FIFO")));
        assert!(refusals.add(b, &Refusal::Kind("a FIFO")));
        assert!(refusals.add(a, &Refusal::Links(2)));
        assert!(!refusals.add(a, &Refusal::Links(3)));
        assert_eq!(metrics.files_refused.get(), 5);
    }

    #[test]
    fn logs_a_bounded_number() {
        let mut refusals = Refusals::new(Arc::default());
        let logged = (0..2 * MOST_LOGGED).filter(|n| {
            let file = format!("{n}.comet");
            refusals.add(OsStr::new(&file), &Refusal::Links(2))
        });
        assert_eq!(logged.count(), MOST_LOGGED);
        assert_eq!(refusals.logged.len(), MOST_LOGGED);
    }
}

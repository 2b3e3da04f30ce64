//! Why an entry of the directory is refused. Each pair of entry and reason is logged once.

use std::{
    collections::HashSet,
    ffi::OsStr,
    hash::{BuildHasher, RandomState},
    mem::discriminant,
    sync::Arc,
    time::Duration,
};

use comet_proto::ChannelNameError;
use nix::errno::Errno;
use tokio::time::Instant;
use tracing::warn;

use crate::{metrics::Metrics, source::socket::peer::user_name, users::entry_of};

/// The number of pairs of entry and reason that are remembered as logged.
const MOST_REMEMBERED: usize = 4096;

/// The most lines per period. Further refusals are only counted, because other users who may create files could fill the log.
const MOST_LINES: u32 = 100;
const WHILE: Duration = Duration::from_secs(60);

/// Why an entry is refused. The text fits after "NAME.comet refused: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileRefusal {
    #[error(transparent)]
    Name(#[from] ChannelNameError),
    /// Opening a FIFO or a device has effects, and a symbolic link may lead to any file of this machine.
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    #[error("it belongs to {}; to accept this user's files, write under [files] in the configuration: allow = [{:?}]", user_name(*.0), entry_of(*.0))]
    Owner(u32),
    #[error("it belongs to {}, whose files may not publish to this channel; it is allowed by files = [{:?}] under [[channel]] with prefix = {prefix:?} in the configuration", user_name(*uid), entry_of(*uid))]
    Rule { uid: u32, prefix: String },
    /// A hard link. The user who made it may have no right to read the file.
    #[error("it has {0} names (hard links), and its owner need not have given it this one")]
    Links(u64),
    #[error(
        "its content of {size} bytes is over the limit of {max} (max_bytes under [files] in the configuration)"
    )]
    TooLarge { size: u64, max: usize },
    #[error("it cannot be read: {}", .0.desc())]
    Unreadable(Errno),
}

/// Counts refusals, and logs each pair of entry and reason once.
pub(super) struct FileRefusals {
    logged: HashSet<u64>,
    hasher: RandomState,
    /// The start of the period, and the number of lines since.
    since: Option<Instant>,
    lines: u32,
    silent: u64,
    metrics: Arc<Metrics>,
}

impl FileRefusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            logged: HashSet::new(),
            hasher: RandomState::new(),
            since: None,
            lines: 0,
            silent: 0,
            metrics,
        }
    }

    /// Returns true if it was logged.
    pub(super) fn add(&mut self, file: &OsStr, refusal: &FileRefusal, now: Instant) -> bool {
        self.metrics.files_refused.add(1);
        self.begin_while(now);
        let pair = self.hasher.hash_one((file, discriminant(refusal)));
        if self.logged.contains(&pair) {
            return false;
        }
        if self.lines >= MOST_LINES {
            if self.silent == 0 {
                warn!(
                    "{MOST_LINES} refusals logged within a minute; the next ones are only counted"
                );
            }
            self.silent += 1;
            return false;
        }
        if self.logged.len() >= MOST_REMEMBERED {
            self.logged.clear();
        }
        self.logged.insert(pair);
        self.lines += 1;
        // The Debug format escapes characters in a name that could forge log lines.
        let text = format!("{file:?} refused: {refusal}");
        warn!("{text}");
        self.metrics.files_notices.add_refused(text);
        true
    }

    fn begin_while(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now < since + WHILE) {
            return;
        }
        if self.silent > 0 {
            warn!("{} refusals of files were not logged", self.silent);
        }
        (self.since, self.lines, self.silent) = (Some(now), 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_line_that_would_allow_the_owner() {
        let text = FileRefusal::Owner(0).to_string();
        assert!(
            text.ends_with(r#"under [files] in the configuration: allow = ["user:root"]"#),
            "{text}"
        );
        let unknown = FileRefusal::Owner(4_000_000_000).to_string();
        assert!(
            unknown.ends_with(r#"allow = ["user:4000000000"]"#),
            "{unknown}"
        );
    }

    #[test]
    fn says_each_reason_for_each_entry_once_and_counts_all() {
        let metrics = Arc::new(Metrics::default());
        let (mut refusals, now) = (FileRefusals::new(metrics.clone()), Instant::now());
        let (a, b) = (OsStr::new("a.comet"), OsStr::new("b.comet"));
        let mut add = |file, refusal| refusals.add(file, &refusal, now);
        assert!(add(a, FileRefusal::Kind("a FIFO")));
        assert!(!add(a, FileRefusal::Kind("a FIFO")));
        assert!(add(b, FileRefusal::Kind("a FIFO")));
        assert!(add(a, FileRefusal::Links(2)));
        assert!(!add(a, FileRefusal::Links(3)));
        assert_eq!(metrics.files_refused.get(), 5);
    }

    #[test]
    fn logs_a_bounded_number_in_a_while_and_goes_on_after_it() {
        let mut refusals = FileRefusals::new(Arc::default());
        let start = Instant::now();
        for round in 0..100 {
            let now = start + WHILE * round;
            let logged = (0..2 * MOST_LINES).filter(|n| {
                let file = format!("{round}-{n}.comet");
                refusals.add(OsStr::new(&file), &FileRefusal::Links(2), now)
            });
            assert_eq!(logged.count(), MOST_LINES as usize, "round {round}");
            assert!(refusals.logged.len() <= MOST_REMEMBERED);
        }
    }
}

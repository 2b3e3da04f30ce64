//! The limits of internal channels, which no setting changes.

use std::time::Duration;

use super::Config;
use crate::hub::{HistoryConfig, Limits};

/// A record that is kept until a newer message replaces it. After a year without a change it is dropped.
const RECORD: Limits = Limits {
    messages: 1,
    bytes: 64 << 10,
    age: Duration::from_secs(366 * 86_400),
};

/// The limits by the beginning of the channels' names. What these channels are for is said in `compat/comet_server`.
const INTERNAL: &[(&str, Limits)] = &[
    (".comet_server.", RECORD),
    (
        ".comet_server.inbox.",
        Limits {
            messages: 100,
            bytes: 1 << 20,
            age: Duration::from_secs(600),
        },
    ),
    (
        ".comet_server.revoked",
        Limits {
            messages: 10_000,
            bytes: 8 << 20,
            age: RECORD.age,
        },
    ),
];

impl Config {
    /// The limits of the history of all channels: those of the settings, and those of internal channels.
    #[must_use]
    pub fn hub_history(&self) -> HistoryConfig {
        let mut history = self.history.clone();
        let internal = INTERNAL.iter();
        let internal = internal.map(|(prefix, limits)| ((*prefix).to_owned(), *limits));
        history.prefixes.extend(internal);
        history
    }
}

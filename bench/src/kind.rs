//! The servers that are compared, and their names.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// One of the compared servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Comet,
    /// The bench's own simplest server (`floor`).
    Floor,
    Nchan,
    Pushpin,
    /// A PHP script that sleeps and checks a file's modification time.
    Php,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Comet,
        Self::Floor,
        Self::Nchan,
        Self::Pushpin,
        Self::Php,
    ];

    /// The name on the command line and in the raw results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Comet => "comet",
            Self::Floor => "floor",
            Self::Nchan => "nchan",
            Self::Pushpin => "pushpin",
            Self::Php => "php",
        }
    }

    /// The name in the table and in the plots.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Comet => "Comet",
            Self::Floor => "bare loop",
            Self::Nchan => "nginx + nchan",
            Self::Pushpin => "Pushpin",
            Self::Php => "php-fpm, sleeping",
        }
    }

    /// True for the project's own servers. A lost message of another server is counted, and the run goes on.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Comet | Self::Floor)
    }

    /// Number of windows of 20 ms without work after which the server counts as idle.
    pub(crate) fn calm(self) -> usize {
        match self {
            // Pushpin's processes pass polls on in batches, and no process runs between two batches.
            Self::Pushpin => 20,
            _ => 2,
        }
    }

    /// CPU time in 20 ms that timers alone may use.
    pub(crate) fn timers(self) -> Duration {
        Duration::from_micros(match self {
            Self::Comet | Self::Floor | Self::Nchan => 200,
            // Several processes that monitor each other.
            Self::Pushpin => 1000,
            // Every PHP process wakes up by its own timer.
            Self::Php => 2000,
        })
    }
}

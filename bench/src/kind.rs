//! The servers that are compared, by name.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Comet,
    /// Our own, which does the least.
    Floor,
    Nchan,
    Pushpin,
    /// A script that sleeps and looks at a file's time.
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

    /// For the command line and the raw results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Comet => "comet",
            Self::Floor => "floor",
            Self::Nchan => "nchan",
            Self::Pushpin => "pushpin",
            Self::Php => "php",
        }
    }

    /// For the table and the plots.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Comet => "Comet",
            Self::Floor => "bare loop",
            Self::Nchan => "nginx + nchan",
            Self::Pushpin => "Pushpin",
            Self::Php => "php-fpm, sleeping",
        }
    }

    /// Others than ours may lose a message: it is counted, and the run goes on.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Comet | Self::Floor)
    }

    /// For how many times 20 ms nothing happens when it is at rest.
    pub(crate) fn calm(self) -> usize {
        match self {
            // Its processes hand polls on in batches, and nobody runs between these.
            Self::Pushpin => 20,
            _ => 2,
        }
    }

    /// CPU in 20 ms that is nothing but timers.
    pub(crate) fn timers(self) -> Duration {
        Duration::from_micros(match self {
            Self::Comet | Self::Floor | Self::Nchan => 200,
            // Several processes that look after each other.
            Self::Pushpin => 1000,
            // Every child wakes up by itself.
            Self::Php => 2000,
        })
    }
}

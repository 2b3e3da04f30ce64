//! The subjects that are measured: one file for each, and one table of all.

mod audience;
mod channels;
mod churn;
mod fanout;
mod idle;
mod latency;
mod log;
mod memory;
mod polls;
mod post;
mod publish;
mod quiet;
mod session;
mod several;
mod slow;
mod storm;
mod stream;
mod touch;

use anyhow::Result;

use crate::{bench::Bench, report::Report};

/// One subject of the measurements.
pub(crate) struct Subject {
    /// Name of the subject on the command line.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Bench, &mut Report) -> Result<()>,
}

/// All subjects, in the order in which they run.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject {
        name: "memory",
        about: "Memory of a parked poll, and its growth",
        run: memory::memory,
    },
    Subject {
        name: "fanout",
        about: "CPU of a delivery, and time to the last of many",
        run: fanout::fanout,
    },
    Subject {
        name: "audience",
        about: "The same by the size of the audience",
        run: audience::audience,
    },
    Subject {
        name: "touch",
        about: "From a touch to the client",
        run: touch::touch,
    },
    Subject {
        name: "post",
        about: "From a publish over HTTP to the client",
        run: post::post,
    },
    Subject {
        name: "publish",
        about: "Publishes a second over the Unix socket and over HTTP",
        run: publish::publish,
    },
    Subject {
        name: "log",
        about: "Messages a second that survive a crash, and reading them back",
        run: log::log,
    },
    Subject {
        name: "idle",
        about: "CPU while nothing happens",
        run: idle::idle,
    },
    Subject {
        name: "stream",
        about: "CPU of a delivery to streams, and their memory",
        run: stream::stream,
    },
    Subject {
        name: "several",
        about: "CPU of a delivery to subscribers of 100 channels, beside one",
        run: several::several,
    },
    Subject {
        name: "session",
        about: "Memory of an idle session, and CPU of a delivery to sessions of 100 channels",
        run: session::session,
    },
    Subject {
        name: "storm",
        about: "All clients connect and poll at once",
        run: storm::storm,
    },
    Subject {
        name: "slow",
        about: "Clients that never read, beside others",
        run: slow::slow,
    },
    Subject {
        name: "quiet",
        about: "A quiet channel beside a loud one",
        run: quiet::quiet,
    },
    Subject {
        name: "churn",
        about: "Clients that come and go as fast as they can",
        run: churn::churn,
    },
    Subject {
        name: "channels",
        about: "Memory of many channels, and when they have expired",
        run: channels::channels,
    },
];

//! The subjects that are measured: one file for each, and one table of all.

mod audience;
mod channels;
mod churn;
mod fanout;
mod idle;
mod latency;
mod log;
mod memory;
mod post;
mod publish;
mod quiet;
mod several;
mod slow;
mod storm;
mod stream;
mod touch;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    bench::Bench,
    kind::Kind,
    load::Load,
    message::{Faults, Series},
    publisher::Publisher,
    report::Report,
    server::Server,
};

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

/// Length of a published message in bytes, typical for an event.
const LENGTH: usize = 100;

/// Measures each server once in each round. The first server of a round may have an advantage, so the order rotates.
fn rounds(
    count: usize,
    servers: &[Server],
    mut measure: impl FnMut(&Server) -> Result<()>,
) -> Result<()> {
    for round in 0..count {
        for i in 0..servers.len() {
            measure(&servers[(round + i) % servers.len()])?;
        }
    }
    Ok(())
}

/// Parked polls on one channel, and the publisher of this channel.
struct Polls<'a> {
    server: &'a Server,
    publisher: Publisher,
    load: Load,
    channel: &'static str,
    series: Series,
}

impl<'a> Polls<'a> {
    /// Connects and parks the polls. When this returns, the server is idle.
    fn park(server: &'a Server, channel: &'static str, count: usize) -> Result<Self> {
        let mut polls = Self {
            server,
            publisher: server.publisher()?,
            load: Load::connect(server.kind, server.addr(), channel, count)?,
            channel,
            series: Series::new(channel),
        };
        polls.again()?;
        Ok(polls)
    }

    /// Parks the polls again. Returns the CPU time that the server has used until then.
    fn again(&mut self) -> Result<Duration> {
        self.load.poll()?;
        self.server.at_rest()
    }

    /// Sends one message to all polls and checks each delivery. Returns the time until the last poll had it.
    fn deliver(&mut self) -> Result<Duration> {
        let data = self.series.next(LENGTH);
        let start = Instant::now();
        self.publisher.send(self.channel, &data)?;
        let last = self.load.collect(&data)?;
        self.publisher.confirm()?;
        self.load.quiet()?;
        Ok(last - start)
    }

    fn faults(&self) -> Faults {
        self.load.faults()
    }

    /// Closes the connections. When this returns, the server is idle.
    fn leave(mut self) -> Result<()> {
        drop(self.load);
        // A PHP script does not notice that its client has left, and would keep its process. One last message ends the
        // script.
        if self.server.kind == Kind::Php {
            let data = self.series.next(LENGTH);
            self.publisher.publish(self.channel, &data)?;
            thread::sleep(Duration::from_secs(1));
        }
        self.server.at_rest()?;
        Ok(())
    }
}

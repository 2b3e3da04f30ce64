//! What is measured: one subject in each file, all in one table.

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
    /// As it is asked for.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Bench, &mut Report) -> Result<()>,
}

/// In the order in which they run.
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

/// The length of what is published: as much as an event has.
const LENGTH: usize = 100;

/// Has each server measured once in each round. Who is first may have an advantage: they take turns.
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

/// Parked polls on one channel, and who publishes to it.
struct Polls<'a> {
    server: &'a Server,
    publisher: Publisher,
    load: Load,
    channel: &'static str,
    series: Series,
}

impl<'a> Polls<'a> {
    /// Connects and parks; the server is at rest afterwards.
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

    /// Parks again. Returns the CPU that the server has used by then.
    fn again(&mut self) -> Result<Duration> {
        self.load.poll()?;
        self.server.at_rest()
    }

    /// One message to all, each delivery checked. Returns how long it took until the last had it.
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

    /// The clients go; the server is at rest afterwards.
    fn leave(mut self) -> Result<()> {
        drop(self.load);
        // A script does not see that its client has gone, and would hold its process: a last message ends it.
        if self.server.kind == Kind::Php {
            let data = self.series.next(LENGTH);
            self.publisher.publish(self.channel, &data)?;
            thread::sleep(Duration::from_secs(1));
        }
        self.server.at_rest()?;
        Ok(())
    }
}

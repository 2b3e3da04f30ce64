//! What several subjects share: the rounds, and parked polls that get messages.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    kind::Kind,
    load::Load,
    message::{Faults, Series},
    publisher::Publisher,
    server::Server,
};

/// Length of a published message in bytes, typical for an event.
pub(super) const LENGTH: usize = 100;

/// Measures each server once in each round. The first server of a round may have an advantage, so the order rotates.
pub(super) fn rounds(
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
pub(super) struct Polls<'a> {
    pub(super) server: &'a Server,
    pub(super) publisher: Publisher,
    pub(super) load: Load,
    pub(super) channel: &'static str,
    pub(super) series: Series,
}

impl<'a> Polls<'a> {
    /// Connects and parks the polls. When this returns, the server is idle.
    pub(super) fn park(server: &'a Server, channel: &'static str, count: usize) -> Result<Self> {
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
    pub(super) fn again(&mut self) -> Result<Duration> {
        self.load.poll()?;
        self.server.at_rest()
    }

    /// Sends one message to all polls and checks each delivery. Returns the time until the last poll had it.
    pub(super) fn deliver(&mut self) -> Result<Duration> {
        let data = self.series.next(LENGTH);
        let start = Instant::now();
        self.publisher.send(self.channel, &data)?;
        let last = self.load.collect(&data)?;
        self.publisher.confirm()?;
        self.load.quiet()?;
        Ok(last - start)
    }

    pub(super) fn faults(&self) -> Faults {
        self.load.faults()
    }

    /// Closes the connections. When this returns, the server is idle.
    pub(super) fn leave(mut self) -> Result<()> {
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

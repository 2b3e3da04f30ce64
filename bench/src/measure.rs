//! What is measured, and how.

mod fanout;
mod memory;
mod publish;
mod touch;

pub(crate) use fanout::fanout;
pub(crate) use memory::memory;
pub(crate) use publish::publish;
pub(crate) use touch::touch;

use anyhow::Result;
use serde::Serialize;

use crate::{
    load::Load,
    server::{Publisher, Server},
};

/// How much of each.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Scale {
    /// Parked polls in the memory test.
    pub(crate) connections: usize,
    /// Parked polls in the fan-out.
    pub(crate) fanout: usize,
    /// Rounds of what is measured in turns.
    pub(crate) rounds: usize,
    /// Rounds of fan-out and re-poll after which memory may not have grown.
    pub(crate) repolls: usize,
    /// Touches of each round.
    pub(crate) touches: usize,
    /// Publishes of each round: with a reply each, and pipelined.
    pub(crate) acked: usize,
    pub(crate) pipelined: usize,
}

impl Scale {
    pub(crate) fn new(quick: bool, connections: Option<usize>, rounds: Option<usize>) -> Self {
        let full = Self {
            connections: 15_000,
            fanout: 10_000,
            rounds: 7,
            repolls: 20,
            touches: 500,
            acked: 100_000,
            pipelined: 1_000_000,
        };
        let mut scale = match quick {
            false => full,
            true => Self {
                connections: 1500,
                fanout: 1000,
                rounds: 3,
                repolls: 5,
                touches: 100,
                acked: 10_000,
                pipelined: 100_000,
            },
        };
        if let Some(connections) = connections.map(|connections| connections.max(3)) {
            scale.connections = connections;
            scale.fanout = connections * 2 / 3;
        }
        scale.rounds = rounds.unwrap_or(scale.rounds).max(1);
        scale
    }
}

/// Parked polls on one channel, and who publishes to it.
struct Polls<'a> {
    server: &'a Server,
    publisher: Publisher,
    load: Load,
    channel: &'static str,
    published: usize,
}

impl<'a> Polls<'a> {
    /// Connects and parks; the server is at rest afterwards.
    fn park(server: &'a Server, channel: &'static str, count: usize) -> Result<Self> {
        let mut polls = Self {
            server,
            publisher: server.publisher()?,
            load: Load::connect(server.addr(), channel, count)?,
            channel,
            published: 0,
        };
        polls.again()?;
        Ok(polls)
    }

    /// Parks again.
    fn again(&mut self) -> Result<()> {
        self.load.poll()?;
        self.server.at_rest()?;
        Ok(())
    }

    /// One message to all, each delivery checked.
    fn deliver(&mut self) -> Result<()> {
        self.published += 1;
        // A hundred bytes, and different every time.
        let data = format!("{:.<100}", format!("{}:{}", self.channel, self.published));
        self.publisher.publish(self.channel, &data)?;
        self.load.collect(&data)?;
        self.load.quiet()
    }
}

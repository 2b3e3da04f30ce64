//! How much of each.

use serde::Serialize;

#[derive(Clone, Copy, Serialize)]
pub(crate) struct Scale {
    /// The largest audience.
    pub(crate) connections: usize,
    /// Rounds of what is measured in turns.
    pub(crate) rounds: usize,
    /// The same, of what takes long.
    pub(crate) dear_rounds: usize,
    /// Rounds of fan-out and re-poll after which memory may not have grown.
    pub(crate) repolls: usize,
    /// Touches or posts of each round, each of which is timed.
    pub(crate) touches: usize,
    /// Publishes of each round over the socket: with a reply each, and pipelined.
    pub(crate) acked: usize,
    pub(crate) pipelined: usize,
    /// Messages that a start reads back.
    pub(crate) replayed: usize,
    /// Publishes of each round over HTTP.
    pub(crate) posts: usize,
    /// Polls of the script that holds a process for each.
    pub(crate) php: usize,
    /// Seconds that nothing happens in.
    pub(crate) idle: f64,
    /// Messages of each round to streams, as fast as they are taken.
    pub(crate) messages: u32,
    /// Seconds of what comes at a steady rate.
    pub(crate) steady: f64,
    /// Channels with a message each.
    pub(crate) channels: usize,
}

impl Scale {
    pub(crate) fn new(quick: bool, connections: Option<usize>, rounds: Option<usize>) -> Self {
        let mut scale = match quick {
            false => Self {
                connections: 15_000,
                rounds: 7,
                dear_rounds: 5,
                repolls: 100,
                touches: 500,
                acked: 100_000,
                pipelined: 1_000_000,
                replayed: 1_000_000,
                posts: 100_000,
                php: 200,
                idle: 5.0,
                messages: 1000,
                steady: 5.0,
                channels: 100_000,
            },
            true => Self {
                connections: 1500,
                rounds: 3,
                dear_rounds: 2,
                repolls: 10,
                touches: 50,
                acked: 10_000,
                pipelined: 100_000,
                replayed: 50_000,
                posts: 10_000,
                php: 20,
                idle: 1.0,
                messages: 200,
                steady: 1.0,
                channels: 10_000,
            },
        };
        if let Some(connections) = connections {
            scale.connections = connections.max(15);
        }
        if let Some(rounds) = rounds.map(|rounds| rounds.max(1)) {
            (scale.rounds, scale.dear_rounds) = (rounds, rounds);
        }
        scale
    }

    /// Polls in a fan-out: 10,000.
    pub(crate) fn fanout(&self) -> usize {
        self.connections * 2 / 3
    }

    /// Audiences: 1,000, 5,000 and 15,000.
    pub(crate) fn audiences(&self) -> [usize; 3] {
        [
            self.connections / 15,
            self.connections / 3,
            self.connections,
        ]
    }

    /// Streams that get many messages: 1,000.
    pub(crate) fn streams(&self) -> usize {
        self.connections / 15
    }

    /// What Pushpin is asked for, which parks 500 polls a second: 1,000.
    pub(crate) fn pushpin(&self) -> usize {
        self.connections / 15
    }
}

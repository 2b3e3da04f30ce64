//! The numbers of connections, rounds and messages of a run.

use serde::Serialize;

#[derive(Clone, Copy, Serialize)]
pub(crate) struct Scale {
    /// Connections of the largest audience.
    pub(crate) connections: usize,
    /// Rounds of measurements in which the servers take turns.
    pub(crate) rounds: usize,
    /// Rounds of measurements that take long.
    pub(crate) dear_rounds: usize,
    /// Rounds of fan-out and re-poll after which memory must not have grown.
    pub(crate) repolls: usize,
    /// Touches or posts of each round. Each is timed.
    pub(crate) touches: usize,
    /// Publishes of each round over the socket: one by one with replies, and pipelined.
    pub(crate) acked: usize,
    pub(crate) pipelined: usize,
    /// Messages that the daemon reads back at start.
    pub(crate) replayed: usize,
    /// Publishes of each round over HTTP.
    pub(crate) posts: usize,
    /// Polls of the PHP script, which needs one process for each poll.
    pub(crate) php: usize,
    /// Length in seconds of the idle measurement.
    pub(crate) idle: f64,
    /// Messages of each round to streams at full speed.
    pub(crate) messages: u32,
    /// Length in seconds of a run at a steady rate.
    pub(crate) steady: f64,
    /// Channels with one message each.
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

    /// Sizes of audiences: 1,000, 5,000 and 15,000.
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

    /// Polls with Pushpin, which parks 500 polls a second: 1,000.
    pub(crate) fn pushpin(&self) -> usize {
        self.connections / 15
    }
}

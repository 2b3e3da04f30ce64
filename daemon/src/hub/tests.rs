//! What the hub promises, against simple models: `join` over every order of steps, `threads` with real ones, `gaps`
//! and `ids` over random histories and clocks, `limits` one by one, `cursors` over restarts and kinds of cursors, `audience` for the subscribers of one worker, `channel_sets` for subscribers that add and drop channels, `reader` for one reader, `storm`
//! for what is left of many channels, `keep` for what a restart finds, `forged` for who would like it to find something
//! else, `formats` for logs of earlier versions, `several` for messages of several channels, `facts` for the facts of one channel, `newest` for its newest messages, `removal` for removed messages and deleted channels, `lengths` for lengths of the history that are set while the daemon runs.

mod audience;
mod channel_sets;
mod cursors;
mod facts;
mod forged;
mod formats;
mod gaps;
mod ids;
mod join;
mod keep;
mod lengths;
mod limits;
mod newest;
mod reader;
mod removal;
mod several;
mod storm;
mod threads;

use std::{cell::Cell, sync::Arc};

use super::*;

/// When the tests' clock starts (µs since the epoch).
const START: u64 = 1_763_690_000_000_000;
const SECOND: u64 = 1_000_000;

// A hub that one test uses stays on that test's thread, so each test has a clock of its own.
thread_local!(static NOW: Cell<u64> = const { Cell::new(START) });

fn clock() -> u64 {
    NOW.get()
}

/// A hub whose clock is [`NOW`] and stands at [`START`].
fn hub(config: HistoryConfig, workers: usize) -> Arc<Hub> {
    NOW.set(START);
    Hub::with_clock(config, workers, clock)
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

fn message(channel: &ChannelName, data: &[u8]) -> NewMessage<'static> {
    message_to(channel.clone().into(), data)
}

fn message_to(channels: ChannelNames, data: &[u8]) -> NewMessage<'static> {
    NewMessage {
        channels,
        name: EventName::default(),
        data: data.into(),
        attributes: None,
        key: None,
    }
}

fn key_of(publisher: Publisher, key: &str) -> Option<PublisherKey<'_>> {
    Some(PublisherKey { publisher, key })
}

fn ids(backlog: &Backlog) -> Vec<u64> {
    backlog.messages.iter().map(|message| message.id).collect()
}

/// The number of subscribers of a channel, as the hub counts them.
fn subscribers(hub: &Hub, channel: &ChannelName) -> usize {
    hub.channel_facts(channel)
        .map_or(0, |facts| facts.subscribers)
}

/// Limits out of the way of what a test looks at.
fn roomy() -> Limits {
    Limits {
        messages: 1_000_000,
        bytes: 1 << 30,
        age: Duration::from_secs(1_000_000),
    }
}

/// All orders of the choices that a scenario makes, one run after the other.
#[derive(Default)]
struct Choices {
    /// What was chosen, and among how many.
    path: Vec<(usize, usize)>,
    depth: usize,
}

impl Choices {
    /// Calls `run` once for every sequence of choices that it can make; returns how many there are.
    fn explore(mut run: impl FnMut(&mut Self)) -> usize {
        let mut choices = Self::default();
        for runs in 1.. {
            choices.depth = 0;
            run(&mut choices);
            while choices
                .path
                .pop_if(|(taken, of)| *taken + 1 == *of)
                .is_some()
            {}
            match choices.path.last_mut() {
                Some((taken, _)) => *taken += 1,
                None => return runs,
            }
        }
        unreachable!("counted all of them")
    }

    /// One of `0..of`.
    fn pick(&mut self, of: usize) -> usize {
        if self.depth == self.path.len() {
            self.path.push((0, of));
        }
        let (taken, expected) = self.path[self.depth];
        assert_eq!(
            of, expected,
            "the scenario depends on nothing but its choices"
        );
        self.depth += 1;
        taken
    }
}

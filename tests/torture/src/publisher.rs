//! A publisher that sends one message after the other at a given rate and records each outcome.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    ledger::{Fate, Ledger},
    publish::{Outcome, Publish},
    random::Random,
    stage::Stage,
    stamp::Stamp,
};

/// A gate for publishers. While the gate is closed, a publisher sends nothing new, and the fate of its last message is
/// known.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
}

impl Gate {
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Relaxed);
    }
}

pub struct Publisher {
    pub number: u16,
    pub run: u64,
    pub channel: String,
    pub way: Box<dyn Publish>,
    pub ledger: Arc<Ledger>,
    pub stage: Arc<Stage>,
    pub gate: Arc<Gate>,
    /// True while the publisher waits at the closed gate.
    pub resting: Arc<AtomicBool>,
    pub random: Random,
    /// Average time between two messages.
    pub pace: Duration,
    /// Length of a message in bytes.
    pub size: usize,
}

/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(20);

impl Publisher {
    /// Publishes until the run ends.
    pub fn run(mut self) {
        while !self.stage.stopped() {
            let closed = self.gate.closed.load(Relaxed);
            self.resting.store(closed, Relaxed);
            if closed {
                self.stage.pause(PAUSE);
                continue;
            }
            self.next();
            let most = (self.pace.as_millis() as u64 * 2).max(1);
            let pause = self.random.millis(0, most);
            self.stage.pause(pause);
        }
    }

    /// Publishes the next message, and repeats it until its fate is known or is certain to stay unknown.
    fn next(&mut self) {
        let number = {
            let mut page = self.ledger.page(self.number);
            page.fates.push(Fate::Unknown);
            page.fates.len() as u32 - 1
        };
        let stamp = Stamp {
            run: self.run,
            publisher: self.number,
            number,
        };
        let (data, key) = (
            stamp.text(self.size),
            format!("{:x}-{}-{number}", self.run, self.number),
        );
        while !self.stage.stopped() {
            let fate = match self.way.publish(&self.channel, &data, &key) {
                Outcome::Taken(id) => Fate::Acknowledged(id),
                Outcome::Refused(why) => {
                    self.note(why);
                    Fate::Refused
                }
                Outcome::Unknown if !self.way.has_keys() => return,
                Outcome::Unknown | Outcome::Away => {
                    self.stage.pause(PAUSE);
                    continue;
                }
            };
            self.ledger.page(self.number).fates[number as usize] = fate;
            return;
        }
    }

    fn note(&self, why: String) {
        const MOST: usize = 3;
        let mut page = self.ledger.page(self.number);
        if page.refusals.len() < MOST {
            page.refusals.push(why);
        }
    }
}

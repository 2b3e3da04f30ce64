//! Records what the server answered to each published message.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a publisher knows about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The message is under way, or its fate is unknown because the connection ended or no answer arrived. It may be
    /// delivered.
    Unknown,
    /// The server accepted the message. Some servers return its id.
    Acknowledged(Option<u64>),
    /// The server refused the message.
    Refused,
}

/// What an acknowledgement promises to a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Each acknowledged message is delivered.
    Each,
    /// The last message is delivered. Earlier ones may be left out, and a message may be delivered again (files are
    /// signals).
    Last,
}

/// The messages of one publisher, by number.
#[derive(Debug)]
pub struct Page {
    pub name: String,
    pub channel: String,
    pub promise: Promise,
    pub fates: Vec<Fate>,
    /// Texts of the first few refusals.
    pub refusals: Vec<String>,
    /// Messages with lower numbers were judged already.
    pub judged: usize,
}

impl Page {
    /// Number of the last message that must be delivered.
    #[must_use]
    pub fn last_acknowledged(&self) -> Option<u32> {
        let acknowledged = |fate: &Fate| matches!(fate, Fate::Acknowledged(_));
        Some(self.fates.iter().rposition(acknowledged)? as u32)
    }
}

/// All publishers of a run.
#[derive(Debug, Default)]
pub struct Ledger(Vec<Mutex<Page>>);

impl Ledger {
    /// Adds a publisher and returns its number.
    pub fn open(&mut self, name: String, channel: &str, promise: Promise) -> u16 {
        self.0.push(Mutex::new(Page {
            name,
            channel: channel.into(),
            promise,
            fates: Vec::new(),
            refusals: Vec::new(),
            judged: 0,
        }));
        self.0.len() as u16 - 1
    }

    pub fn page(&self, publisher: u16) -> MutexGuard<'_, Page> {
        let page = &self.0[usize::from(publisher)];
        page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn publishers(&self) -> std::ops::Range<u16> {
        0..self.0.len() as u16
    }

    /// The publishers of these channels.
    #[must_use]
    pub fn on(&self, channels: &[String]) -> Vec<u16> {
        let on = |p: &u16| channels.contains(&self.page(*p).channel);
        self.publishers().filter(on).collect()
    }

    /// Returns the number of messages that publishers began to publish, and the number of acknowledged ones.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let (mut begun, mut acknowledged) = (0, 0);
        for publisher in self.publishers() {
            let page = self.page(publisher);
            begun += page.fates.len() as u64;
            let taken = |fate: &&Fate| matches!(fate, Fate::Acknowledged(_));
            acknowledged += page.fates.iter().filter(taken).count() as u64;
        }
        (begun, acknowledged)
    }
}

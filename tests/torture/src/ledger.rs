//! What publishers were told about each of their messages.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way, or nobody knows: the connection ended, or no answer came. It may be delivered.
    Unknown,
    /// The server took it; some servers say under which id.
    Acknowledged(Option<u64>),
    /// The server said that it did not take it.
    Refused,
}

/// What a publisher's acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Each message is delivered.
    Each,
    /// The last one is; those before it may be left out, and it may be told again (files are signals).
    Last,
}

/// One publisher's messages, by number.
#[derive(Debug)]
pub struct Page {
    pub name: String,
    pub channel: String,
    pub promise: Promise,
    pub fates: Vec<Fate>,
    /// Why the server did not take some; the first few.
    pub refusals: Vec<String>,
    /// Messages before this one were judged.
    pub judged: usize,
}

impl Page {
    /// The number of the last message that must be delivered.
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
    /// Adds a publisher; returns its number.
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

    /// Messages that publishers have begun to publish, and those that were acknowledged.
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

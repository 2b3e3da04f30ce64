//! What one subscriber was told, in that order.

use crate::{stamp::Stamp, subscribe::News};

/// One thing that it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Message {
        publisher: u16,
        number: u32,
        id: u64,
    },
    /// Messages may be missing here.
    Gap,
    Damaged(String),
}

#[derive(Debug, Clone)]
pub struct Transcript {
    pub name: String,
    pub channels: Vec<String>,
    /// A subscriber for a while: what came before its first message and after its last is none of its business.
    pub passing: bool,
    run: u64,
    pub entries: Vec<Entry>,
    /// The highest number of each publisher that came.
    last: Vec<Option<u32>>,
    /// What went wrong with its connections and was not their end.
    pub complaints: Vec<String>,
}

impl Transcript {
    #[must_use]
    pub fn new(run: u64, name: String, channels: Vec<String>, passing: bool) -> Self {
        Self {
            name,
            channels,
            passing,
            run,
            entries: Vec::new(),
            last: Vec::new(),
            complaints: Vec::new(),
        }
    }

    pub fn note(&mut self, news: News) {
        let entry = match news {
            News::Gap => Entry::Gap,
            News::Damaged(data) => Entry::Damaged(data),
            News::Message { stamp, .. } if stamp.run != self.run => {
                Entry::Damaged(format!("of another run: {stamp:?}"))
            }
            News::Message { id, stamp } => self.message(id.unwrap_or(0), stamp),
        };
        self.entries.push(entry);
    }

    fn message(&mut self, id: u64, stamp: Stamp) -> Entry {
        let Stamp {
            publisher, number, ..
        } = stamp;
        let slot = usize::from(publisher);
        if self.last.len() <= slot {
            self.last.resize(slot + 1, None);
        }
        self.last[slot] = self.last[slot].max(Some(number));
        Entry::Message {
            publisher,
            number,
            id,
        }
    }

    /// The highest number of this publisher that came.
    #[must_use]
    pub fn last(&self, publisher: u16) -> Option<u32> {
        self.last.get(usize::from(publisher)).copied().flatten()
    }

    /// Forgets what was judged, but what came last of each publisher.
    pub fn begin_again(&mut self) {
        let mut kept: Vec<Entry> = Vec::new();
        for (publisher, last) in self.last.iter().enumerate() {
            let of = |entry: &&Entry| {
                matches!(entry, Entry::Message { publisher: p, number, .. }
                    if usize::from(*p) == publisher && Some(*number) == *last)
            };
            kept.extend(self.entries.iter().find(of).cloned());
        }
        kept.sort_by_key(|entry| match entry {
            Entry::Message { id, .. } => *id,
            _ => 0,
        });
        self.entries = kept;
        self.complaints.clear();
    }
}

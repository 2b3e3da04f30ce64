//! What one subscriber received, in this order.

use crate::{stamp::Stamp, subscribe::News};

/// One received item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Message {
        publisher: u16,
        number: u32,
        id: u64,
    },
    /// Messages may be missing at this place.
    Gap,
    Damaged(String),
}

#[derive(Debug, Clone)]
pub struct Transcript {
    pub name: String,
    pub channels: Vec<String>,
    /// A short-lived subscriber. Messages before its first one and after its last one are not judged.
    pub passing: bool,
    run: u64,
    pub entries: Vec<Entry>,
    /// The highest received number of each publisher.
    last: Vec<Option<u32>>,
    /// Errors of its connections other than their end.
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

    /// The highest received number of this publisher.
    #[must_use]
    pub fn last(&self, publisher: u16) -> Option<u32> {
        self.last.get(usize::from(publisher)).copied().flatten()
    }

    /// Removes what was judged. The last number of each publisher is kept.
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

//! Compares the received messages with the acknowledged ones.
//!
//! From the first message of a publisher that a subscriber received, it must receive all later acknowledged messages of
//! its channels. A missing message counts as *told* if a gap was reported at its place: between the messages before and
//! after it. If ids are known, the place is among all messages of the channel, otherwise among the messages of the
//! publisher.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::AddAssign,
};

use serde::Serialize;

use crate::{
    ledger::{Fate, Ledger, Page, Promise},
    transcript::{Entry, Transcript},
};

/// Figures of one subscriber, or the sum over several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Acknowledged messages that had to arrive.
    pub due: u64,
    /// Of these, the messages that arrived.
    pub delivered: u64,
    /// Messages that did not arrive, without a reported gap.
    pub lost: u64,
    /// Messages that did not arrive, with a reported gap at their place.
    pub told: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// Messages that were changed, were of another channel or run, or had another id than the acknowledgement.
    pub damaged: u64,
    /// Messages that arrived although the publisher was told that they were refused.
    pub refused: u64,
    /// Messages without an acknowledgement that arrived. Whether other such messages should have arrived is unknown.
    pub unknown: u64,
    pub gaps: u64,
    /// Gaps at places where no acknowledged message is missing.
    pub false_gaps: u64,
    /// Messages of files that were delivered again.
    pub repeated: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.due += other.due;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.told += other.told;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.damaged += other.damaged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.gaps += other.gaps;
        self.false_gaps += other.false_gaps;
        self.repeated += other.repeated;
    }
}

impl Figures {
    /// Whether there was a fault that must never happen: silent loss, duplicates, wrong order or damage.
    #[must_use]
    pub fn faulty(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.damaged + self.refused > 0
    }
}

/// Figures, and descriptions of faults.
#[derive(Debug, Default)]
pub struct Judgement {
    pub figures: Figures,
    /// Descriptions of the first few faults of each kind.
    pub examples: Vec<String>,
}

/// Number of described faults of a subscriber.
const EXAMPLES: usize = 2;

/// Judges one subscriber.
#[must_use]
pub fn judge(ledger: &Ledger, transcript: &Transcript) -> Judgement {
    let mut judge = Judge {
        transcript,
        judgement: Judgement::default(),
        gaps: Vec::new(),
        covering: HashSet::new(),
        seen: BTreeMap::new(),
        ids: HashMap::new(),
    };
    judge.read(ledger);
    for publisher in ledger.on(&transcript.channels) {
        judge.look_for_missing(publisher, &ledger.page(publisher));
    }
    judge.judgement.figures.gaps = judge.gaps.len() as u64;
    judge.judgement.figures.false_gaps = (judge.gaps.len() - judge.covering.len()) as u64;
    judge.judgement
}

struct Judge<'a> {
    transcript: &'a Transcript,
    judgement: Judgement,
    /// Positions of reported gaps.
    gaps: Vec<usize>,
    /// Gaps at which a message is missing.
    covering: HashSet<usize>,
    /// For each publisher: the numbers that arrived, and the position of the first arrival.
    seen: BTreeMap<u16, BTreeMap<u32, usize>>,
    /// For each channel: the ids that arrived, in their order, and their positions.
    ids: HashMap<String, Vec<(u64, usize)>>,
}

impl Judge<'_> {
    /// Reads the transcript and counts duplicates, wrong order and damage.
    fn read(&mut self, ledger: &Ledger) {
        let mut highest_id = 0;
        for (at, entry) in self.transcript.entries.iter().enumerate() {
            match entry {
                Entry::Gap => self.gaps.push(at),
                Entry::Damaged(data) => {
                    self.judgement.figures.damaged += 1;
                    self.example(format!("damaged or foreign: {data:?}"));
                }
                Entry::Message {
                    publisher,
                    number,
                    id,
                } if ledger.publishers().contains(publisher) => {
                    let page = ledger.page(*publisher);
                    self.message(at, &page, *publisher, *number, *id, &mut highest_id);
                }
                Entry::Message { publisher, .. } => {
                    self.judgement.figures.damaged += 1;
                    self.example(format!("of no publisher: {publisher}"));
                }
            }
        }
        self.ids.values_mut().for_each(|ids| ids.sort_unstable());
    }

    fn message(
        &mut self,
        at: usize,
        page: &Page,
        publisher: u16,
        number: u32,
        id: u64,
        highest_id: &mut u64,
    ) {
        let figures = &mut self.judgement.figures;
        let seen = self.seen.entry(publisher).or_default();
        let last = seen.last_key_value().map(|(number, _)| *number);
        let who = || format!("{} {number} (id {id})", page.name);
        if seen.contains_key(&number) {
            if page.promise == Promise::Last && last == Some(number) {
                figures.repeated += 1;
                *highest_id = id.max(*highest_id);
                return;
            }
            figures.doubled += 1;
            return self.example(format!("doubled: {}", who()));
        }
        let disordered = last > Some(number) || (id > 0 && id <= *highest_id);
        seen.insert(number, at);
        if id > 0 {
            let ids = self.ids.entry(page.channel.clone()).or_default();
            ids.push((id, at));
        }
        if disordered {
            figures.reordered += 1;
            let text = format!("reordered: {} after {last:?}, id {highest_id}", who());
            self.example(text);
        }
        *highest_id = id.max(*highest_id);
        self.fate(page, number, id);
    }

    fn fate(&mut self, page: &Page, number: u32, id: u64) {
        let figures = &mut self.judgement.figures;
        match page.fates.get(number as usize) {
            Some(Fate::Acknowledged(Some(told))) if id > 0 && id != *told => {
                figures.damaged += 1;
                let name = &page.name;
                self.example(format!(
                    "{name} {number} came as {id}, acknowledged as {told}"
                ));
            }
            Some(Fate::Acknowledged(_)) => {}
            Some(Fate::Unknown) => figures.unknown += 1,
            Some(Fate::Refused) => {
                figures.refused += 1;
                let text = format!("came and had been refused: {} {number}", page.name);
                self.example(text);
            }
            None => {
                figures.damaged += 1;
                self.example(format!("never published: {} {number}", page.name));
            }
        }
    }

    fn look_for_missing(&mut self, publisher: u16, page: &Page) {
        let seen = self.seen.remove(&publisher).unwrap_or_default();
        let Some((&first, _)) = seen.first_key_value() else {
            return self.saw_nothing(page);
        };
        let end = match (self.transcript.passing, page.promise) {
            (true, _) => seen.last_key_value().map_or(first, |(last, _)| *last) + 1,
            (false, _) => page.fates.len() as u32,
        };
        let start = first.max(page.judged as u32);
        let last = page.last_acknowledged();
        for number in start..end {
            let Some(Fate::Acknowledged(id)) = page.fates.get(number as usize) else {
                continue;
            };
            if page.promise == Promise::Last && (Some(number) != last || self.transcript.passing) {
                continue;
            }
            self.judgement.figures.due += 1;
            if seen.contains_key(&number) {
                self.judgement.figures.delivered += 1;
            } else {
                self.missing(page, &seen, number, *id);
            }
        }
    }

    /// Judges a permanent subscriber that received nothing of a publisher. It should have received the publisher's
    /// first message.
    fn saw_nothing(&mut self, page: &Page) {
        if self.transcript.passing {
            return;
        }
        let figures = &mut self.judgement.figures;
        let due = page.fates.iter().skip(page.judged);
        let due = due.filter(|fate| matches!(fate, Fate::Acknowledged(_)));
        let due = match page.promise {
            Promise::Each => due.count() as u64,
            Promise::Last => due.count().min(1) as u64,
        };
        figures.due += due;
        if self.gaps.is_empty() {
            figures.lost += due;
        } else {
            figures.told += due;
        }
        if due > 0 {
            self.example(format!("nothing came of {}", page.name));
        }
    }

    fn missing(&mut self, page: &Page, seen: &BTreeMap<u32, usize>, number: u32, id: Option<u64>) {
        let (before, after) = match id {
            Some(id) if let Some(ids) = self.ids.get(&page.channel) => {
                let next = ids.partition_point(|(other, _)| *other < id);
                let before = next.checked_sub(1).map(|i| ids[i].1);
                (before, ids.get(next).map(|(_, at)| *at))
            }
            _ => {
                let before = seen.range(..number).next_back().map(|(_, at)| *at);
                (before, seen.range(number..).next().map(|(_, at)| *at))
            }
        };
        let after = after.unwrap_or(usize::MAX);
        let place = |at: &&usize| before.is_none_or(|before| **at > before) && **at < after;
        let gaps: Vec<usize> = self.gaps.iter().filter(place).copied().collect();
        if gaps.is_empty() {
            self.judgement.figures.lost += 1;
            self.example(format!("lost: {} {number} (id {id:?})", page.name));
        } else {
            self.judgement.figures.told += 1;
            self.covering.extend(gaps);
        }
    }

    fn example(&mut self, text: String) {
        if self.judgement.examples.len() < EXAMPLES {
            let name = &self.transcript.name;
            self.judgement.examples.push(format!("{name}: {text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u64 = 1000;

    /// A ledger of two publishers that take turns. Each has `count` acknowledged messages, with the ids 1000, 1001, ...
    fn ledger(count: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for publisher in 0..2 {
            ledger.open(format!("p{publisher}"), "news", Promise::Each);
            for number in 0..u64::from(count) {
                let id = ID + number * 2 + publisher;
                let fate = Fate::Acknowledged(Some(id));
                ledger.page(publisher as u16).fates.push(fate);
            }
        }
        ledger
    }

    /// A transcript with these ids, counted from 0. -1 is a gap. If `bare`, the messages have no ids.
    fn came(what: &[i64], bare: bool) -> Transcript {
        let mut transcript = Transcript::new(0, "s".into(), vec!["news".into()], false);
        let entry = |&n: &i64| match n {
            -1 => Entry::Gap,
            n => Entry::Message {
                publisher: (n % 2) as u16,
                number: (n / 2) as u32,
                id: if bare { 0 } else { ID + n as u64 },
            },
        };
        transcript.entries = what.iter().map(entry).collect();
        transcript
    }

    fn figures(what: &[i64]) -> Figures {
        judge(&ledger(4), &came(what, false)).figures
    }

    const CLEAN: Figures = Figures {
        due: 8,
        delivered: 8,
        lost: 0,
        told: 0,
        doubled: 0,
        reordered: 0,
        damaged: 0,
        refused: 0,
        unknown: 0,
        gaps: 0,
        false_gaps: 0,
        repeated: 0,
    };

    #[test]
    fn all_once_and_in_order_is_clean() {
        assert_eq!(figures(&[0, 1, 2, 3, 4, 5, 6, 7]), CLEAN);
        assert!(!CLEAN.faulty());
        let bare = came(&[0, 1, 2, 3, 4, 5, 6, 7], true);
        assert_eq!(judge(&ledger(4), &bare).figures, CLEAN);
    }

    #[test]
    fn what_is_missing_without_a_gap_is_lost() {
        for what in [&[0, 1, 2, 3, 5, 6, 7][..], &[0, 1, 2, 3, 4, 5, 6]] {
            let found = figures(what);
            assert_eq!((found.delivered, found.lost, found.told), (7, 1, 0));
            assert!(found.faulty());
        }
        assert_eq!(figures(&[]).lost, 8);
    }

    #[test]
    fn a_gap_covers_what_is_missing_at_its_place_alone() {
        let found = figures(&[0, 1, -1, 4, 5, 6, 7]);
        assert_eq!(
            (found.told, found.lost, found.gaps, found.false_gaps),
            (2, 0, 1, 0)
        );
        // 3 arrived after the gap, so 4 is missing at another place.
        let found = figures(&[0, 1, -1, 3, 5, 6, 7]);
        assert_eq!((found.told, found.lost), (1, 1));
        let found = figures(&[0, -1, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(
            (found.gaps, found.false_gaps, found.faulty()),
            (1, 1, false)
        );
        // Without ids only the publisher's own messages show the place. The other publisher's messages may be anywhere
        // between.
        let bare = judge(&ledger(4), &came(&[0, 1, -1, 3, 5, 6, 7], true)).figures;
        assert_eq!((bare.told, bare.lost), (2, 0));
    }

    #[test]
    fn doubles_and_disorder_are_told_apart() {
        let found = figures(&[0, 1, 2, 1, 3, 4, 5, 6, 7]);
        assert_eq!((found.doubled, found.reordered, found.delivered), (1, 0, 8));
        let found = figures(&[0, 1, 2, 3, 5, 4, 6, 7]);
        assert_eq!((found.doubled, found.reordered, found.lost), (0, 1, 0));
        let bare = judge(&ledger(4), &came(&[0, 1, 4, 2, 3, 5, 6, 7], true)).figures;
        assert_eq!(bare.reordered, 1);
    }

    #[test]
    fn what_nobody_knows_is_neither_lost_nor_wrong() {
        let ledger = ledger(4);
        ledger.page(0).fates[1] = Fate::Unknown;
        ledger.page(0).fates[2] = Fate::Unknown;
        let found = judge(&ledger, &came(&[0, 1, 2, 3, 5, 6, 7], false)).figures;
        assert_eq!((found.due, found.lost, found.unknown), (6, 0, 1));
        ledger.page(0).fates[1] = Fate::Refused;
        let found = judge(&ledger, &came(&[0, 1, 2, 3, 5, 6, 7], false)).figures;
        assert_eq!(found.refused, 1);
    }

    #[test]
    fn who_passes_owes_what_lies_between_its_first_and_its_last() {
        let mut passing = came(&[2, 3, 4, 5], false);
        passing.passing = true;
        let found = judge(&ledger(4), &passing).figures;
        assert_eq!((found.due, found.lost), (4, 0));
        passing.entries.remove(2);
        passing.entries.push(Entry::Message {
            publisher: 0,
            number: 3,
            id: ID + 6,
        });
        assert_eq!(judge(&ledger(4), &passing).figures.lost, 1);
    }

    #[test]
    fn a_message_under_another_id_is_damaged() {
        let mut changed = came(&[0, 1, 2, 3, 4, 5, 6, 7], false);
        changed.entries[7] = Entry::Message {
            publisher: 1,
            number: 3,
            id: ID + 100,
        };
        assert_eq!(judge(&ledger(4), &changed).figures.damaged, 1);
    }

    #[test]
    fn of_a_signal_the_last_is_due_and_may_come_again() {
        let mut ledger = Ledger::default();
        ledger.open("files".into(), "news", Promise::Last);
        ledger.page(0).fates = vec![Fate::Acknowledged(None); 4];
        let found = judge(&ledger, &came(&[0, 4, 6, 6], false)).figures;
        assert_eq!(
            (found.due, found.lost, found.repeated, found.doubled),
            (1, 0, 1, 0)
        );
        assert_eq!(judge(&ledger, &came(&[0, 4], false)).figures.lost, 1);
        assert!(judge(&ledger, &came(&[0, 6, 4], false)).figures.faulty());
    }
}

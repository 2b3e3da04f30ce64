//! Names whose events are not a publish yet: some wait for further events, some until a writer closes the file.

use std::collections::{BTreeSet, HashMap};

use comet_proto::ChannelName;
use tokio::time::Instant;

use super::events::Events;

/// The most pending names. Beyond that no name waits.
const MOST: usize = 65_536;

#[derive(Debug, Clone, Copy)]
pub(super) struct PendingFile {
    pub(super) events: Events,
    /// The time of the first event.
    pub(super) since: Instant,
    /// The latest time to decide. `None`: wait for another event.
    pub(super) until: Option<Instant>,
    /// The time since which a writer has kept the file from being read.
    pub(super) busy_since: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Pending {
    entries: HashMap<ChannelName, PendingFile>,
    deadlines: BTreeSet<(Instant, ChannelName)>,
}

impl Pending {
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MOST
    }

    pub(super) fn put(&mut self, name: ChannelName, entry: PendingFile) {
        self.take(&name);
        if let Some(until) = entry.until {
            self.deadlines.insert((until, name.clone()));
        } else if self.is_full() {
            return;
        }
        self.entries.insert(name, entry);
    }

    pub(super) fn take(&mut self, name: &ChannelName) -> Option<PendingFile> {
        let (name, entry) = self.entries.remove_entry(name)?;
        if let Some(until) = entry.until {
            self.deadlines.remove(&(until, name));
        }
        Some(entry)
    }

    /// The time at which the first name is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// The names that are due, the longest overdue first.
    pub(super) fn due(&self, now: Instant) -> Vec<ChannelName> {
        let due = self.deadlines.iter().take_while(|(until, _)| *until <= now);
        due.map(|(_, name)| name.clone()).collect()
    }

    /// Whether a name waits whose events came before that time.
    pub(super) fn waits_since(&self, then: Instant) -> bool {
        let mut waiting = self
            .deadlines
            .iter()
            .filter_map(|(_, name)| self.entries.get(name));
        waiting.any(|entry| entry.since <= then)
    }

    /// The files that writers have open.
    pub(super) fn being_written(&self) -> impl Iterator<Item = &ChannelName> {
        let open = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_being_written());
        open.map(|(name, _)| name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ChannelName> {
        self.entries.keys()
    }
}

impl PendingFile {
    fn is_being_written(&self) -> bool {
        self.events.open == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    fn entry(since: Instant, until: Option<Instant>) -> PendingFile {
        PendingFile {
            events: Events::default(),
            since,
            until,
            busy_since: None,
        }
    }

    #[test]
    fn gives_what_is_due_in_the_order_of_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pending = Pending::default();
        pending.put(name("late"), entry(at(0), Some(at(3))));
        pending.put(name("early"), entry(at(0), Some(at(1))));
        pending.put(name("never"), entry(at(0), None));
        pending.put(name("late"), entry(at(0), Some(at(2))));

        assert_eq!((pending.next(), pending.due(at(0))), (Some(at(1)), vec![]));
        assert_eq!(pending.due(at(1)), [name("early")]);
        let due = pending.due(at(2));
        assert_eq!(due, [name("early"), name("late")]);
        for name in due {
            pending.take(&name).unwrap();
        }
        assert_eq!(pending.next(), None);
        assert!(pending.take(&name("never")).is_some());
    }

    #[test]
    fn knows_whether_something_waits_from_before() {
        let start = Instant::now();
        let later = start + Duration::from_millis(1);
        let mut pending = Pending::default();
        pending.put(name("open"), entry(start, None));
        assert!(
            !pending.waits_since(start),
            "an open file may stay open for days"
        );
        pending.put(name("a"), entry(later, Some(later)));
        assert!(!pending.waits_since(start));
        assert!(pending.waits_since(later));
    }

    #[test]
    fn is_bounded() {
        let now = Instant::now();
        let mut pending = Pending::default();
        for n in 0..MOST + 10 {
            pending.put(name(&n.to_string()), entry(now, None));
        }
        assert!(pending.is_full());
        assert_eq!(pending.names().count(), MOST);
    }
}

//! Which ids have clients on the WAIT line, for the commands ONLINE and WATCH.
//!
//! No timer belongs to this list: each call first handles the ids whose grace time is over.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use comet_proto::ChannelName;

use super::decimal::Decimal;

/// The most ids in the list. Further ids are not listed, so that clients who invent ids cannot fill the memory.
const MAX_IDS: usize = 100_000;

/// The most events that are kept.
const MAX_EVENTS: usize = 3000;

/// The number of the first event, as in the original server.
const FIRST_EVENT: u64 = 10;

/// The ids that a command asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prefixes<'a> {
    All,
    /// Ids that begin with one of these texts.
    Of(Vec<&'a str>),
}

/// The clients of the WAIT line by id, and what has happened to the ids.
pub(crate) struct Online {
    state: Mutex<OnlineIds>,
    /// An id stays online for this time after its last client has left.
    grace: Duration,
}

struct OnlineIds {
    by_id: BTreeMap<ChannelName, OnlineId>,
    /// When to look whether an id is offline. Each id is in it once at most.
    checks: BinaryHeap<Reverse<(Instant, ChannelName)>>,
    /// Oldest first.
    events: VecDeque<Event>,
    /// The number of the next event.
    next: u64,
}

struct OnlineId {
    connections: usize,
    /// When the id becomes offline, if no client comes back.
    ends: Instant,
    /// Whether the id is in [`OnlineIds::checks`].
    is_checked: bool,
}

struct Event {
    number: u64,
    is_online: bool,
    id: ChannelName,
}

impl Online {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            state: Mutex::new(OnlineIds {
                by_id: BTreeMap::new(),
                checks: BinaryHeap::new(),
                events: VecDeque::new(),
                next: FIRST_EVENT,
            }),
            grace,
        }
    }

    /// The list at this moment.
    fn at(&self, now: Instant) -> MutexGuard<'_, OnlineIds> {
        let mut state = self.state.lock().expect("no code panics with this lock");
        state.remove_offline(now);
        state
    }

    /// A client listens to these ids from now on.
    pub(crate) fn enter(&self, ids: &[ChannelName], now: Instant) {
        let mut state = self.at(now);
        for id in ids {
            if let Some(known) = state.by_id.get_mut(id) {
                known.connections += 1;
            } else if state.by_id.len() < MAX_IDS {
                let entered = OnlineId {
                    connections: 1,
                    ends: now,
                    is_checked: false,
                };
                state.by_id.insert(id.clone(), entered);
                state.add_event(true, id.clone());
            }
        }
    }

    /// A client that has entered does not listen any more.
    pub(crate) fn leave(&self, ids: &[ChannelName], now: Instant) {
        let mut state = self.at(now);
        let OnlineIds { by_id, checks, .. } = &mut *state;
        for id in ids {
            let Some(known) = by_id.get_mut(id) else {
                continue; // there was no room in the list
            };
            known.connections = known.connections.saturating_sub(1);
            if known.connections == 0 {
                known.ends = now + self.grace;
                if !known.is_checked {
                    known.is_checked = true;
                    checks.push(Reverse((known.ends, id.clone())));
                }
            }
        }
    }

    /// The lines of the command ONLINE: each id with its number of connections.
    pub(crate) fn list(&self, prefixes: &Prefixes<'_>, now: Instant) -> String {
        let state = self.at(now);
        let ids = state.by_id.iter().filter(|(id, _)| prefixes.has(id));
        ids.map(|(id, known)| format!("{id} {}\n", known.connections))
            .collect()
    }

    /// The lines of the command WATCH: of each id the last event after this number, oldest first. If the cursor is no number
    /// or 0: the number of the next event.
    pub(crate) fn events(&self, cursor: &str, prefixes: &Prefixes<'_>, now: Instant) -> String {
        let state = self.at(now);
        let start = Decimal::Micros(0);
        let Some(after) = Decimal::parse(cursor).filter(|after| *after > start) else {
            return format!("FAKE {}:FAKE\n", state.next);
        };
        // A larger number comes from an earlier run of the daemon, and all events of this run are later.
        let is_known = after <= Decimal::of_whole(state.next);
        let after = if is_known { after } else { start };
        let mut seen = HashSet::new();
        let newest_first = state.events.iter().rev();
        let events = newest_first
            .take_while(|event| Decimal::of_whole(event.number) > after)
            .filter(|event| prefixes.has(&event.id) && seen.insert(&event.id));
        let mut lines: Vec<String> = events.map(Event::line).collect();
        lines.reverse();
        lines.concat()
    }

    /// The number of ids, of connections of all ids, and of events.
    pub(crate) fn sizes(&self, now: Instant) -> (usize, usize, usize) {
        let state = self.at(now);
        let connections = state.by_id.values().map(|known| known.connections).sum();
        (state.by_id.len(), connections, state.events.len())
    }
}

impl OnlineIds {
    fn add_event(&mut self, is_online: bool, id: ChannelName) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            number: self.next,
            is_online,
            id,
        });
        self.next += 1;
    }

    /// Removes the ids that are offline by now.
    fn remove_offline(&mut self, now: Instant) {
        while let Some(Reverse((due, _))) = self.checks.peek()
            && *due <= now
        {
            let Some(Reverse((_, id))) = self.checks.pop() else {
                return;
            };
            let Some(known) = self.by_id.get_mut(&id) else {
                continue;
            };
            known.is_checked = false;
            if known.connections > 0 {
                continue;
            }
            if known.ends > now {
                known.is_checked = true;
                self.checks.push(Reverse((known.ends, id)));
                continue;
            }
            self.by_id.remove(&id);
            self.add_event(false, id);
        }
    }
}

impl Event {
    fn line(&self) -> String {
        let kind = match self.is_online {
            true => "online",
            false => "offline",
        };
        format!("{kind} {}:{}\n", self.number, self.id)
    }
}

impl Prefixes<'_> {
    fn has(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(prefixes) => prefixes.iter().any(|prefix| id.starts_with(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn ids(names: &[&str]) -> Vec<ChannelName> {
        let parse = |name: &&str| ChannelName::parse(name).unwrap();
        names.iter().map(parse).collect()
    }

    #[test]
    fn an_id_stays_online_for_the_grace_time_after_its_last_client() {
        let (online, start) = (Online::new(GRACE), Instant::now());
        let list = |second| online.list(&Prefixes::All, start + Duration::from_secs(second));
        online.enter(&ids(&["a", "b"]), start);
        online.enter(&ids(&["b"]), start);
        assert_eq!(list(0), "a 1\nb 2\n");
        online.leave(&ids(&["a", "b"]), start + Duration::from_secs(10));
        assert_eq!(list(39), "a 0\nb 1\n");
        assert_eq!(list(40), "b 1\n");
    }

    #[test]
    fn a_client_that_comes_back_in_time_is_no_event() {
        let (online, start) = (Online::new(GRACE), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let events = |second| online.events("1", &Prefixes::All, at(second));
        for second in 0..100 {
            online.enter(&ids(&["a"]), at(2 * second));
            online.leave(&ids(&["a"]), at(2 * second + 1));
        }
        assert_eq!(events(228), "online 10:a\n");
        assert!(online.state.lock().unwrap().checks.len() <= 1);
        assert_eq!(events(229), "offline 11:a\n");
        online.enter(&ids(&["a"]), at(300));
        assert_eq!(events(300), "online 12:a\n");
    }

    #[test]
    fn watch_gives_the_last_event_of_each_id_after_the_cursor() {
        let (online, now) = (Online::new(Duration::ZERO), Instant::now());
        let events = |cursor, prefixes: &Prefixes<'_>| online.events(cursor, prefixes, now);
        assert_eq!(events("", &Prefixes::All), "FAKE 10:FAKE\n");
        for name in ["a_1", "a_2", "b_1"] {
            online.enter(&ids(&[name]), now);
        }
        online.leave(&ids(&["a_1"]), now);
        assert_eq!(
            events("1", &Prefixes::All),
            "online 11:a_2\nonline 12:b_1\noffline 13:a_1\n"
        );
        assert_eq!(
            events("11.5", &Prefixes::All),
            "online 12:b_1\noffline 13:a_1\n"
        );
        assert_eq!(
            events("1", &Prefixes::Of(vec!["b_", "c"])),
            "online 12:b_1\n"
        );
        assert_eq!(events("13", &Prefixes::All), "");
        assert_eq!(events("14", &Prefixes::All), "");
        assert_eq!(
            events("15", &Prefixes::All),
            events("1", &Prefixes::All),
            "an earlier run"
        );
        assert_eq!(events("1", &Prefixes::Of(vec![])), "");
        for none in ["0", "0.0", "x", "-1"] {
            assert_eq!(events(none, &Prefixes::All), "FAKE 14:FAKE\n", "{none}");
        }
    }

    #[test]
    fn the_lists_have_bounds() {
        let (online, now) = (Online::new(GRACE), Instant::now());
        let names: Vec<String> = (0..MAX_IDS + 5).map(|n| format!("id{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        online.enter(&ids(&names), now);
        assert_eq!(online.sizes(now), (MAX_IDS, MAX_IDS, MAX_EVENTS));
        online.leave(&ids(&names), now);
        assert_eq!(online.sizes(now), (MAX_IDS, 0, MAX_EVENTS));
        assert_eq!(online.sizes(now + GRACE), (0, 0, MAX_EVENTS));
    }
}

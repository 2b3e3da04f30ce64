//! Idempotency keys: each key is remembered for ten minutes, with the id of the message that was published with it.
//!
//! A key belongs to its publisher. Otherwise one publisher could use the key of another publisher first, and the message of
//! the other publisher would count as a repetition. When there are too many keys, the publisher with the most keys loses its
//! oldest key. The first 256 publishers are counted separately. All further publishers are counted together.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use comet_proto::ChannelName;

use super::micros;

/// How long a key is remembered.
const WINDOW: Duration = Duration::from_secs(600);

/// Maximum number of remembered keys of all publishers together.
const MAX_KEYS: usize = 65_536;

/// Maximum length in bytes of the publisher's text before a key.
const PREFIX: usize = 22;

/// The number of publishers whose keys are counted separately. The keys of further publishers are counted together.
const MAX_SHARES: usize = 256;

/// The owner of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Publisher {
    /// A key from a log of an earlier version, which did not store the publisher.
    Unknown,
    /// A user of the machine: over the socket, or as the owner of a file in the spool.
    User(u32),
    /// A publisher over HTTP. The number stands for the subject of its token, and is 0 without a token.
    Http(u64),
    /// The watched directory.
    Files,
}

/// A key and its publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherKey<'a> {
    pub publisher: Publisher,
    pub key: &'a str,
}

impl<'a> PublisherKey<'a> {
    /// Appends the key in the form of the log: the publisher, a NUL, and the key; for an unknown publisher only the key.
    fn write(&self, out: &mut String) {
        let publisher = match self.publisher {
            Publisher::Unknown => Ok(()),
            Publisher::User(uid) => write!(out, "u{uid}\0"),
            Publisher::Http(subject) => write!(out, "h{subject}\0"),
            Publisher::Files => out.write_str("f\0"),
        };
        publisher.expect("writing to a String cannot fail");
        out.push_str(self.key);
    }

    /// The key in the form of the log.
    pub(super) fn text(&self) -> Box<str> {
        let mut text = String::with_capacity(PREFIX + self.key.len());
        self.write(&mut text);
        text.into()
    }

    /// Parses the form of the log.
    pub(super) fn parse(text: &'a str) -> Self {
        let parsed = text.split_once('\0').and_then(|(publisher, key)| {
            let publisher = match publisher.split_at_checked(1)? {
                ("u", uid) => Publisher::User(uid.parse().ok()?),
                ("h", subject) => Publisher::Http(subject.parse().ok()?),
                ("f", "") => Publisher::Files,
                _ => return None,
            };
            Some(Self { publisher, key })
        });
        parsed.unwrap_or(Self {
            publisher: Publisher::Unknown,
            key: text,
        })
    }
}

/// The keys that are counted together: those of one publisher, or (`None`) those of all publishers without a share.
type KeyShare = Option<Publisher>;

/// The position of a key in the order of [`Keys::after`].
pub(super) type KeyPosition = (KeyShare, u64);

#[derive(Default)]
pub(super) struct Keys {
    /// Ids by the channel's name, a NUL (which no name contains), and the key in the form of the log.
    ids: HashMap<Arc<str>, u64>,
    /// The keys with their ids by publisher, oldest first.
    shares: BTreeMap<KeyShare, VecDeque<(u64, Arc<str>)>>,
    len: usize,
    /// A buffer for the joined text, so that a lookup allocates nothing.
    joined: String,
}

impl Keys {
    pub(super) fn get(&mut self, channel: &ChannelName, key: &PublisherKey<'_>) -> Option<u64> {
        let id = self.ids.get(join(channel, key, &mut self.joined)).copied();
        // The message may have been published by an earlier version, which did not store the publisher.
        if id.is_none() && self.shares.contains_key(&Some(Publisher::Unknown)) {
            let unknown = PublisherKey {
                publisher: Publisher::Unknown,
                key: key.key,
            };
            return self
                .ids
                .get(join(channel, &unknown, &mut self.joined))
                .copied();
        }
        id
    }

    pub(super) fn insert(&mut self, channel: &ChannelName, key: &PublisherKey<'_>, id: u64) {
        let joined: Arc<str> = join(channel, key, &mut self.joined).into();
        self.ids.insert(joined.clone(), id);
        let own = Some(key.publisher);
        let has_own = self.shares.contains_key(&own) || self.shares.len() < MAX_SHARES;
        let share = self.shares.entry(own.filter(|_| has_own)).or_default();
        // A log may contain the keys in another order than the order of their age.
        let newer = share.iter().rev().take_while(|(known, _)| *known > id);
        let place = share.len() - newer.count();
        share.insert(place, (id, joined));
        self.len += 1;
        if self.len > MAX_KEYS {
            self.drop_one();
        }
    }

    /// Forgets at most `at_most` keys that are older than the window, by their ids, which are times. Returns true if there
    /// may be more.
    pub(super) fn expire(&mut self, now: u64, at_most: usize) -> bool {
        let old = now.saturating_sub(micros(WINDOW));
        let is_old =
            |keys: &VecDeque<(u64, Arc<str>)>| keys.front().is_some_and(|(id, _)| *id <= old);
        for _ in 0..at_most {
            let mut shares = self.shares.iter();
            let Some((&share, _)) = shares.find(|(_, keys)| is_old(keys)) else {
                return false;
            };
            self.drop_oldest(share);
        }
        true
    }

    /// The next keys with their channels and positions, ordered by publisher and then by age, oldest first. A message of several
    /// channels has several keys with the same position. They are always returned together, so there can be some more keys than
    /// `at_most`.
    pub(super) fn after(
        &self,
        place: Option<KeyPosition>,
        at_most: usize,
    ) -> Vec<(Arc<str>, KeyPosition)> {
        let (from, seen) = place.unwrap_or((None, 0));
        let shares = self.shares.range(from..);
        let keys = shares.flat_map(|(share, keys)| {
            let seen = if *share == from { seen } else { 0 };
            let first = keys.partition_point(|(id, _)| *id <= seen);
            let place = |(id, key): &(u64, Arc<str>)| (key.clone(), (*share, *id));
            keys.range(first..).map(place)
        });
        let mut next: Vec<(Arc<str>, KeyPosition)> = Vec::new();
        for (key, place) in keys {
            if next.len() >= at_most && next.last().is_some_and(|(_, last)| *last != place) {
                break;
            }
            next.push((key, place));
        }
        next
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        let shares = self.shares.values().map(VecDeque::capacity);
        self.ids.capacity() + shares.sum::<usize>()
    }

    pub(super) fn shrink(&mut self) {
        self.ids.shrink_to_fit();
        self.shares.values_mut().for_each(VecDeque::shrink_to_fit);
    }

    /// Forgets the oldest key of the publisher with the most keys. There are few shares, so a search is fast.
    fn drop_one(&mut self) {
        let most = self.shares.iter().max_by_key(|(_, keys)| keys.len());
        if let Some((&share, _)) = most {
            self.drop_oldest(share);
        }
    }

    fn drop_oldest(&mut self, share: KeyShare) {
        let Some(keys) = self.shares.get_mut(&share) else {
            return;
        };
        if let Some((id, key)) = keys.pop_front() {
            self.len -= 1;
            if self.ids.get(&key) == Some(&id) {
                self.ids.remove(&key); // an entry with another id stays: the key was used again later
            }
        }
        if keys.is_empty() {
            self.shares.remove(&share);
        }
    }
}

/// Splits a text of [`Keys::after`] into the channel and the key in the form of the log.
pub(super) fn split(joined: &str) -> Option<(ChannelName, &str)> {
    let (channel, key) = joined.split_once('\0')?;
    Some((ChannelName::from_log(channel).ok()?, key))
}

fn join<'a>(channel: &ChannelName, key: &PublisherKey<'_>, joined: &'a mut String) -> &'a str {
    joined.clear();
    joined.push_str(channel);
    joined.push('\0');
    key.write(joined);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ChannelName {
        ChannelName::parse("a").unwrap()
    }

    fn of(publisher: Publisher, key: &str) -> PublisherKey<'_> {
        PublisherKey { publisher, key }
    }

    #[test]
    fn keys_are_returned_in_the_order_of_their_ids() {
        let mut keys = Keys::default();
        for id in [5, 9, 3, 7] {
            for uid in [2, 1] {
                let key = format!("k{id}");
                keys.insert(&name(), &of(Publisher::User(uid), &key), id);
            }
        }
        let (mut all, mut place) = (Vec::new(), None);
        loop {
            let next = keys.after(place, 3);
            let Some((_, last)) = next.last() else { break };
            place = Some(*last);
            all.extend(next.iter().map(|(_, (share, id))| (share.unwrap(), *id)));
        }
        let of_user = |uid| [3, 5, 7, 9].map(|id| (Publisher::User(uid), id));
        assert_eq!(all, [of_user(1), of_user(2)].concat());
    }

    #[test]
    fn keys_of_one_message_are_returned_together() {
        let mut keys = Keys::default();
        for (id, names) in [(1, &["a"][..]), (2, &["a", "b", "c"]), (3, &["b"])] {
            for name in names {
                let (name, key) = (ChannelName::parse(name).unwrap(), format!("k{id}"));
                keys.insert(&name, &of(Publisher::Files, &key), id);
            }
        }
        let (mut counts, mut place) = (Vec::new(), None);
        loop {
            let next = keys.after(place, 2);
            let Some((_, last)) = next.last() else { break };
            place = Some(*last);
            counts.push(next.len());
        }
        assert_eq!(counts, [4, 1]);
    }

    #[test]
    fn a_key_that_was_used_again_is_forgotten_with_its_last_use() {
        let mut keys = Keys::default();
        let (first, last) = (1, 1 + micros(WINDOW));
        let k = of(Publisher::Files, "k");
        keys.insert(&name(), &k, first);
        keys.insert(&name(), &k, last);
        assert!(!keys.expire(last, 10));
        assert_eq!((keys.get(&name(), &k), keys.len()), (Some(last), 1));
        assert!(!keys.expire(last + micros(WINDOW), 10));
        assert_eq!((keys.get(&name(), &k), keys.len()), (None, 0));
    }

    #[test]
    fn many_keys_of_one_publisher_remove_no_key_of_another() {
        let mut keys = Keys::default();
        let [a, b] = [1, 2].map(Publisher::User);
        keys.insert(&name(), &of(b, "first"), 1);
        for id in 2..200_000 {
            keys.insert(&name(), &of(a, &id.to_string()), id);
        }
        assert_eq!(keys.len(), MAX_KEYS);
        assert_eq!(keys.get(&name(), &of(b, "first")), Some(1));
        assert_eq!(keys.get(&name(), &of(a, "199999")), Some(199_999));
        assert_eq!(keys.get(&name(), &of(a, "2")), None);
    }

    #[test]
    fn the_memory_for_many_publishers_is_bounded() {
        let mut keys = Keys::default();
        for id in 1..2000 {
            let publisher = Publisher::Http(id % 1000);
            keys.insert(&name(), &of(publisher, &id.to_string()), id);
        }
        assert_eq!((keys.len(), keys.shares.len()), (1999, MAX_SHARES + 1));
        assert_eq!(
            keys.get(&name(), &of(Publisher::Http(999), "999")),
            Some(999)
        );
        assert!(!keys.expire(3000 + micros(WINDOW), 10_000));
        assert_eq!((keys.len(), keys.ids.len(), keys.shares.len()), (0, 0, 0));
    }

    #[test]
    fn the_same_key_of_different_publishers_is_not_a_repetition() {
        let all = [
            of(Publisher::Unknown, "k"),
            of(Publisher::User(0), "k"),
            of(Publisher::User(1000), "k"),
            of(Publisher::User(u32::MAX), "u1\0k"),
            of(Publisher::Http(0), "k"),
            of(Publisher::Http(u64::MAX), "k\0"),
            of(Publisher::Files, "f\0k"),
        ];
        let texts: Vec<Box<str>> = all.iter().map(PublisherKey::text).collect();
        for (key, text) in all.iter().zip(&texts) {
            assert_eq!(PublisherKey::parse(text), *key);
        }
        // A key from an earlier version keeps its form.
        for old in ["k", "x1\0k", "u\0k", "u-1\0k", "", "\0", "é\0k"] {
            assert_eq!(PublisherKey::parse(old), of(Publisher::Unknown, old));
        }
    }

    #[test]
    fn a_key_from_an_earlier_version_matches_every_publisher() {
        let mut keys = Keys::default();
        keys.insert(&name(), &of(Publisher::Unknown, "k"), 7);
        assert_eq!(keys.get(&name(), &of(Publisher::User(1), "k")), Some(7));
        keys.insert(&name(), &of(Publisher::User(1), "k"), 9);
        assert_eq!(keys.get(&name(), &of(Publisher::User(1), "k")), Some(9));
        assert_eq!(keys.get(&name(), &of(Publisher::User(2), "l")), None);
    }
}

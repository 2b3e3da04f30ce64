//! A map of bounded size that roughly forgets the least recently used entries. It has two halves, and drops the older one
//! when the younger one is full.

use std::collections::HashMap;

use comet_proto::ChannelName;

pub(super) struct LruMap<T> {
    young: HashMap<ChannelName, T>,
    old: HashMap<ChannelName, T>,
    half: usize,
}

impl<T> LruMap<T> {
    /// Remembers at least half of `most`, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (most / 2).max(1),
        }
    }

    pub(super) fn get(&mut self, name: &ChannelName) -> Option<&mut T> {
        if let Some((name, value)) = self.old.remove_entry(name) {
            self.insert(name, value);
        }
        self.young.get_mut(name)
    }

    pub(super) fn insert(&mut self, name: ChannelName, value: T) {
        self.old.remove(&name);
        if self.young.len() >= self.half && !self.young.contains_key(&name) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, value);
    }

    pub(super) fn remove(&mut self, name: &ChannelName) {
        self.young.remove(name);
        self.old.remove(name);
    }

    /// Forgets all entries for which `keep` returns false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for half in [&mut self.young, &mut self.old] {
            half.retain(|_, value| keep(value));
            if half.len() < half.capacity() / 4 {
                half.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> ChannelName {
        ChannelName::parse(&n.to_string()).unwrap()
    }

    #[test]
    fn forgets_what_was_not_used_and_no_more_than_it_must() {
        let mut memory = LruMap::new(10);
        for n in 0..100 {
            memory.insert(name(n), n);
            assert_eq!(
                memory.get(&name(0)),
                Some(&mut 0),
                "used all the time, at {n}"
            );
            assert!(memory.young.len() + memory.old.len() <= 10);
        }
        let kept = (0..100).filter(|n| memory.get(&name(*n)).is_some()).count();
        assert!((5..=10).contains(&kept), "{kept}");
        assert!(memory.get(&name(99)).is_some());
    }

    #[test]
    fn holds_each_name_once() {
        let mut memory = LruMap::new(2);
        memory.insert(name(1), 1);
        memory.insert(name(2), 2);
        memory.insert(name(1), 3);
        memory.remove(&name(1));
        assert_eq!(memory.get(&name(1)), None);
        memory.retain(|n| *n != 2);
        assert_eq!(memory.get(&name(2)), None);
    }
}

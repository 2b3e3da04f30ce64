//! The subscribers of one worker in lists, one for each channel, and which of these lists have subscribers to call.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use comet_proto::ChannelName;
use slab::Slab;

use super::{
    feed::LastRead,
    subscriber::{Subscriber, SubscriberKey},
};

#[derive(Default)]
pub(super) struct SubscriberLists {
    lists: Slab<ChannelSubscribers>,
    by_name: HashMap<ChannelName, u32>,
    registrations: Slab<Registration>,
    /// The most subscribers since the last check. Clients that have just got an answer come back at once, so memory is kept for them.
    most: usize,
    /// The lists with subscribers to call. Each list is in it at most once.
    ready: VecDeque<u32>,
    /// The list that was served last. It goes to the end of `ready`, behind lists that were added meanwhile.
    served: Option<u32>,
}

/// The subscribers of one channel, by their keys.
struct ChannelSubscribers {
    channel: ChannelName,
    waiting: Vec<u32>,
    /// The subscribers that are still to be called.
    delivering: Vec<u32>,
    /// Whether the list is in `SubscriberLists::ready`, or is being served.
    ready: bool,
    /// Whether the channel got a message after `delivering` was filled.
    again: bool,
    /// The last backlog, valid until a newer message comes.
    last_read: LastRead,
}

/// A subscriber, and where it is in the lists.
struct Registration {
    subscriber: Rc<dyn Subscriber>,
    positions: Positions,
}

/// Where a subscriber is in the lists of its channels. Nearly always one list, which needs no allocation.
pub(super) enum Positions {
    One([Position; 1]),
    Many(Box<[Position]>),
}

#[derive(Clone, Copy)]
pub(super) struct Position {
    list: u32,
    index: u32,
}

impl SubscriberLists {
    /// The number of subscribers.
    pub(super) fn len(&self) -> usize {
        self.registrations.len()
    }

    /// An equal name that is already in use.
    pub(super) fn same_name(&self, channel: &ChannelName) -> Option<&ChannelName> {
        Some(self.by_name.get_key_value(channel)?.0)
    }

    pub(super) fn last_read(&mut self, list: u32) -> &mut LastRead {
        &mut self.lists[list as usize].last_read
    }

    /// The lists of these channels, which are made if needed. Nobody is in the lists yet.
    pub(super) fn find_or_add(&mut self, channels: &[ChannelName]) -> Positions {
        let position = |list| Position { list, index: 0 };
        match channels {
            [channel] => Positions::One([position(self.list(channel))]),
            channels => Positions::Many(
                channels
                    .iter()
                    .map(|name| position(self.list(name)))
                    .collect(),
            ),
        }
    }

    fn list(&mut self, channel: &ChannelName) -> u32 {
        if let Some(&list) = self.by_name.get(channel) {
            return list;
        }
        let list = number(self.lists.insert(ChannelSubscribers {
            channel: channel.clone(),
            waiting: Vec::new(),
            delivering: Vec::new(),
            ready: false,
            again: false,
            last_read: LastRead::default(),
        }));
        self.by_name.insert(channel.clone(), list);
        list
    }

    /// Puts a subscriber into these lists.
    pub(super) fn insert(
        &mut self,
        subscriber: Rc<dyn Subscriber>,
        mut positions: Positions,
    ) -> SubscriberKey {
        let vacant = self.registrations.vacant_entry();
        let key = number(vacant.key());
        for position in positions.iter_mut() {
            let waiting = &mut self.lists[position.list as usize].waiting;
            position.index = number(waiting.len());
            waiting.push(key);
        }
        vacant.insert(Registration {
            subscriber,
            positions,
        });
        self.most = self.most.max(self.registrations.len());
        SubscriberKey(key)
    }

    pub(super) fn remove(&mut self, key: SubscriberKey) {
        let Some(registration) = self.registrations.try_remove(key.0 as usize) else {
            return;
        };
        for position in registration.positions.iter() {
            let list = &mut self.lists[position.list as usize];
            let index = position.index as usize;
            let keys = if list.delivering.get(index) == Some(&key.0) {
                &mut list.delivering
            } else {
                &mut list.waiting
            };
            keys.swap_remove(index);
            if let Some(&moved) = keys.get(index) {
                self.set_index(moved, position.list, position.index);
            }
        }
    }

    fn set_index(&mut self, key: u32, list: u32, index: u32) {
        let positions = &mut self.registrations[key as usize].positions;
        if let Some(position) = positions.iter_mut().find(|position| position.list == list) {
            position.index = index;
        }
    }

    /// Marks the lists of channels with new messages: their subscribers are to be called.
    pub(super) fn mark(&mut self, dirty: Vec<ChannelName>) {
        for channel in dirty {
            if let Some(&index) = self.by_name.get(&channel) {
                let list = &mut self.lists[index as usize];
                list.again = true;
                list.last_read = LastRead::default();
                if !list.ready {
                    list.ready = true;
                    self.ready.push_back(index);
                }
            }
        }
    }

    /// Takes the list that has waited longest for its turn.
    pub(super) fn next_ready(&mut self) -> Option<(u32, ChannelName)> {
        let index = self.ready.pop_front()?;
        let list = &mut self.lists[index as usize];
        if list.delivering.is_empty() && list.again {
            std::mem::swap(&mut list.waiting, &mut list.delivering);
            list.again = false;
        }
        self.served = Some(index);
        Some((index, list.channel.clone()))
    }

    /// Takes the next subscriber to call, and moves it to the waiting ones.
    pub(super) fn next_subscriber(
        &mut self,
        index: u32,
    ) -> Option<(SubscriberKey, Rc<dyn Subscriber>)> {
        let list = &mut self.lists[index as usize];
        let key = list.delivering.pop()?;
        let last = number(list.waiting.len());
        list.waiting.push(key);
        self.set_index(key, index, last);
        Some((
            SubscriberKey(key),
            self.registrations[key as usize].subscriber.clone(),
        ))
    }

    /// Puts the list that was served back into `ready`, if it has more subscribers to call.
    pub(super) fn requeue(&mut self) {
        let Some(index) = self.served.take() else {
            return;
        };
        let list = &mut self.lists[index as usize];
        list.ready = list.again || !list.delivering.is_empty();
        if list.ready {
            self.ready.push_back(index);
        } else {
            list.last_read = LastRead::default();
            list.delivering = Vec::new(); // after one message of a large audience often no subscriber is left
        }
    }

    /// Drops lists without subscribers. Returns their channels.
    pub(super) fn drop_empty_lists(&mut self) -> Vec<ChannelName> {
        let mut empty = Vec::new();
        self.lists.retain(|_, list| {
            let keep = list.ready || !list.waiting.is_empty() || !list.delivering.is_empty();
            if !keep {
                empty.push(list.channel.clone());
            }
            keep
        });
        for channel in &empty {
            self.by_name.remove(channel);
        }
        let most = std::mem::replace(&mut self.most, self.registrations.len());
        if most < self.registrations.capacity() / 8 {
            for (_, list) in &mut self.lists {
                list.waiting.shrink_to_fit();
            }
            self.registrations.shrink_to_fit();
            self.by_name.shrink_to_fit();
            self.lists.shrink_to_fit();
        }
        empty
    }
}

impl Positions {
    fn iter(&self) -> impl Iterator<Item = &Position> {
        match self {
            Self::One(one) => one.iter(),
            Self::Many(many) => many.iter(),
        }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Position> {
        match self {
            Self::One(one) => one.iter_mut(),
            Self::Many(many) => many.iter_mut(),
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer subscribers than descriptors, which are 31 bits")
}

//! The subscribers of one worker in lists, one for each channel, and which of these lists have subscribers to call.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use comet_proto::{ChannelName, Cursor};
use slab::Slab;

use super::{
    marks::Marks,
    positions::{Position, Positions},
    shared_backlog::LastRead,
};
use crate::hub::DirtyChannels;

/// Identifies a subscription until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriberKey(u32);

/// The lists of one worker. `S` is the type of the subscribers.
pub(super) struct SubscriberLists<S: ?Sized> {
    lists: Slab<ChannelSubscribers>,
    by_name: HashMap<ChannelName, u32>,
    registrations: Slab<Registration<S>>,
    /// Highest number of subscribers since the last check. Memory for this number is kept, because clients that have just got an
    /// answer send their next poll at once.
    most: usize,
    /// The lists with subscribers to call. Each list is in it at most once.
    ready: VecDeque<u32>,
    /// The list that was served last. It goes to the end of `ready`, behind lists that were added meanwhile.
    served: Option<u32>,
    marks: Marks,
    /// The lists that subscribers have left since [`SubscriberLists::take_left`].
    left: Vec<u32>,
}

/// The subscribers of one channel, by their keys.
struct ChannelSubscribers {
    channel: ChannelName,
    waiting: Vec<u32>,
    /// The subscribers that are still to be called.
    delivering: Vec<u32>,
    /// Whether the list is in `SubscriberLists::ready`, or is being served.
    ready: bool,
    /// Whether the channel got a message or was deleted after `delivering` was filled.
    again: bool,
    /// Whether the channel was deleted after `delivering` was filled.
    deleted: bool,
    /// Whether the subscribers in `delivering` must be told that the channel was deleted.
    delivers_deletion: bool,
    /// The number of subscribers that have left since [`SubscriberLists::take_left`].
    left: u32,
    /// The last backlog, valid until a newer message comes.
    last_read: LastRead,
}

/// A subscriber, and where it is in the lists.
struct Registration<S: ?Sized> {
    subscriber: Rc<S>,
    positions: Positions,
}

/// A subscriber that is called.
pub(super) struct Called<S: ?Sized> {
    pub(super) key: SubscriberKey,
    pub(super) subscriber: Rc<S>,
    /// Whether it is a subscriber of this channel only.
    pub(super) alone: bool,
    /// Whether it must be told that this channel was deleted.
    pub(super) deleted: bool,
}

impl<S: ?Sized> Default for SubscriberLists<S> {
    fn default() -> Self {
        Self {
            lists: Slab::new(),
            by_name: HashMap::new(),
            registrations: Slab::new(),
            most: 0,
            ready: VecDeque::new(),
            served: None,
            marks: Marks::default(),
            left: Vec::new(),
        }
    }
}

impl<S: ?Sized> SubscriberLists<S> {
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

    /// The lists of these channels. Creates lists that do not exist yet. The caller adds the subscriber.
    pub(super) fn find_or_add(&mut self, channels: &[ChannelName]) -> Positions {
        Positions::in_lists(channels.iter().map(|channel| self.list(channel)))
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
            deleted: false,
            delivers_deletion: false,
            left: 0,
            last_read: LastRead::default(),
        }));
        self.by_name.insert(channel.clone(), list);
        list
    }

    /// Puts a subscriber into these lists.
    pub(super) fn insert(&mut self, subscriber: Rc<S>, mut positions: Positions) -> SubscriberKey {
        let vacant = self.registrations.vacant_entry();
        let key = number(vacant.key());
        for position in positions.iter_mut() {
            let waiting = &mut self.lists[position.list as usize].waiting;
            position.index = number(waiting.len());
            waiting.push(key);
        }
        if let Positions::Many(many) = &positions {
            many.iter()
                .for_each(|position| self.marks.watch(position.list));
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
            self.remove_from_list(key, *position);
        }
    }

    /// Adds a subscriber to the lists of further channels.
    pub(super) fn add_channels(&mut self, key: SubscriberKey, channels: &[ChannelName]) {
        for channel in channels {
            let list = self.list(channel);
            let waiting = &mut self.lists[list as usize].waiting;
            let index = number(waiting.len());
            let positions = &mut self.registrations[key.0 as usize].positions;
            if positions.add(Position { list, index }) {
                waiting.push(key.0);
                self.marks.watch(list);
            } else {
                self.count_left(list);
            }
        }
    }

    /// Removes a subscriber from the list of a channel.
    pub(super) fn drop_channel(&mut self, key: SubscriberKey, channel: &ChannelName) {
        let registration = self.registrations.get_mut(key.0 as usize);
        if let (Some(registration), Some(&list)) = (registration, self.by_name.get(channel))
            && let Some(position) = registration.positions.remove(list)
        {
            self.remove_from_list(key, position);
        }
    }

    fn remove_from_list(&mut self, key: SubscriberKey, position: Position) {
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
        self.count_left(position.list);
    }

    fn count_left(&mut self, index: u32) {
        let list = &mut self.lists[index as usize];
        if list.left == 0 {
            self.left.push(index);
        }
        list.left += 1;
    }

    /// The number of subscribers that have left each channel since the last call.
    pub(super) fn take_left(&mut self) -> Vec<(ChannelName, u32)> {
        let left = std::mem::take(&mut self.left).into_iter();
        let lists = &mut self.lists;
        left.map(|index| {
            let list = &mut lists[index as usize];
            (list.channel.clone(), std::mem::take(&mut list.left))
        })
        .collect()
    }

    fn set_index(&mut self, key: u32, list: u32, index: u32) {
        let positions = &mut self.registrations[key as usize].positions;
        if let Some(position) = positions.in_list(list) {
            position.index = index;
        }
    }

    /// Marks the lists of channels that have changed, so that their subscribers are called.
    pub(super) fn mark(&mut self, dirty: DirtyChannels) {
        self.marks.taken(dirty.up_to);
        for channel in dirty.published {
            if let Some(&index) = self.by_name.get(&channel) {
                self.marks.mark(index);
                self.lists[index as usize].last_read = LastRead::default();
                self.make_ready(index);
            }
        }
        for channel in dirty.deleted {
            if let Some(&index) = self.by_name.get(&channel) {
                self.lists[index as usize].deleted = true;
                self.make_ready(index);
            }
        }
    }

    fn make_ready(&mut self, index: u32) {
        let list = &mut self.lists[index as usize];
        list.again = true;
        if !list.ready {
            list.ready = true;
            self.ready.push_back(index);
        }
    }

    /// Takes the list that has waited longest.
    pub(super) fn next_ready(&mut self) -> Option<(u32, ChannelName)> {
        let index = self.ready.pop_front()?;
        let list = &mut self.lists[index as usize];
        if list.delivering.is_empty() && list.again {
            std::mem::swap(&mut list.waiting, &mut list.delivering);
            list.again = false;
            list.delivers_deletion = std::mem::take(&mut list.deleted);
        }
        self.served = Some(index);
        Some((index, list.channel.clone()))
    }

    /// Takes the next subscriber to call, and moves it to the subscribers that wait for the next message.
    pub(super) fn next_subscriber(&mut self, index: u32) -> Option<Called<S>> {
        let list = &mut self.lists[index as usize];
        let key = list.delivering.pop()?;
        let last = number(list.waiting.len());
        list.waiting.push(key);
        let registration = &mut self.registrations[key as usize];
        if let Some(position) = registration.positions.in_list(index) {
            position.index = last;
        }
        Some(Called {
            key: SubscriberKey(key),
            subscriber: registration.subscriber.clone(),
            alone: matches!(registration.positions, Positions::One(_)),
            deleted: list.delivers_deletion,
        })
    }

    /// The lists of a subscriber that may have messages after its cursor.
    pub(super) fn unread(
        &self,
        key: SubscriberKey,
        cursor: Cursor,
    ) -> impl Iterator<Item = u32> + '_ {
        let lists = self.positions(key).iter().map(|position| position.list);
        lists.filter(move |list| self.marks.is_marked(*list, cursor))
    }

    /// Every message up to this id has marked its list.
    pub(super) fn marked_up_to(&self) -> Cursor {
        self.marks.up_to()
    }

    /// The channel of a list.
    pub(super) fn channel(&self, list: u32) -> &ChannelName {
        &self.lists[list as usize].channel
    }

    /// The channel of a subscriber of one channel.
    pub(super) fn only_channel(&self, key: SubscriberKey) -> Option<ChannelName> {
        match self.positions(key) {
            Positions::One([only]) => Some(self.channel(only.list).clone()),
            Positions::Many(_) => None,
        }
    }

    /// All channels of a subscriber.
    pub(super) fn channels(&self, key: SubscriberKey) -> Vec<ChannelName> {
        let lists = self.positions(key).iter().map(|position| position.list);
        lists.map(|list| self.channel(list).clone()).collect()
    }

    fn positions(&self, key: SubscriberKey) -> &Positions {
        &self.registrations[key.0 as usize].positions
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
            list.delivering = Vec::new(); // frees memory: after a delivery, often none of many subscribers is left
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
            self.marks.shrink(self.lists.capacity());
        }
        empty
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer subscribers than descriptors, which are 31 bits")
}

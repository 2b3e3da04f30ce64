//! Subscribers of one worker thread, by channel. A subscriber is a set of channels and a cursor, never a queue:
//! when a channel has a new message, each of its subscribers is called once and reads the shared history.
//!
//! Everything here belongs to one thread. A busy channel is delivered in slices, so that other channels are served in between.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use comet_proto::{ChannelName, Cursor};
use slab::Slab;

use super::{Backlog, Hub, feed::LastRead};

pub use super::feed::{Feed, SharedBacklog};

/// The number of subscribers that are called before other channels and other tasks of the thread run. Each call may be a
/// write of some microseconds.
const SLICE: usize = 64;

/// A subscriber, which is called when one of its channels has a new message.
pub trait Subscriber {
    /// Reads the new messages and delivers them, without waiting.
    fn deliver(&self, feed: &mut Feed<'_>) -> AfterDelivery;
}

/// What a subscriber does after a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDelivery {
    Stay,
    /// The subscription has ended, and leaves all its channels.
    Leave,
}

/// Identifies a subscription until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriberKey(u32);

/// See the module.
pub struct Audience {
    hub: Arc<Hub>,
    worker: usize,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
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
    /// Whether the list is in `Inner::ready`, or is being served.
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
enum Positions {
    One([Position; 1]),
    Many(Box<[Position]>),
}

#[derive(Clone, Copy)]
struct Position {
    list: u32,
    index: u32,
}

impl Audience {
    /// The worker to which these subscribers belong.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// An audience for `worker` without subscribers.
    #[must_use]
    pub fn new(hub: Arc<Hub>, worker: usize) -> Rc<Self> {
        Rc::new(Self {
            hub,
            worker,
            inner: RefCell::default(),
        })
    }

    /// The hub that the messages come from.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The number of subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.borrow().registrations.len()
    }

    /// Whether there is no subscriber.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the backlog of `channels` after `since` (`None`: from now on). If it is empty, `subscriber` has
    /// joined and is called from the next message on. Otherwise the caller delivers the backlog and joins
    /// again with its cursor.
    ///
    /// # Errors
    /// The backlog, when there is one or a gap.
    pub fn join(
        &self,
        channels: &[ChannelName],
        since: Option<Cursor>,
        subscriber: Rc<dyn Subscriber>,
    ) -> Result<(SubscriberKey, Cursor), Backlog> {
        let lists = self.inner.borrow_mut().lists(channels);
        let backlog = self.hub.subscribe(self.worker, channels, since);
        if !backlog.messages.is_empty() || backlog.gap {
            return Err(backlog);
        }
        // There was no await since the read, so every later message marks the channel and wakes this thread.
        let key = self.inner.borrow_mut().insert(subscriber, lists);
        Ok((key, backlog.cursor))
    }

    /// Replaces names by equal names that are already in use, so that each name is in memory once.
    pub fn share_names(&self, channels: &mut [ChannelName]) {
        let inner = self.inner.borrow();
        for channel in channels {
            if let Some((known, _)) = inner.by_name.get_key_value(channel) {
                *channel = known.clone();
            }
        }
    }

    /// Ends a subscription.
    pub fn leave(&self, key: SubscriberKey) {
        self.inner.borrow_mut().remove(key);
    }

    /// Forgets channels without subscribers. To be called about every second.
    pub fn tidy(&self) {
        for channel in self.inner.borrow_mut().drop_empty_lists() {
            self.hub.unsubscribe(self.worker, &channel);
        }
    }

    /// Calls subscribers for as long as the thread lives.
    pub async fn run(&self) {
        loop {
            self.hub.published(self.worker).await;
            loop {
                let dirty = self.hub.take_dirty(self.worker);
                self.inner.borrow_mut().mark(dirty);
                // Behind the new lists, so that a busy channel does not delay a quiet one.
                self.inner.borrow_mut().requeue();
                if !self.serve_slice() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Calls up to [`SLICE`] subscribers of one channel. Returns false when there is none to call.
    fn serve_slice(&self) -> bool {
        let Some((list, channel)) = self.inner.borrow_mut().next_ready() else {
            return false;
        };
        for _ in 0..SLICE {
            let mut inner = self.inner.borrow_mut();
            let Some((key, subscriber)) = inner.next_subscriber(list) else {
                break;
            };
            let mut feed = Feed {
                hub: &self.hub,
                channel: &channel,
                last_read: std::mem::take(&mut inner.lists[list as usize].last_read),
            };
            drop(inner);
            // Nothing is borrowed here, so the subscriber may join and leave.
            let next = subscriber.deliver(&mut feed);
            let mut inner = self.inner.borrow_mut();
            inner.lists[list as usize].last_read = feed.last_read;
            if next == AfterDelivery::Leave {
                inner.remove(key);
            }
        }
        true
    }
}

impl Inner {
    fn lists(&mut self, channels: &[ChannelName]) -> Positions {
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

    fn insert(
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

    fn remove(&mut self, key: SubscriberKey) {
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

    fn mark(&mut self, dirty: Vec<ChannelName>) {
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

    fn next_ready(&mut self) -> Option<(u32, ChannelName)> {
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
    fn next_subscriber(&mut self, index: u32) -> Option<(SubscriberKey, Rc<dyn Subscriber>)> {
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
    fn requeue(&mut self) {
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

    fn drop_empty_lists(&mut self) -> Vec<ChannelName> {
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

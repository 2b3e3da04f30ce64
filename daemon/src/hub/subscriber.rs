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

pub use super::feed::{Batch, Feed};

/// The number of subscribers that are called before other channels and other tasks of the thread run. Each call may be a
/// write of some microseconds.
const SLICE: usize = 64;

/// A subscriber, which is called when one of its channels has a new message.
pub trait Subscriber {
    /// Reads the new messages and delivers them, without waiting.
    fn deliver(&self, feed: &mut Feed<'_>) -> Next;
}

/// Whether a subscriber wants to be called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Stay,
    /// The subscription has ended, and leaves all its channels.
    Leave,
}

/// Identifies a subscription until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u32);

/// See the module.
pub struct Audience {
    hub: Arc<Hub>,
    worker: usize,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    lists: Slab<List>,
    by_name: HashMap<ChannelName, u32>,
    members: Slab<Member>,
    /// The most members since the last check. Clients that have just got an answer come back at once, so memory is kept for them.
    most: usize,
    /// The lists with subscribers to call. Each list is in it at most once.
    ready: VecDeque<u32>,
    /// The list that was served last. It goes to the end of `ready`, behind lists that were added meanwhile.
    served: Option<u32>,
}

/// The subscribers of one channel.
struct List {
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

struct Member {
    subscriber: Rc<dyn Subscriber>,
    places: Places,
}

/// The places of a member: list, and position in the list. Nearly always one, which needs no allocation.
enum Places {
    One([Place; 1]),
    Many(Box<[Place]>),
}

#[derive(Clone, Copy)]
struct Place {
    list: u32,
    position: u32,
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
        self.inner.borrow().members.len()
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
    ) -> Result<(Key, Cursor), Backlog> {
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
    pub fn leave(&self, key: Key) {
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
            let Some((key, subscriber)) = inner.next_member(list) else {
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
            if next == Next::Leave {
                inner.remove(key);
            }
        }
        true
    }
}

impl Inner {
    fn lists(&mut self, channels: &[ChannelName]) -> Places {
        let place = |list| Place { list, position: 0 };
        match channels {
            [channel] => Places::One([place(self.list(channel))]),
            channels => Places::Many(channels.iter().map(|name| place(self.list(name))).collect()),
        }
    }

    fn list(&mut self, channel: &ChannelName) -> u32 {
        if let Some(&list) = self.by_name.get(channel) {
            return list;
        }
        let list = number(self.lists.insert(List {
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

    fn insert(&mut self, subscriber: Rc<dyn Subscriber>, mut places: Places) -> Key {
        let entry = self.members.vacant_entry();
        let key = number(entry.key());
        for place in places.iter_mut() {
            let waiting = &mut self.lists[place.list as usize].waiting;
            place.position = number(waiting.len());
            waiting.push(key);
        }
        entry.insert(Member { subscriber, places });
        self.most = self.most.max(self.members.len());
        Key(key)
    }

    fn remove(&mut self, key: Key) {
        let Some(member) = self.members.try_remove(key.0 as usize) else {
            return;
        };
        for place in member.places.iter() {
            let list = &mut self.lists[place.list as usize];
            let position = place.position as usize;
            let keys = if list.delivering.get(position) == Some(&key.0) {
                &mut list.delivering
            } else {
                &mut list.waiting
            };
            keys.swap_remove(position);
            if let Some(&moved) = keys.get(position) {
                self.set_position(moved, place.list, place.position);
            }
        }
    }

    fn set_position(&mut self, key: u32, list: u32, position: u32) {
        let places = &mut self.members[key as usize].places;
        if let Some(place) = places.iter_mut().find(|place| place.list == list) {
            place.position = position;
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
    fn next_member(&mut self, index: u32) -> Option<(Key, Rc<dyn Subscriber>)> {
        let list = &mut self.lists[index as usize];
        let key = list.delivering.pop()?;
        let position = number(list.waiting.len());
        list.waiting.push(key);
        self.set_position(key, index, position);
        Some((Key(key), self.members[key as usize].subscriber.clone()))
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
        let most = std::mem::replace(&mut self.most, self.members.len());
        if most < self.members.capacity() / 8 {
            for (_, list) in &mut self.lists {
                list.waiting.shrink_to_fit();
            }
            self.members.shrink_to_fit();
            self.by_name.shrink_to_fit();
            self.lists.shrink_to_fit();
        }
        empty
    }
}

impl Places {
    fn iter(&self) -> impl Iterator<Item = &Place> {
        match self {
            Self::One(one) => one.iter(),
            Self::Many(many) => many.iter(),
        }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        match self {
            Self::One(one) => one.iter_mut(),
            Self::Many(many) => many.iter_mut(),
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer subscribers than descriptors, which are 31 bits")
}

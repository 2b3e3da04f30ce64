//! Subscribers of one worker thread, by channel. A subscriber is a set of channels and a cursor, never a queue:
//! when a channel has a new message, each of its subscribers is called once and reads the shared history.
//!
//! Everything here belongs to one thread. A busy channel is delivered in slices, so that other channels are served in between.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use comet_proto::{ChannelName, Cursor};

use super::{Backlog, Hub, lists::SubscriberLists};

pub use super::feed::{Feed, SharedBacklog};

/// The number of subscribers that are called before other channels and other tasks of the thread run. Each call may be a
/// write of some microseconds.
const SLICE: usize = 64;

/// A subscriber, which is called when one of its channels has a new message.
pub trait Subscriber {
    /// Reads the new messages and delivers them, without waiting.
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery;
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
pub struct SubscriberKey(pub(super) u32);

/// See the module.
pub struct Audience {
    hub: Arc<Hub>,
    worker: usize,
    lists: RefCell<SubscriberLists>,
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
            lists: RefCell::default(),
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
        self.lists.borrow().len()
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
        let positions = self.lists.borrow_mut().find_or_add(channels);
        let backlog = self.hub.subscribe(self.worker, channels, since);
        if !backlog.messages.is_empty() || backlog.gap {
            return Err(backlog);
        }
        // There was no await since the read, so every later message marks the channel and wakes this thread.
        let key = self.lists.borrow_mut().insert(subscriber, positions);
        Ok((key, backlog.cursor))
    }

    /// Joins without channels, which are added afterwards. Returns also the last id.
    pub(super) fn join_without_channels(
        &self,
        subscriber: Rc<dyn Subscriber>,
    ) -> (SubscriberKey, Cursor) {
        let mut lists = self.lists.borrow_mut();
        let nowhere = lists.find_or_add(&[]);
        (lists.insert(subscriber, nowhere), self.hub.last())
    }

    /// Adds channels to a subscription. Messages after the returned id mark these channels for it. Messages up to this id may
    /// not have marked them.
    pub(super) fn add_channels(&self, key: SubscriberKey, channels: &[ChannelName]) -> Cursor {
        self.lists.borrow_mut().add_channels(key, channels);
        self.hub.listen(self.worker, channels)
    }

    /// Takes a channel away from a subscription.
    pub(super) fn drop_channel(&self, key: SubscriberKey, channel: &ChannelName) {
        self.lists.borrow_mut().drop_channel(key, channel);
    }

    /// Whether just these lists of a subscriber have messages after its cursor.
    pub(super) fn has_unread(&self, key: SubscriberKey, cursor: Cursor, lists: &[u32]) -> bool {
        let known = self.lists.borrow();
        known.unread(key, cursor).eq(lists.iter().copied())
    }

    /// Reads the messages of a subscriber's channels after its cursor, which must not be older than the moment when the subscriber
    /// joined.
    pub(super) fn read(&self, key: SubscriberKey, cursor: Cursor) -> Backlog {
        let only = self.lists.borrow().only_channel(key);
        match only {
            Some(channel) => self.hub.since(&[channel], cursor),
            None => self.read_marked(key, cursor).0,
        }
    }

    /// Reads the messages of a subscriber's channels after its cursor, of the channels that were marked. The cursor must not be
    /// older than the moment when the subscriber joined, or got its last channel. Returns also the lists that were read.
    pub(super) fn read_marked(&self, key: SubscriberKey, cursor: Cursor) -> (Backlog, Box<[u32]>) {
        let lists = self.lists.borrow();
        let unread: Box<[u32]> = lists.unread(key, cursor).collect();
        let up_to = lists.marked_up_to().max(cursor);
        let names: Vec<ChannelName> = unread
            .iter()
            .map(|list| lists.channel(*list).clone())
            .collect();
        let mut backlog = match &names[..] {
            [] => Backlog {
                cursor: up_to,
                ..Backlog::default()
            },
            names => self.hub.since_until(names, cursor, up_to),
        };
        if backlog.gap {
            // One gap is enough, whatever other channels have lost meanwhile.
            backlog = self.hub.since(&lists.channels(key), cursor);
        }
        (backlog, unread)
    }

    /// Replaces names by equal names that are already in use, so that each name is in memory once.
    pub fn share_names(&self, channels: &mut [ChannelName]) {
        let lists = self.lists.borrow();
        for channel in channels {
            if let Some(known) = lists.same_name(channel) {
                *channel = known.clone();
            }
        }
    }

    /// Ends a subscription.
    pub fn leave(&self, key: SubscriberKey) {
        self.lists.borrow_mut().remove(key);
    }

    /// Forgets channels without subscribers. To be called about every second.
    pub fn tidy(&self) {
        for channel in self.lists.borrow_mut().drop_empty_lists() {
            self.hub.unsubscribe(self.worker, &channel);
        }
    }

    /// Calls subscribers for as long as the thread lives.
    pub async fn run(&self) {
        loop {
            self.hub.published(self.worker).await;
            loop {
                let (dirty, up_to) = self.hub.take_dirty(self.worker);
                self.lists.borrow_mut().mark(dirty, up_to);
                // Behind the new lists, so that a busy channel does not delay a quiet one.
                self.lists.borrow_mut().requeue();
                if !self.serve_slice() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Calls up to [`SLICE`] subscribers of one channel. Returns false when there is none to call.
    fn serve_slice(&self) -> bool {
        let Some((list, channel)) = self.lists.borrow_mut().next_ready() else {
            return false;
        };
        for _ in 0..SLICE {
            let mut lists = self.lists.borrow_mut();
            let Some(called) = lists.next_subscriber(list) else {
                break;
            };
            let mut feed = Feed {
                audience: self,
                key: called.key,
                only: called.alone.then_some(&channel),
                last_read: std::mem::take(lists.last_read(list)),
            };
            drop(lists);
            // Nothing is borrowed here, so the subscriber may join and leave.
            let next = called.subscriber.deliver(&mut feed);
            let mut lists = self.lists.borrow_mut();
            *lists.last_read(list) = feed.last_read;
            if next == AfterDelivery::Leave {
                lists.remove(called.key);
            }
        }
        true
    }
}

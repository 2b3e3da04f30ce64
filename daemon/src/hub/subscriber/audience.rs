//! The audience: the subscribers of one worker thread, and the loop that calls them.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use comet_proto::{ChannelName, Cursor};

use super::{
    delivery::{AfterDelivery, Feed, Subscriber},
    lists::{SubscriberKey, SubscriberLists},
};
use crate::hub::{Backlog, Hub};

/// Number of subscribers of one channel that are called before other channels and other tasks of the thread are served. Each
/// call may be a write of some microseconds.
const SLICE: usize = 64;

/// The subscribers of one worker thread.
pub struct Audience {
    hub: Arc<Hub>,
    worker: usize,
    lists: RefCell<SubscriberLists<dyn Subscriber>>,
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

    /// The hub from which the subscribers get their messages.
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

    /// Reads the backlog of `channels` after `since` (`None`: from now on). If the backlog is empty, `subscriber` joins the
    /// audience and is called at the next message. If not, the backlog is returned as the error: the caller must deliver it
    /// and join again with its cursor.
    ///
    /// # Errors
    /// The backlog, if it has messages or a gap.
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
        // There was no await since the read. So every later message marks the channel and wakes this thread.
        let key = self.lists.borrow_mut().insert(subscriber, positions);
        Ok((key, backlog.cursor))
    }

    /// Joins without channels. The caller adds channels later. Also returns the last id.
    pub(in crate::hub) fn join_without_channels(
        &self,
        subscriber: Rc<dyn Subscriber>,
    ) -> (SubscriberKey, Cursor) {
        let mut lists = self.lists.borrow_mut();
        let nowhere = lists.find_or_add(&[]);
        (lists.insert(subscriber, nowhere), self.hub.last())
    }

    /// Adds channels to a subscription, and returns an id. Messages after this id mark the channels for the subscription. Earlier
    /// messages may not have marked them.
    pub(in crate::hub) fn add_channels(
        &self,
        key: SubscriberKey,
        channels: &[ChannelName],
    ) -> Cursor {
        self.lists.borrow_mut().add_channels(key, channels);
        self.hub.listen(self.worker, channels)
    }

    /// Removes a channel from a subscription.
    pub(in crate::hub) fn drop_channel(&self, key: SubscriberKey, channel: &ChannelName) {
        self.lists.borrow_mut().drop_channel(key, channel);
    }

    /// Reads the messages of a subscriber's channels after `cursor`. The cursor must not be older than the moment when the
    /// subscriber joined or got its last channel.
    pub(in crate::hub) fn read(&self, key: SubscriberKey, cursor: Cursor) -> Backlog {
        self.lists.borrow().read(&self.hub, key, cursor)
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

    /// Forgets channels without subscribers, and reports the subscribers that have left. Must be called about once a second.
    pub fn tidy(&self) {
        let left = self.lists.borrow_mut().take_left();
        self.hub.subscribers_left(&left);
        for channel in self.lists.borrow_mut().drop_empty_lists() {
            self.hub.unsubscribe(self.worker, &channel);
        }
    }

    /// Calls subscribers until the thread ends.
    pub async fn run(&self) {
        loop {
            self.hub.published(self.worker).await;
            loop {
                let left = self.lists.borrow_mut().take_left();
                let dirty = self.hub.take_dirty(self.worker, &left);
                self.lists.borrow_mut().mark(dirty);
                // A busy channel goes behind the new lists, so that it does not delay a quiet channel.
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
                hub: &self.hub,
                lists: &self.lists,
                key: called.key,
                only: called.alone.then_some(&channel),
                deleted: called.deleted.then_some(&channel),
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

//! The queue of file events that are not handled yet. It has one entry for each file name, so several touches of a file
//! are combined if they come faster than they are handled.

use std::{
    collections::HashMap,
    ffi::OsStr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use super::{
    Files,
    events::{Event, Events},
};
use crate::hub::Workers;

/// Maximum number of names in the queue. If there are more, the directory is scanned instead.
pub(super) const MAX_NAMES: usize = 65_536;

/// The events that were taken from an [`Inbox`].
#[derive(Default)]
pub(super) struct CollectedEvents {
    /// In the order of the first event of each name.
    pub(super) names: Vec<(Arc<OsStr>, Events)>,
    /// Events were lost, so the directory must be scanned.
    pub(super) rescan: bool,
    /// The directory itself was moved or deleted.
    pub(super) moved: bool,
    /// The last touch of the stamp file was read. So every event before this touch is in this batch or in an earlier one.
    pub(super) fence: bool,
    /// The number of events, which can be larger than the number of names.
    events: u32,
    index: HashMap<Arc<OsStr>, usize>,
}

/// The queue between the watching threads, which add events without waiting, and the control thread, which handles the
/// events. While the control thread waits, the inbox owns the files source. A watching thread can then borrow the files
/// source and publish, without waking the control thread.
#[derive(Default)]
pub(super) struct Inbox {
    contents: Mutex<Contents>,
    changed: Notify,
    returned: Notify,
}

#[derive(Default)]
struct Contents {
    batch: CollectedEvents,
    files: FilesOwner,
    /// The control thread waits to get the files source back. It will also handle the collected events.
    is_wanted: bool,
}

/// The part of the daemon that has the files source now.
#[derive(Default)]
enum FilesOwner {
    #[default]
    ControlThread,
    Inbox(Box<Files>),
    /// The thread publishes with the files source. Afterwards it checks for new events.
    WatchingThread,
}

impl Inbox {
    /// Collects events.
    pub(super) fn collect(&self, collect: impl FnOnce(&mut CollectedEvents)) {
        collect(&mut self.lock().batch);
    }

    pub(super) fn take(&self) -> CollectedEvents {
        std::mem::take(&mut self.lock().batch)
    }

    /// Publishes the files of the collected events, if the files source is lent. Holds no lock while it publishes. Wakes
    /// the control thread if the files source is not lent, or if handling an event may wait. Returns the workers that were
    /// woken to deliver messages.
    pub(super) fn publish(&self) -> Workers {
        let mut woken = Workers::default();
        while let Some((mut files, batch)) = self.borrow() {
            let is_done = files.publish_now(&batch.names);
            woken |= std::mem::take(&mut files.signals.woken);
            self.give_back(files);
            if !is_done {
                self.wake();
            }
        }
        woken
    }

    /// Lends the files source to the watching threads.
    pub(super) fn lend(&self, files: Box<Files>) {
        self.lock().files = FilesOwner::Inbox(files);
    }

    /// Takes the files source back. Waits until no watching thread uses it.
    pub(super) async fn take_back(&self) -> Box<Files> {
        loop {
            if let Some(files) = self.try_take_back() {
                return files;
            }
            self.returned.notified().await;
        }
    }

    /// Wakes the task that waits in [`Inbox::changed`].
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits until [`Inbox::wake`] is called.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the events and the files source for a watching thread. `None`: there are no events, or another thread handles
    /// them.
    fn borrow(&self) -> Option<(Box<Files>, CollectedEvents)> {
        let mut contents = self.lock();
        let is_handled = contents.is_wanted || matches!(contents.files, FilesOwner::WatchingThread);
        if contents.batch.is_empty() || is_handled {
            return None;
        }
        let Contents { batch, files, .. } = &mut *contents;
        if let FilesOwner::Inbox(lent) = files
            && batch.is_just_names()
            && lent.may_publish_now(batch.events)
            && let FilesOwner::Inbox(lent) = std::mem::replace(files, FilesOwner::WatchingThread)
        {
            return Some((lent, std::mem::take(batch)));
        }
        drop(contents);
        self.wake();
        None
    }

    fn give_back(&self, files: Box<Files>) {
        let mut contents = self.lock();
        contents.files = FilesOwner::Inbox(files);
        if contents.is_wanted {
            self.returned.notify_one();
        }
    }

    fn try_take_back(&self) -> Option<Box<Files>> {
        let mut contents = self.lock();
        contents.is_wanted = matches!(contents.files, FilesOwner::WatchingThread);
        if contents.is_wanted {
            return None;
        }
        match std::mem::take(&mut contents.files) {
            FilesOwner::Inbox(files) => Some(files),
            FilesOwner::WatchingThread | FilesOwner::ControlThread => {
                unreachable!("only the control thread takes the files source back, once each time")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents
            .lock()
            .expect("no code panics while it holds the lock of the inbox")
    }
}

impl CollectedEvents {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.is_just_names()
    }

    fn is_just_names(&self) -> bool {
        !self.rescan && !self.moved && !self.fence
    }

    pub(super) fn push(&mut self, name: &OsStr, event: Event) {
        self.events += 1;
        let place = match self.index.get(name) {
            Some(place) => *place,
            None if self.names.len() >= MAX_NAMES => {
                self.rescan = true;
                return;
            }
            None => {
                let name: Arc<OsStr> = name.into();
                self.names.push((name.clone(), Events::default()));
                self.index.insert(name, self.names.len() - 1);
                self.names.len() - 1
            }
        };
        self.names[place].1.add(event);
    }
}

#[cfg(test)]
impl Inbox {
    /// Handles an event like a watching thread that has read it.
    pub(super) fn push(&self, name: &OsStr, event: Event) {
        self.collect(|batch| batch.push(name, event));
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_each_name_once_in_the_order_of_arrival() {
        let inbox = Inbox::default();
        for name in ["b", "a", "b", "c"] {
            inbox.push(OsStr::new(name), Event::Closed);
        }
        let names: Vec<_> = inbox
            .take()
            .names
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["b", "a", "c"].map(|name| OsStr::new(name).into()));
        assert!(inbox.take().names.is_empty());
    }

    #[test]
    fn asks_for_a_rescan_when_it_is_full() {
        let mut batch = CollectedEvents::default();
        for n in 0..=MAX_NAMES {
            batch.push(OsStr::new(&n.to_string()), Event::Closed);
        }
        assert_eq!((batch.names.len(), batch.rescan), (MAX_NAMES, true));
    }

    #[tokio::test]
    async fn wakes_the_control_thread_if_nothing_is_lent() {
        let inbox = Arc::new(Inbox::default());
        let other = inbox.clone();
        let watching = std::thread::spawn(move || {
            other.publish(); // without events the control thread is not woken
            other.collect(|batch| batch.rescan = true);
            other.publish()
        });
        assert!(watching.join().unwrap().is_empty());
        inbox.changed().await;
        assert!(inbox.take().rescan);
    }
}

//! Events that are not handled yet, with one entry per name: touches that come faster than they
//! are handled become one.

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

/// The most names that may wait. Beyond that the directory is scanned instead.
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
    /// Every event before the last touch of the stamp is in this batch or in an earlier one.
    pub(super) fence: bool,
    index: HashMap<Arc<OsStr>, usize>,
}

/// The watching thread fills the inbox without waiting, and the control thread empties it.
#[derive(Default)]
pub(super) struct Inbox {
    contents: Mutex<Contents>,
    changed: Notify,
}

#[derive(Default)]
struct Contents {
    batch: CollectedEvents,
    /// The files source, while the control thread waits: the watching thread uses it, and need not wake the control thread.
    lent: Option<Box<Files>>,
    /// The workers that were woken by messages published meanwhile.
    woken: Workers,
}

impl Inbox {
    pub(super) fn push(&self, name: &OsStr, event: Event) {
        self.change(|batch| batch.push(name, event));
    }

    pub(super) fn rescan(&self) {
        self.change(|batch| batch.rescan = true);
    }

    pub(super) fn moved(&self) {
        self.change(|batch| batch.moved = true);
    }

    pub(super) fn fence(&self) {
        self.change(|batch| batch.fence = true);
    }

    pub(super) fn take(&self) -> CollectedEvents {
        std::mem::take(&mut self.lock().batch)
    }

    /// Takes the workers that were woken by messages published here since the last call.
    pub(super) fn take_woken(&self) -> Workers {
        std::mem::take(&mut self.lock().woken)
    }

    /// Lends the files source. Until it is taken back, new events are handled at once where that is possible.
    pub(super) fn lend(&self, files: Box<Files>) {
        self.lock().lent = Some(files);
    }

    pub(super) fn take_back(&self) -> Box<Files> {
        let lent = self.lock().lent.take();
        lent.expect("nobody else takes it")
    }

    /// Wakes the task that waits for events.
    pub(super) fn call(&self) {
        self.changed.notify_one();
    }

    /// Waits until there are events.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut CollectedEvents)) {
        let mut contents = self.lock();
        let was_empty = contents.batch.is_empty();
        change(&mut contents.batch);
        let done = was_empty && contents.publish_now();
        drop(contents);
        if was_empty && !done {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents
            .lock()
            .expect("no code panics while it holds the inbox")
    }
}

impl Contents {
    /// Returns false if the control thread must handle the events.
    fn publish_now(&mut self) -> bool {
        let Some(files) = &mut self.lent else {
            return false;
        };
        if !self.batch.is_just_names() || !files.may_publish_now() {
            return false;
        }
        let batch = std::mem::take(&mut self.batch);
        let done = files.publish_now(&batch.names);
        self.woken |= std::mem::take(&mut files.signals.woken);
        done
    }
}

impl CollectedEvents {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.is_just_names()
    }

    fn is_just_names(&self) -> bool {
        !self.rescan && !self.moved && !self.fence
    }

    fn push(&mut self, name: &OsStr, event: Event) {
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
        let inbox = Inbox::default();
        for n in 0..=MAX_NAMES {
            inbox.push(OsStr::new(&n.to_string()), Event::Closed);
        }
        let batch = inbox.take();
        assert_eq!((batch.names.len(), batch.rescan), (MAX_NAMES, true));
    }

    #[tokio::test]
    async fn wakes_whoever_waits_for_the_first_thing() {
        let inbox = Arc::new(Inbox::default());
        let other = inbox.clone();
        std::thread::spawn(move || other.rescan()).join().unwrap();
        inbox.changed().await;
        assert!(inbox.take().rescan);
    }
}

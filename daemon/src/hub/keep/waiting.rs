//! Methods of the hub that say whether a message is kept, or wait until it is.

use std::sync::atomic::Ordering;

use super::Progress;
use crate::{
    hub::{Backlog, Hub},
    store::{Durability, OnError, StoreError},
};

impl Hub {
    /// Whether every message up to `id` is kept as configured. If writing does not wait for a disk, these messages are written
    /// first. `None`: the caller must await [`Hub::kept`].
    ///
    /// # Errors
    /// The message is not kept. It may have been delivered.
    pub fn try_kept(&self, id: u64) -> Option<Result<(), StoreError>> {
        match &self.keeper {
            None => Some(Ok(())),
            Some(keeper) if keeper.has(id) => Some(Ok(())),
            Some(keeper) if keeper.settings.durability == Durability::Process => {
                Some(keeper.commit(self, id))
            }
            Some(_) => None,
        }
    }

    /// Waits until every message up to `id` is kept as configured.
    ///
    /// # Errors
    /// The message is not kept. It may have been delivered.
    pub async fn kept(&self, id: u64) -> Result<(), StoreError> {
        let keeper = match (self.try_kept(id), &self.keeper) {
            (Some(done), _) => return done,
            (None, None) => return Ok(()),
            (None, Some(keeper)) => keeper,
        };
        let mut progress = keeper.progress.subscribe();
        progress.mark_unchanged();
        while !keeper.has(id) {
            self.ask_to_sync();
            if progress.changed().await.is_err() {
                break; // never happens: the sender lives as long as the hub
            }
            let Progress { tried, error } = progress.borrow_and_update().clone();
            if let Some(error) = error.filter(|_| tried >= id && !keeper.has(id)) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// With `process`, writes the messages of a backlog before they are delivered. Otherwise a message could be delivered and
    /// then lost in a crash, and its publisher's retry would deliver the message again with another id. Only the first reader of
    /// a message writes it. If writing fails, the backlog is delivered anyway.
    pub(in crate::hub) fn keep_before_delivery(&self, backlog: Backlog) -> Backlog {
        if let (Some(keeper), Some(last)) = (&self.keeper, backlog.messages.last())
            && keeper.settings.durability == Durability::Process
            && !keeper.has(last.id)
        {
            let _ = keeper.commit(self, last.id); // the error is logged, and the publisher gets it
        }
        backlog
    }

    /// Whether published messages are kept in a log.
    pub fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// Whether every message up to `id` is kept as configured.
    pub fn has_kept(&self, id: u64) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| keeper.has(id))
    }

    /// Whether a message that is published now can probably be acknowledged at once.
    pub fn keeps_at_once(&self) -> bool {
        match &self.keeper {
            None => true,
            Some(keeper) => {
                keeper.settings.durability == Durability::Process
                    && !keeper.failing.load(Ordering::Relaxed)
            }
        }
    }

    /// Whether an acknowledgement must wait for a disk.
    pub fn waits_for_disk(&self) -> bool {
        self.keeper
            .as_ref()
            .is_some_and(|keeper| keeper.settings.durability == Durability::Disk)
    }

    /// For a publisher that does not wait: writes every message up to `id`, or asks the background thread to write them. Returns
    /// whether the messages are already kept.
    pub fn keep_soon(&self, id: u64) -> bool {
        match self.try_kept(id) {
            Some(kept) => kept.is_ok(),
            None => {
                self.ask_to_sync();
                false
            }
        }
    }

    /// Checks that messages may be published.
    ///
    /// # Errors
    /// Messages cannot be kept now, and `on_error` is "refuse".
    pub fn admits(&self) -> Result<(), StoreError> {
        match &self.keeper {
            Some(keeper)
                if keeper.settings.on_error == OnError::Refuse
                    && keeper.failing.load(Ordering::Relaxed) =>
            {
                keeper.commit_all(self)
            }
            _ => Ok(()),
        }
    }
}

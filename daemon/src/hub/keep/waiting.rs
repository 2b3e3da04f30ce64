//! What the hub says to those who publish and tell: whether a message is kept, and when.

use std::sync::atomic::Ordering;

use super::Progress;
use crate::{
    hub::{Backlog, Hub},
    store::{Durability, OnError, StoreError},
};

impl Hub {
    /// Whether everything up to `id` is kept as promised, having written it where that needs no waiting. `None`:
    /// [`Hub::kept`] has to be waited for.
    ///
    /// # Errors
    /// It is not kept; it may have been delivered.
    pub fn try_kept(&self, id: u64) -> Option<Result<(), StoreError>> {
        match &self.keeper {
            None => Some(Ok(())),
            Some(keeper) if keeper.has(id) => Some(Ok(())),
            Some(keeper) if keeper.promise.durability == Durability::Process => {
                Some(keeper.commit(self, id))
            }
            Some(_) => None,
        }
    }

    /// Waits until everything up to `id` is kept as promised.
    ///
    /// # Errors
    /// It is not kept; it may have been delivered.
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
                break; // never: we hold the keeper
            }
            let Progress { tried, error } = progress.borrow_and_update().clone();
            if let Some(error) = error.filter(|_| tried >= id && !keeper.has(id)) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// With `process` nobody is told of a message that the log does not have, unless it cannot be written: one that
    /// was seen and then forgotten in a crash would come again, as another, when its publisher repeats it. Whoever is
    /// first writes; nothing is written twice.
    pub(in crate::hub) fn keep_before_telling(&self, backlog: Backlog) -> Backlog {
        if let (Some(keeper), Some(last)) = (&self.keeper, backlog.messages.last())
            && keeper.promise.durability == Durability::Process
            && !keeper.has(last.id)
        {
            let _ = keeper.commit(self, last.id); // it is logged, and the publisher is told
        }
        backlog
    }

    /// What is published is kept, in a log.
    pub fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// Everything up to `id` is kept as promised.
    pub fn has_kept(&self, id: u64) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| keeper.has(id))
    }

    /// What is published now can be acknowledged at once, as far as is known.
    pub fn keeps_at_once(&self) -> bool {
        match &self.keeper {
            None => true,
            Some(keeper) => {
                keeper.promise.durability == Durability::Process
                    && !keeper.failing.load(Ordering::Relaxed)
            }
        }
    }

    /// An acknowledgement has to wait for a disk.
    pub fn waits_for_disk(&self) -> bool {
        self.keeper
            .as_ref()
            .is_some_and(|keeper| keeper.promise.durability == Durability::Disk)
    }

    /// Begins to keep what was published, where nobody waits for it. True: all of it is kept.
    pub fn keep_soon(&self) -> bool {
        match self.try_kept(self.last().0) {
            Some(kept) => kept.is_ok(),
            None => {
                self.ask_to_sync();
                false
            }
        }
    }

    /// Whether a publish may go on.
    ///
    /// # Errors
    /// Messages cannot be kept now, and whoever set up the daemon wants none of these.
    pub fn admits(&self) -> Result<(), StoreError> {
        match &self.keeper {
            Some(keeper)
                if keeper.promise.on_error == OnError::Refuse
                    && keeper.failing.load(Ordering::Relaxed) =>
            {
                keeper.commit(self, u64::MAX)
            }
            _ => Ok(()),
        }
    }
}

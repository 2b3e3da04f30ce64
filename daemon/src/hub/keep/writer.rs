//! Writes the queued messages to the log, and remembers whether messages are missing in the log.

use std::{io, mem, time::Instant};

use comet_proto::Message;

use super::queue::{Queue, Unwritten};
use crate::store::{Durability, Log, MessageRecord, StoreError};

pub(super) struct LogWriter {
    pub(super) log: Log,
    /// Messages that were taken from the hub and are not written yet.
    pub(super) queue: Queue,
    /// Whether the log must be rewritten, because messages are missing in the log or the disk may have lost some.
    pub(super) rewrite: bool,
    /// How often `rewrite` was set.
    pub(super) broken: u64,
    pub(super) failed: Option<(StoreError, Instant)>,
    /// Size of the log in bytes after the last rewrite.
    pub(super) least: u64,
    pub(super) rewrites: u64,
}

impl LogWriter {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            queue: Queue::default(),
            rewrite: false,
            broken: 0,
            failed: None,
            least: 0,
            rewrites: 0,
        }
    }

    /// Writes the queue. After an error the queue is unchanged.
    pub(super) fn write(&mut self, durability: Durability) -> Result<(), StoreError> {
        if self.queue.dropped || self.rewrite {
            if mem::take(&mut self.queue.dropped) {
                self.must_rewrite();
            }
            let error = io::Error::other("it lacks messages, and must be rewritten");
            return Err(match &self.failed {
                Some((error, _)) => error.clone(),
                None => StoreError::new("use", self.log.path(), error),
            });
        }
        if self.queue.list.is_empty() {
            return Ok(());
        }
        let unwritten = self.queue.list.iter();
        self.log.append(unwritten.map(Unwritten::record))?;
        if durability == Durability::Disk
            && let Err(error) = self.log.sync()
        {
            // After a failed sync the system may have dropped the written pages. The next sync would then succeed, although these
            // pages are lost.
            self.must_rewrite();
            return Err(error);
        }
        self.queue = Queue::default();
        Ok(())
    }

    pub(super) fn must_rewrite(&mut self) {
        self.rewrite = true;
        self.broken += 1;
    }
}

pub(super) fn record<'a>(message: &'a Message, key: &'a str) -> MessageRecord<'a> {
    MessageRecord {
        id: message.id,
        channels: message.channels.clone(),
        name: message.name.clone(),
        key,
        attributes: message.attributes.clone(),
        data: &message.data,
    }
}

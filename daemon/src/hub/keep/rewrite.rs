//! Rewrites the log: a base with the hub's whole history replaces all older segments.

use std::{collections::HashSet, mem, sync::Arc, time::Instant};

use comet_proto::{ChannelName, Message};
use tracing::debug;

use super::{Keeper, queue::Queue, writer::record};
use crate::{
    hub::{Hub, channel, keys, state::LostRange},
    store::{Base, Record, StoreError},
};

/// Number of keys that are copied while the hub is locked once.
const SLICE: usize = 4096;

impl Keeper {
    /// Rewrites the log from the hub's history.
    pub(super) fn rewrite(&self, hub: &Hub) -> Result<(), StoreError> {
        let begun = Instant::now();
        let (mut base, last, broken) = self.seal(hub)?;
        if let Err(error) = self.fill(hub, &mut base) {
            base.give_up();
            return Err(error);
        }
        let finished = base.finish()?;
        let mut writer = self.lock();
        let replaced = writer.log.replace(finished);
        writer.least = writer.log.bytes();
        writer.rewrites += 1;
        debug!(bytes = writer.least, took = ?begun.elapsed(), "the log was rewritten");
        if writer.broken == broken && mem::take(&mut writer.rewrite) {
            self.note(&mut writer, last, Ok(()));
        }
        replaced
    }

    /// Begins a new segment for further messages, and the base for all earlier messages.
    fn seal(&self, hub: &Hub) -> Result<(Base, u64, u64), StoreError> {
        let mut writer = self.lock();
        let (last, new) = hub.lock().take_unwritten();
        writer.queue.append(new);
        if !writer.rewrite
            && let Err(error) = writer.write(self.settings.durability)
            && !writer.rewrite
        {
            self.note(&mut writer, last, Err(error.clone()));
            return Err(error);
        }
        if writer.rewrite {
            writer.log.reopen()?;
        }
        let base = writer.log.seal(last)?;
        writer.queue = Queue::default();
        Ok((base, last, writer.broken))
    }

    /// Writes the base in slices, so that the hub is never locked for long and publishers need not wait.
    fn fill(&self, hub: &Hub, base: &mut Base) -> Result<(), StoreError> {
        base.put(&self.start)?;
        // A base cannot record that the logs of earlier runs were whole. So after the next start a client that asks with a time
        // between two earlier runs gets an unnecessary gap. The newest Start record implies that its log was whole.
        let is_said = |lost: &LostRange| match self.start {
            Record::Start { id, after, .. } => {
                lost.whole && (after, id) == (lost.after, lost.before)
            }
            _ => false,
        };
        let lost = hub.lock().lost().to_vec();
        for LostRange { after, before, .. } in lost.into_iter().filter(|lost| !is_said(lost)) {
            base.put(&Record::Lost { after, before })?;
        }
        // Before the channels, so that their messages are restored within these limits.
        for (channel, messages) in hub.lengths() {
            base.put(&Record::Length {
                id: 0,
                channel,
                messages: Some(messages),
            })?;
        }
        // The messages of several channels that were already written. Ids are never used again, so no entry gets outdated.
        let mut shared = HashSet::new();
        for map in 0..channel::MAPS {
            let channels = hub.lock().channels_in(map);
            for (name, trimmed, messages) in channels {
                put_channel(base, name, trimmed, &messages, &mut shared)?;
            }
        }
        let mut after = None;
        loop {
            let keys = hub.lock().keys_after(after, SLICE);
            let Some((_, place)) = keys.last() else {
                break;
            };
            after = Some(*place);
            for (key, (_, id)) in &keys {
                if let Some((channel, key)) = keys::split(key) {
                    let id = *id;
                    base.put(&Record::Key { channel, key, id })?;
                }
            }
        }
        // Written last, because a channel may have been forgotten before it was copied.
        let id = hub.lock().floor();
        base.put(&Record::Floor { id })
    }
}

/// Writes a channel with its messages. A message of several channels is written once, together with the first of these channels.
/// Each of the channels has a link to it.
fn put_channel(
    base: &mut Base,
    channel: ChannelName,
    trimmed: u64,
    messages: &[Arc<Message>],
    shared: &mut HashSet<u64>,
) -> Result<(), StoreError> {
    base.put(&Record::Channel {
        name: channel.clone(),
        trimmed,
    })?;
    for message in messages {
        let id = message.id;
        let record = record(message, "");
        if message.channels.len() == 1 {
            base.put(&Record::Message(record))?;
            continue;
        }
        if shared.insert(id) {
            base.put(&Record::Shared(record))?;
        }
        let channel = channel.clone();
        base.put(&Record::Link { id, channel })?;
    }
    Ok(())
}

//! The channels to which a Redis client has subscribed, and their messages.

use std::{rc::Rc, sync::Arc};

use comet_proto::{ChannelName, MAX_CHANNELS, Message};

use super::reply::{self, Resp};
use crate::{
    compat::port::PortClient,
    connection::{Conn, memory::Hold},
    hub::{
        Backlog, ChannelSet, READ_BYTES,
        subscriber::{Audience, Feed},
    },
    metrics::Metrics,
};

/// Bytes that count for each channel.
const CHANNEL: usize = 512;

/// The subscription of one connection.
pub(super) struct RedisSubscription {
    set: ChannelSet,
    /// The names that the client uses, each with its channel.
    names: Vec<(Box<[u8]>, ChannelName)>,
    memory: Hold,
    metrics: Arc<Metrics>,
}

/// Why a subscription has ended.
pub(super) enum SubscriptionEnd {
    /// Messages were removed from the history before the client has read them.
    Gap,
    /// A rule that was changed does not allow the client to read any more.
    Revoked(ChannelName),
}

impl RedisSubscription {
    pub(super) fn new(audience: &Rc<Audience>, conn: &Rc<Conn>, client: &PortClient) -> Self {
        let metrics = client.context.site().metrics.clone();
        metrics.subscribers.add(1);
        Self {
            set: ChannelSet::join(audience, conn.clone()),
            names: Vec::new(),
            memory: Hold::default(),
            metrics,
        }
    }

    /// The number of names.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Adds a name, from now on. Returns false if there would be too many.
    pub(super) fn add(&mut self, name: &[u8], channel: ChannelName) -> bool {
        if self.names.iter().any(|(known, _)| **known == *name) {
            return true;
        }
        if self.names.len() >= MAX_CHANNELS {
            return false;
        }
        self.set.add(std::slice::from_ref(&channel), None);
        self.names.push((name.into(), channel));
        self.memory.grow_to(self.names.len() * CHANNEL);
        true
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        let known = self.names.iter().position(|(known, _)| **known == *name);
        let Some(place) = known else {
            return;
        };
        let (_, channel) = self.names.remove(place);
        // The client may know the channel by another name, too.
        if !self.names.iter().any(|(_, other)| *other == channel) {
            self.set.remove(&channel);
        }
    }

    /// The names that the client uses.
    pub(super) fn names(&self) -> Vec<Box<[u8]>> {
        self.names.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Writes the next messages. `feed`: during a delivery.
    pub(super) fn read(
        &mut self,
        feed: Option<&mut Feed<'_>>,
        resp: Resp,
        out: &mut Vec<u8>,
    ) -> Result<(), SubscriptionEnd> {
        match feed {
            Some(feed) => {
                let shared = self.set.read_shared(feed);
                self.write(shared.backlog(), resp, out)
            }
            None => {
                let backlog = self.set.read(READ_BYTES);
                self.write(&backlog, resp, out)
            }
        }
    }

    /// Writes all messages that were published before this call, and are not written yet. Afterwards the connection must end.
    pub(super) fn read_rest(
        &mut self,
        audience: &Audience,
        resp: Resp,
        out: &mut Vec<u8>,
    ) -> Result<(), SubscriptionEnd> {
        self.read(None, resp, out)?;
        // A message that was published just now may not have marked its channel yet, so the channels are read without marks.
        let rest = audience.hub().since(self.set.channels(), self.set.cursor());
        self.write(&rest, resp, out)
    }

    fn write(
        &self,
        backlog: &Backlog,
        resp: Resp,
        out: &mut Vec<u8>,
    ) -> Result<(), SubscriptionEnd> {
        // After a gap nothing is written, because the client could not tell where something is missing.
        if backlog.gap {
            return Err(SubscriptionEnd::Gap);
        }
        for message in &backlog.messages {
            self.write_message(message, resp, out);
        }
        Ok(())
    }

    /// Writes the message once for each name of its channels, as Redis does.
    fn write_message(&self, message: &Message, resp: Resp, out: &mut Vec<u8>) {
        for (name, _) in self
            .names
            .iter()
            .filter(|(_, channel)| message.channels.contains(channel))
        {
            resp.push(3, out);
            reply::bulk("message", out);
            reply::bulk(name, out);
            reply::bulk(&message.data, out);
            self.metrics.delivered.add(1);
        }
    }

    /// A channel that the client may not read any more.
    pub(super) fn revoked(&self, client: &PortClient, has_key: bool) -> Option<ChannelName> {
        let mut channels = self.set.channels().iter();
        channels
            .find(|channel| !client.may_read(has_key, channel))
            .cloned()
    }
}

impl Drop for RedisSubscription {
    fn drop(&mut self) {
        self.metrics.subscribers.sub(1);
    }
}

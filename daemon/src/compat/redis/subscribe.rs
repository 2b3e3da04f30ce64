//! The commands that subscribe.

use std::rc::Rc;

use comet_proto::MAX_CHANNELS;

use super::{Arguments, RedisClient, RedisSubscription, reply, wrong_number};
use crate::connection::Conn;

impl RedisClient {
    /// `SUBSCRIBE`: messages that are published from now on. The reply has a part for each channel.
    pub(super) fn subscribe(&mut self, conn: &Rc<Conn>, names: &Arguments<'_>, out: &mut Vec<u8>) {
        if names.is_empty() {
            return reply::error(&wrong_number("subscribe"), out);
        }
        for name in names {
            if let Err(reason) = self.subscribe_one(conn, name) {
                return reply::error(&reason, out);
            }
            self.write_change("subscribe", Some(name), out);
        }
    }

    fn subscribe_one(&mut self, conn: &Rc<Conn>, name: &[u8]) -> Result<(), String> {
        let channel = self.channel(name).ok_or("ERR a channel needs a name")?;
        if !self.client.may_read(self.has_key, &channel) {
            let reason = format!(
                "NOPERM {channel} may not be read without a key; read under [[channel]] decides this"
            );
            return Err(reason);
        }
        let audience = &self.client.context.audience;
        let subscription = self
            .subscription
            .get_or_insert_with(|| Box::new(RedisSubscription::new(audience, conn, &self.client)));
        match subscription.add(name, channel) {
            true => Ok(()),
            false => Err(format!(
                "ERR limit of {MAX_CHANNELS} channels for each connection"
            )),
        }
    }

    /// The other commands about subscriptions.
    pub(super) fn subscribe_command(
        &mut self,
        command: &str,
        arguments: &Arguments<'_>,
        out: &mut Vec<u8>,
    ) {
        match (command, arguments) {
            ("UNSUBSCRIBE", []) => self.unsubscribe_all(out),
            ("UNSUBSCRIBE", names) => {
                for name in names {
                    self.unsubscribe(name, out);
                }
            }
            ("PUNSUBSCRIBE", []) => self.write_change("punsubscribe", None, out),
            ("PUNSUBSCRIBE", patterns) => {
                for pattern in patterns {
                    self.write_change("punsubscribe", Some(pattern), out);
                }
            }
            ("PUBSUB", [what, names @ ..]) => self.pubsub(what, names, out),
            _ => reply::error(
                "ERR patterns are not supported: SUBSCRIBE to each channel",
                out,
            ),
        }
    }

    fn unsubscribe_all(&mut self, out: &mut Vec<u8>) {
        let names = self
            .subscription
            .as_ref()
            .map(|subscription| subscription.names());
        let names = names.unwrap_or_default();
        if names.is_empty() {
            self.write_change("unsubscribe", None, out);
        }
        for name in names {
            self.unsubscribe(&name, out);
        }
    }

    fn unsubscribe(&mut self, name: &[u8], out: &mut Vec<u8>) {
        if let Some(subscription) = &mut self.subscription {
            subscription.remove(name);
        }
        self.subscription
            .take_if(|subscription| subscription.len() == 0);
        self.write_change("unsubscribe", Some(name), out);
    }

    /// The reply for one channel, with the number of channels.
    fn write_change(&self, command: &str, name: Option<&[u8]>, out: &mut Vec<u8>) {
        self.resp.push(3, out);
        reply::bulk(command, out);
        match name {
            Some(name) => reply::bulk(name, out),
            None => self.resp.null(out),
        }
        let count = self
            .subscription
            .as_ref()
            .map_or(0, |subscription| subscription.len());
        reply::integer(count as u64, out);
    }

    /// `PUBSUB NUMSUB NAME…` and `PUBSUB NUMPAT`.
    fn pubsub(&self, what: &[u8], names: &Arguments<'_>, out: &mut Vec<u8>) {
        match &*what.to_ascii_uppercase() {
            b"NUMPAT" => reply::integer(0, out),
            b"NUMSUB" => {
                let hub = self.client.context.audience.hub();
                self.resp.map(names.len(), out);
                for name in names {
                    let channel = self.channel(name);
                    let facts = channel.and_then(|channel| hub.channel_facts(&channel));
                    reply::bulk(name, out);
                    reply::integer(facts.map_or(0, |facts| facts.subscribers as u64), out);
                }
            }
            _ => reply::error("ERR PUBSUB knows NUMSUB and NUMPAT", out),
        }
    }
}

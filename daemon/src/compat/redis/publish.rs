//! The commands that publish: `PUBLISH`, and the one script of `EVAL`.

use std::borrow::Cow;

use comet_proto::{ChannelName, ChannelNames, EventName};

use super::{Arguments, RedisClient, reply, wrong_number};
use crate::{
    compat::{
        names,
        port::{PublishRefusal, Replies},
    },
    hub::NewMessage,
};

/// The refusal of other scripts.
const NO_SCRIPTS: &str = "ERR this is Comet, which runs no scripts but the one that publishes to several channels: \
     for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end";

impl RedisClient {
    pub(super) fn publish_command(
        &self,
        name: &str,
        arguments: &Arguments<'_>,
        replies: &mut Replies,
    ) {
        let scripts = &self.shared.scripts;
        match (name, arguments) {
            ("PUBLISH", [channel, data]) => self.publish_one(channel, data, replies),
            ("EVAL", [script, keys, data, channels @ ..]) if **keys == *b"0" => {
                match scripts.load(script) {
                    Some(_) => self.publish_to_all(channels, data, replies),
                    None => reply::error(NO_SCRIPTS, &mut replies.out),
                }
            }
            ("EVALSHA", [digits, keys, data, channels @ ..]) if **keys == *b"0" => {
                match scripts.has(digits) {
                    true => self.publish_to_all(channels, data, replies),
                    false => no_script(&mut replies.out),
                }
            }
            ("EVALSHA", [_, _, ..]) => no_script(&mut replies.out),
            ("EVAL", [_, _, ..]) => reply::error(NO_SCRIPTS, &mut replies.out),
            ("SCRIPT", [command, arguments @ ..]) => {
                self.script_command(command, arguments, &mut replies.out);
            }
            _ => reply::error(&wrong_number(name), &mut replies.out),
        }
    }

    fn script_command(&self, command: &[u8], arguments: &Arguments<'_>, out: &mut Vec<u8>) {
        let scripts = &self.shared.scripts;
        match (&*command.to_ascii_uppercase(), arguments) {
            (b"LOAD", [script]) => match scripts.load(script) {
                Some(digits) => reply::bulk(digits, out),
                None => reply::error(NO_SCRIPTS, out),
            },
            (b"EXISTS", digits) => {
                reply::array(digits.len(), out);
                for digits in digits {
                    reply::integer(scripts.has(digits).into(), out);
                }
            }
            (b"FLUSH", _) => {
                scripts.flush();
                reply::simple("OK", out);
            }
            _ => reply::error("ERR SCRIPT knows LOAD, EXISTS and FLUSH", out),
        }
    }

    /// `PUBLISH`. The reply is the number of subscribers that wait for the message.
    fn publish_one(&self, name: &[u8], data: &[u8], replies: &mut Replies) {
        let Some(channel) = self.channel(name) else {
            return replies.error("a channel needs a name");
        };
        let facts = self.client.context.audience.hub().channel_facts(&channel);
        let subscribers = facts.map_or(0, |facts| facts.subscribers);
        let reply = format!(":{subscribers}\r\n").into_bytes();
        let named = (&channel, name);
        self.publish(named, channel.clone().into(), data, reply, replies);
    }

    /// The script. A client that has subscribed to several of the channels gets the message once from Comet, and once for each
    /// channel on this port.
    fn publish_to_all(&self, names: &Arguments<'_>, data: &[u8], replies: &mut Replies) {
        let channels = names.iter().map(|name| self.channel(name));
        let Some(channels) = channels.collect::<Option<Vec<ChannelName>>>() else {
            return replies.error("a channel needs a name");
        };
        let mut null = Vec::new();
        self.resp.null(&mut null);
        match ChannelNames::parse(channels.iter().map(ChannelName::as_str)) {
            Ok(all) => {
                let hashed = channels.iter().position(names::is_hashed).unwrap_or(0);
                let named = (&channels[hashed], &*names[hashed]);
                self.publish(named, all, data, null, replies);
            }
            Err(_) if channels.is_empty() => replies.out.extend(null),
            Err(error) => replies.error(&error.to_string()),
        }
    }

    /// Publishes a message. `named`: a channel and its name, which the message must tell if the channel is a hash.
    fn publish(
        &self,
        (named, name): (&ChannelName, &[u8]),
        channels: ChannelNames,
        data: &[u8],
        reply: Vec<u8>,
        replies: &mut Replies,
    ) {
        let published = self.client.publish(
            self.has_key,
            NewMessage {
                channels,
                name: EventName::default(),
                data: data.into(),
                attributes: names::attributes_of(named, name),
                key: None,
            },
        );
        match published {
            Ok(receipt) => replies.published(receipt, Cow::Owned(reply)),
            Err(reason @ PublishRefusal::Closed(_)) => {
                reply::error(&format!("NOPERM {reason}"), &mut replies.out);
            }
            Err(reason) => replies.error(&reason.to_string()),
        }
    }
}

fn no_script(out: &mut Vec<u8>) {
    reply::error("NOSCRIPT No matching script. Please use EVAL.", out);
}

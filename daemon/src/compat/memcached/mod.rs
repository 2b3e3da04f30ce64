//! memcached's text protocol on a port of its own. PHP publishes with `set`, `touch` and `incr`, and asks with `get` for
//! the time of a channel's last message.

pub(crate) mod request;
mod times;

use std::{borrow::Cow, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use comet_proto::{ChannelName, Cursor, EventName};

use super::{
    names,
    port::{
        CommandConnection, CommandOutcome, Commands, Port, PortClient, PortContext, PortDoor,
        Replies,
    },
};
use crate::{
    config::{MemcachedConfig, Secret},
    connection::Conn,
    http::date::unix_time,
    hub::NewMessage,
    worker::Door,
};
use request::{MAX_VALUE, Parsed, Request, parse};
use times::MessageTimes;

/// The version that clients see: that of the memcached with this protocol, because clients decide by the version what they
/// may use, and ours after it.
const VERSION: &str = concat!("1.6.0-comet-", env!("CARGO_PKG_VERSION"));

/// The reply to a request of the binary protocol.
const NO_BINARY: &str = "the binary protocol is not supported; use the text protocol (in PHP: OPT_BINARY_PROTOCOL false)";

/// The port of memcached's protocol.
pub(crate) struct Memcached {
    config: MemcachedConfig,
    times: Arc<MessageTimes>,
    started: Instant,
}

impl Memcached {
    pub(crate) fn new(config: &MemcachedConfig) -> Self {
        Self {
            config: config.clone(),
            times: Arc::default(),
            started: Instant::now(),
        }
    }
}

impl Port for Memcached {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn listen(&self) -> SocketAddr {
        self.config.listen
    }

    fn door(&self, context: &Rc<PortContext>) -> Box<dyn Door<Conn>> {
        let (key, times, started) = (self.config.key.clone(), self.times.clone(), self.started);
        let refusal = |reason: &str| error_line(reason).into_bytes();
        let start = move |client| {
            Box::new(CommandConnection::new(MemcachedClient {
                client,
                has_key: false,
                key: key.clone(),
                times: times.clone(),
                started,
            })) as _
        };
        let limits = self.config.limits();
        Box::new(PortDoor::new(self.name(), context, limits, refusal, start))
    }
}

fn error_line(reason: &str) -> String {
    format!("SERVER_ERROR {reason}\r\n")
}

/// One client.
struct MemcachedClient {
    client: PortClient,
    /// The key of the port, and whether the client has shown it.
    key: Option<Secret>,
    has_key: bool,
    times: Arc<MessageTimes>,
    started: Instant,
}

impl Commands for MemcachedClient {
    fn run(&mut self, _: &Rc<Conn>, bytes: &[u8], replies: &mut Replies) -> CommandOutcome {
        let (request, length) = match parse(bytes) {
            Parsed::Incomplete => return CommandOutcome::Incomplete,
            Parsed::Request(Request::Quit, _) => return CommandOutcome::End,
            Parsed::Request(request, length) => (request, length),
            Parsed::Binary => {
                replies.out.extend(binary_error(bytes));
                return CommandOutcome::End;
            }
            Parsed::Http => {
                replies.error("this port speaks memcached's protocol, not HTTP");
                return CommandOutcome::End;
            }
            Parsed::TooLong => {
                replies
                    .out
                    .extend_from_slice(b"CLIENT_ERROR line too long\r\n");
                return CommandOutcome::End;
            }
        };
        match self.needs_key() {
            true => self.authenticate(&request, replies),
            false => self.serve(request, replies),
        }
        CommandOutcome::Done(length)
    }

    fn write_error(reason: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(error_line(reason).as_bytes());
    }

    fn client(&self) -> &PortClient {
        &self.client
    }

    fn needs_key(&self) -> bool {
        self.key.is_some() && !self.has_key
    }
}

impl MemcachedClient {
    /// Serves a client that has not shown the key. The client shows it as for memcached's option `-Y`: by a `set` of any key to
    /// `USER PASSWORD`. The user does not matter.
    fn authenticate(&mut self, request: &Request<'_>, replies: &mut Replies) {
        let reply: &[u8] = match request {
            Request::Set { data, .. } if self.shows_key(data) => {
                self.has_key = true;
                b"STORED\r\n"
            }
            Request::Set { .. } => b"CLIENT_ERROR authentication failure\r\n",
            _ => b"CLIENT_ERROR unauthenticated: set any key to \"USER PASSWORD\" first\r\n",
        };
        replies.out.extend_from_slice(reply);
    }

    fn shows_key(&self, data: &[u8]) -> bool {
        let password = data.splitn(2, |byte| *byte == b' ').nth(1);
        self.key
            .as_ref()
            .zip(password)
            .is_some_and(|(key, password)| key.is(password))
    }

    fn serve(&self, request: Request<'_>, replies: &mut Replies) {
        match request {
            Request::Set {
                key,
                flags,
                data,
                quiet,
            } => self.set(key, flags, data, quiet, replies),
            Request::Touch { key, quiet } => {
                self.publish(key, b"", quiet, replies, |_| {
                    b"TOUCHED\r\n".as_slice().into()
                });
            }
            Request::Count { key, quiet } => self.publish(key, b"", quiet, replies, |value| {
                format!("{value}\r\n").into_bytes().into()
            }),
            Request::Get { keys, cas } => self.get(&keys, cas, replies),
            Request::Stats { has_topic } => self.stats(has_topic, replies),
            Request::Version => {
                replies
                    .out
                    .extend_from_slice(format!("VERSION {VERSION}\r\n").as_bytes());
            }
            Request::Verbosity { quiet: false } => replies.out.extend_from_slice(b"OK\r\n"),
            Request::Refused {
                reply,
                quiet: false,
            } => {
                replies
                    .out
                    .extend_from_slice(format!("{reply}\r\n").as_bytes());
            }
            Request::Verbosity { .. } | Request::Refused { .. } | Request::Quit => {}
        }
    }

    fn set(&self, key: &[u8], flags: u32, data: &[u8], quiet: bool, replies: &mut Replies) {
        if self.key.is_some() && self.shows_key(data) {
            // The client shows the key once more, and the key must not be published.
            replies.out.extend_from_slice(b"STORED\r\n");
        } else if is_compressed(flags, data) {
            replies.error("the value is compressed, so pages could not read it; switch compression off (in PHP: OPT_COMPRESSION false)");
        } else {
            self.publish(key, data, quiet, replies, |_| {
                b"STORED\r\n".as_slice().into()
            });
        }
    }

    /// Publishes a message. `reply` turns the new value of the channel into the reply.
    fn publish(
        &self,
        key: &[u8],
        data: &[u8],
        quiet: bool,
        replies: &mut Replies,
        reply: impl FnOnce(u64) -> Cow<'static, [u8]>,
    ) {
        let channel = channel(key);
        let published = self.client.publish(
            self.has_key,
            NewMessage {
                channels: channel.clone().into(),
                name: EventName::default(),
                data: data.into(),
                attributes: names::attributes_of(&channel, key),
                key: None,
            },
        );
        match published {
            Ok(receipt) if quiet => _ = receipt.keep_soon(),
            Ok(receipt) => {
                let value = self.value(&channel, receipt.id().unwrap_or_default());
                replies.published(receipt, reply(value));
            }
            Err(_) if quiet => {}
            Err(reason) => replies.error(&reason.to_string()),
        }
    }

    fn get(&self, keys: &[&[u8]], cas: bool, replies: &mut Replies) {
        let channels: Vec<ChannelName> = keys.iter().map(|key| channel(key)).collect();
        let may_read = |channel: &&ChannelName| self.client.may_read(self.has_key, channel);
        if let Some(closed) = channels.iter().find(|channel| !may_read(channel)) {
            let reason = format!(
                "{closed} may not be read without a key; read under [[channel]] decides this"
            );
            return replies.error(&reason);
        }
        let hub = self.client.context.audience.hub();
        for (key, channel) in keys.iter().zip(&channels) {
            let facts = hub.channel_facts(channel);
            let Some(Cursor(id)) = facts.and_then(|facts| facts.newest) else {
                continue;
            };
            let value = self.value(channel, id).to_string();
            let out = &mut replies.out;
            out.extend_from_slice(b"VALUE ");
            out.extend_from_slice(key);
            out.extend_from_slice(format!(" 0 {}", value.len()).as_bytes());
            if cas {
                out.extend_from_slice(format!(" {id}").as_bytes());
            }
            out.extend_from_slice(format!("\r\n{value}\r\n").as_bytes());
        }
        replies.out.extend_from_slice(b"END\r\n");
    }

    fn value(&self, channel: &ChannelName, id: u64) -> u64 {
        let now = self.client.context.audience.hub().last().0 / 1_000_000;
        self.times.of(channel, id, now)
    }

    fn stats(&self, has_topic: bool, replies: &mut Replies) {
        let metrics = &self.client.metrics;
        let status = self.client.context.audience.hub().status();
        let figures = [
            ("pid", u64::from(std::process::id())),
            ("uptime", self.started.elapsed().as_secs()),
            ("time", unix_time().as_secs()),
            ("pointer_size", u64::from(usize::BITS)),
            ("curr_connections", metrics.connections.get()),
            ("rejected_connections", metrics.refused.get()),
            ("cmd_set", metrics.published.get()),
            ("curr_items", status.channels as u64),
            ("bytes", status.bytes as u64),
            ("item_size_max", MAX_VALUE as u64),
        ];
        if !has_topic {
            replies
                .out
                .extend_from_slice(format!("STAT version {VERSION}\r\n").as_bytes());
            for (name, value) in figures {
                replies
                    .out
                    .extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
            }
        }
        replies.out.extend_from_slice(b"END\r\n");
    }
}

fn channel(key: &[u8]) -> ChannelName {
    names::channel_of(key).expect("a key is not empty")
}

/// Whether PHP's extensions have compressed the value. memcached sets the flag 16, memcache the flag 2 and writes a zlib
/// stream.
fn is_compressed(flags: u32, data: &[u8]) -> bool {
    flags & 16 != 0 || flags == 2 && data.starts_with(b"\x78")
}

/// The binary protocol's answer to a request: an unknown command, with a text.
fn binary_error(request: &[u8]) -> Vec<u8> {
    let opcode = request.get(1).copied().unwrap_or_default();
    let mut answer = vec![0x81, opcode, 0, 0, 0, 0, 0, 0x81];
    answer.extend_from_slice(&(NO_BINARY.len() as u32).to_be_bytes());
    answer.extend_from_slice(request.get(12..16).unwrap_or(&[0; 4])); // the request's number
    answer.extend_from_slice(&[0; 8]);
    answer.extend_from_slice(NO_BINARY.as_bytes());
    answer
}

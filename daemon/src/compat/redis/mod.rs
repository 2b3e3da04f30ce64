//! Redis' protocol on a port of its own: clients of Redis publish and subscribe to channels. There are no keys and no data.

mod connection;
mod publish;
pub(crate) mod reply;
pub(crate) mod request;
mod script;
mod subscribe;
mod subscription;
mod transaction;

use std::{
    borrow::Cow,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use comet_proto::ChannelName;

use super::{
    names,
    port::{
        CommandConnection, CommandOutcome, Commands, MessageRead, Port, PortClient, PortContext,
        PortDoor, Replies,
    },
};
use crate::{config::RedisConfig, connection::Conn, worker::Door};
use reply::Resp;
use request::{Parsed, parse};
use script::LoadedScripts;
use subscription::{RedisSubscription, SubscriptionEnd};
use transaction::Transaction;

/// The port of Redis' protocol.
pub(crate) struct Redis(Arc<RedisShared>);

/// What all connections share.
struct RedisShared {
    config: RedisConfig,
    scripts: LoadedScripts,
    started: Instant,
    last_id: AtomicU64,
}

impl Redis {
    pub(crate) fn new(config: &RedisConfig) -> Self {
        Self(Arc::new(RedisShared {
            config: config.clone(),
            scripts: LoadedScripts::default(),
            started: Instant::now(),
            last_id: AtomicU64::new(0),
        }))
    }
}

impl Port for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn listen(&self) -> SocketAddr {
        self.0.config.listen
    }

    fn door(&self, context: &Rc<PortContext>) -> Box<dyn Door<Conn>> {
        let (shared, limits) = (self.0.clone(), self.0.config.limits());
        let start =
            move |client| Box::new(CommandConnection::new(RedisClient::new(client, &shared))) as _;
        let refusal = |reason: &str| {
            let mut out = Vec::new();
            RedisClient::write_error(reason, &mut out);
            out
        };
        Box::new(PortDoor::new(self.name(), context, limits, refusal, start))
    }
}

/// One client.
struct RedisClient {
    client: PortClient,
    shared: Arc<RedisShared>,
    id: u64,
    /// The name that the client has given to its connection.
    name: Box<[u8]>,
    resp: Resp,
    /// The client has shown the key of the port.
    has_key: bool,
    subscription: Option<Box<RedisSubscription>>,
    transaction: Option<Box<Transaction>>,
    /// A channel of the subscription that may not be read any more.
    revoked: Option<ChannelName>,
}

/// The words of a command, without its name.
type Arguments<'a> = [Cow<'a, [u8]>];

impl RedisClient {
    fn new(client: PortClient, shared: &Arc<RedisShared>) -> Self {
        Self {
            client,
            id: shared.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            shared: shared.clone(),
            name: Box::default(),
            resp: Resp::Two,
            has_key: false,
            subscription: None,
            transaction: None,
            revoked: None,
        }
    }

    /// Checks whether the client may send this command now, and runs it. Returns false if the connection must end.
    fn command(&mut self, conn: &Rc<Conn>, words: &[Cow<'_, [u8]>], replies: &mut Replies) -> bool {
        let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
        let out = &mut replies.out;
        match &*name {
            "QUIT" => {
                reply::simple("OK", out);
                return false;
            }
            "AUTH" | "HELLO" | "RESET" => self.connection_command(&name, &words[1..], out),
            _ if self.needs_key() => reply::error("NOAUTH Authentication required.", out),
            _ if self.is_only_subscribed() && !is_for_subscribers(&name) => {
                let name = shown(&name).to_ascii_lowercase();
                let reason = format!(
                    "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                     allowed in this context"
                );
                reply::error(&reason, out);
            }
            "MULTI" | "EXEC" | "DISCARD" => self.transaction_command(&name, replies),
            _ if self.transaction.is_some() => self.queue(&name, words, replies),
            "SUBSCRIBE" => self.subscribe(conn, &words[1..], out),
            _ => self.run_one(&name, &words[1..], replies),
        }
        true
    }

    /// Runs a command that may also be part of a transaction.
    fn run_one(&mut self, name: &str, arguments: &Arguments<'_>, replies: &mut Replies) {
        let out = &mut replies.out;
        match name {
            "PUBLISH" | "EVAL" | "EVALSHA" | "SCRIPT" => {
                self.publish_command(name, arguments, replies)
            }
            "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "PSUBSCRIBE" | "PUBSUB" => {
                self.subscribe_command(name, arguments, out);
            }
            _ if connection::COMMANDS.contains(&name) => {
                self.connection_command(name, arguments, out)
            }
            _ => reply::error(&unknown(name), out),
        }
    }

    /// Whether the connection can only be used to subscribe: in RESP2 replies could not be told from messages.
    fn is_only_subscribed(&self) -> bool {
        self.subscription.is_some() && self.resp == Resp::Two
    }

    /// The channel with this name. `None`: the name is empty.
    fn channel(&self, name: &[u8]) -> Option<ChannelName> {
        names::channel_of(
            name.strip_prefix(self.shared.config.prefix.as_bytes())
                .unwrap_or(name),
        )
    }
}

impl Commands for RedisClient {
    fn run(&mut self, conn: &Rc<Conn>, bytes: &[u8], replies: &mut Replies) -> CommandOutcome {
        let (words, length) = match parse(bytes) {
            Parsed::Incomplete => return CommandOutcome::Incomplete,
            Parsed::Broken(reason) => {
                reply::error(&format!("ERR Protocol error: {reason}"), &mut replies.out);
                return CommandOutcome::End;
            }
            Parsed::Command(words, length) => (words, length),
        };
        // The body of a request that a web page sends here could contain commands.
        if words.last().is_some_and(|last| last.starts_with(b"HTTP/1")) {
            reply::error(
                "ERR this port speaks Redis' protocol, not HTTP",
                &mut replies.out,
            );
            return CommandOutcome::End;
        }
        match words.is_empty() || self.command(conn, &words, replies) {
            true => CommandOutcome::Done(length),
            false => CommandOutcome::End,
        }
    }

    fn write_error(reason: &str, out: &mut Vec<u8>) {
        reply::error(&format!("ERR {reason}"), out);
    }

    fn client(&self) -> &PortClient {
        &self.client
    }

    fn needs_key(&self) -> bool {
        self.shared.config.key.is_some() && !self.has_key
    }

    fn is_subscribed(&self) -> bool {
        self.subscription.is_some()
    }

    fn read_messages(&mut self, read: MessageRead<'_, '_>, out: &mut Vec<u8>) -> bool {
        let Some(subscription) = &mut self.subscription else {
            return true;
        };
        let audience = &self.client.context.audience;
        let read = match (self.revoked.take(), read) {
            (Some(channel), _) => Err(SubscriptionEnd::Revoked(channel)),
            (None, MessageRead::Delivery(feed)) => subscription.read(Some(feed), self.resp, out),
            (None, MessageRead::Next) => subscription.read(None, self.resp, out),
            (None, MessageRead::Rest) => subscription.read_rest(audience, self.resp, out),
        };
        let Err(end) = read else {
            return true;
        };
        let reason = match end {
            SubscriptionEnd::Gap => {
                "ERR messages were missed, because this client has read too slowly; load the state again and subscribe again"
                    .to_owned()
            }
            SubscriptionEnd::Revoked(channel) => {
                format!("NOPERM {channel} may not be read any more without a key; read under [[channel]] decides this")
            }
        };
        reply::error(&reason, out);
        false
    }

    fn settings_changed(&mut self) -> bool {
        let Some(subscription) = &self.subscription else {
            return false;
        };
        self.revoked = subscription.revoked(&self.client, self.has_key);
        self.revoked.is_some()
    }
}

fn is_for_subscribers(name: &str) -> bool {
    matches!(
        name,
        "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" | "PING"
    )
}

/// The name of a command for an error: not too long, and without control characters.
fn shown(name: &str) -> String {
    let shown = name.chars().take(64);
    shown
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn unknown(name: &str) -> String {
    format!(
        "ERR unknown command '{}': this is Comet, which publishes and subscribes, and stores no keys",
        shown(name)
    )
}

/// The error for a wrong number of arguments.
fn wrong_number(name: &str) -> String {
    let name = shown(name).to_ascii_lowercase();
    format!("ERR wrong number of arguments for '{name}' command")
}

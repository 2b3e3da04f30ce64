//! `[compat]`: the settings of other servers' protocols. Each new protocol has a table of its own, `[compat.NAME]`, and is
//! off while that table is missing.

mod comet_server;
mod memcached;
mod nchan;
mod port;
mod push_stream;
mod pusher;
mod realplexor;
mod redis;

use comet_proto::ChannelName;
use serde::Deserialize;

use super::{keep, value};
pub use comet_server::CometServerConfig;
pub use memcached::MemcachedConfig;
pub use nchan::{FirstMessage, NchanConfig};
pub use port::{PortAddress, PortError, PortLimits};
pub use push_stream::PushStreamConfig;
pub use pusher::{PusherApp, PusherConfig};
pub use realplexor::RealplexorConfig;
pub use redis::RedisConfig;

/// `[compat]`: the paths of the endpoints of older servers. An empty path switches an endpoint off.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [compat]")]
pub struct CompatConfig {
    /// `/comet.php` of NovComet.
    #[serde(deserialize_with = "value::url_path")]
    pub novcomet: String,
    /// `/chat.php` and `/clock.php` of the zeitoun demos.
    #[serde(deserialize_with = "value::url_path")]
    pub zeitoun_chat: String,
    #[serde(deserialize_with = "value::url_path")]
    pub zeitoun_clock: String,
    /// The channel of the chat.
    #[serde(deserialize_with = "value::channel")]
    pub zeitoun_channel: ChannelName,
    pub comet_server: Option<CometServerConfig>,
    pub memcached: Option<MemcachedConfig>,
    pub realplexor: Option<RealplexorConfig>,
    pub redis: Option<RedisConfig>,
    pub push_stream: Option<PushStreamConfig>,
    pub nchan: Option<NchanConfig>,
    pub pusher: Option<PusherConfig>,
}

impl CompatConfig {
    /// The addresses of all protocols that have a port of their own.
    #[must_use]
    pub fn ports(&self) -> Vec<PortAddress> {
        let mut ports = Vec::new();
        ports.extend(self.comet_server.as_ref().and_then(CometServerConfig::port));
        ports.extend(self.memcached.as_ref().map(MemcachedConfig::port));
        ports.extend(self.realplexor.iter().flat_map(RealplexorConfig::ports));
        ports.extend(self.redis.as_ref().map(RedisConfig::port));
        ports
    }

    /// Copies from `running` the tables that need a restart. Returns each table's key, and whether the table differs.
    pub(super) fn keep_fixed(&mut self, running: &Self) -> Vec<(&'static str, bool)> {
        let comet_server = keep(&mut self.comet_server, &running.comet_server);
        let memcached = keep(&mut self.memcached, &running.memcached);
        let realplexor = keep(&mut self.realplexor, &running.realplexor);
        let redis = keep(&mut self.redis, &running.redis);
        // Subscribers with the same templates share the bytes of a message.
        let push_stream = keep(&mut self.push_stream, &running.push_stream);
        vec![
            ("compat.comet_server", comet_server),
            ("compat.memcached", memcached),
            ("compat.realplexor", realplexor),
            ("compat.redis", redis),
            ("compat.push_stream", push_stream),
        ]
    }
}

impl Default for CompatConfig {
    fn default() -> Self {
        Self {
            novcomet: "/comet.php".into(),
            zeitoun_chat: "/chat.php".into(),
            zeitoun_clock: "/clock.php".into(),
            zeitoun_channel: ChannelName::parse("chat").expect("a channel name"),
            comet_server: None,
            memcached: None,
            realplexor: None,
            redis: None,
            push_stream: None,
            nchan: None,
            pusher: None,
        }
    }
}

//! `[compat]`: the settings of other servers' protocols. Each new protocol has a table of its own, `[compat.NAME]`, and is
//! off while that table is missing.

use comet_proto::ChannelName;
use serde::Deserialize;

use super::value;

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
}

impl Default for CompatConfig {
    fn default() -> Self {
        Self {
            novcomet: "/comet.php".into(),
            zeitoun_chat: "/chat.php".into(),
            zeitoun_clock: "/clock.php".into(),
            zeitoun_channel: ChannelName::parse("chat").expect("a channel name"),
        }
    }
}

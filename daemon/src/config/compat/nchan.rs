//! `[compat.nchan]`

use std::time::Duration;

use serde::Deserialize;

use crate::config::value;

/// `[compat.nchan]`: the paths of nchan's publisher and subscriber. The channel's name follows each path.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [compat.nchan]")]
pub struct NchanConfig {
    /// An empty path switches the publisher off.
    #[serde(deserialize_with = "value::url_prefix")]
    pub publish: String,
    /// An empty path switches the subscriber off.
    #[serde(deserialize_with = "value::url_prefix")]
    pub subscribe: String,
    /// How long a long-poll waits; `None`: without a limit. nchan's `nchan_subscriber_timeout`.
    #[serde(deserialize_with = "value::some_duration::<_, 1000>")]
    pub timeout: Option<Duration>,
    /// A poll is answered at once, also without a message. nchan's `nchan_subscriber interval-poll`.
    pub interval_poll: bool,
    pub first: FirstMessage,
}

/// What a subscriber without a cursor gets first. nchan's `nchan_subscriber_first_message`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstMessage {
    /// The oldest message that is kept.
    #[default]
    Oldest,
    /// The next message.
    Newest,
}

impl Default for NchanConfig {
    fn default() -> Self {
        Self {
            publish: "/nchan/pub/".into(),
            subscribe: "/nchan/sub/".into(),
            timeout: None,
            interval_poll: false,
            first: FirstMessage::default(),
        }
    }
}

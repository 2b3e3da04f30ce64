//! `[compat.push_stream]`

use std::time::Duration;

use serde::Deserialize;

use crate::config::value;

/// `[compat.push_stream]`: paths and templates. An empty path switches its part off.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table [compat.push_stream]"
)]
pub struct PushStreamConfig {
    #[serde(deserialize_with = "value::url_path")]
    pub publish: String,
    /// The path of streams into an iframe.
    #[serde(deserialize_with = "value::url_path")]
    pub subscribe: String,
    /// The path of event streams.
    #[serde(deserialize_with = "value::url_path")]
    pub events: String,
    #[serde(deserialize_with = "value::url_path")]
    pub long_poll: String,
    #[serde(deserialize_with = "value::url_path")]
    pub websocket: String,
    #[serde(deserialize_with = "value::url_path")]
    pub statistics: String,
    /// Whether `DELETE` at the publisher's path deletes channels.
    pub delete: bool,
    /// Whether the clients of WebSockets publish what they send.
    pub websocket_publish: bool,
    /// The longest wait of a long-poll.
    #[serde(deserialize_with = "value::duration::<_, 1000>")]
    pub wait: Duration,
    /// The template of a message, for all modes but streaming.
    pub message: String,
    /// Whether pages decode the text of a message with `decodeURIComponent`.
    pub readers_decode: bool,
    /// The templates of a stream: its beginning, each message, and its end.
    pub stream_header: String,
    pub stream_message: String,
    pub stream_footer: String,
}

/// What pushstream.js parses.
const MESSAGE: &str = r#"{"id":~id~,"channel":"~channel~","text":"~text~","tag":"~tag~","time":"~time~","eventid":"~event-id~"}"#;

const STREAM_MESSAGE: &str =
    "<script>p(~id~,'~channel~','~text~','~event-id~','~time~','~tag~');</script>\n";

/// The beginning of a document in an iframe of a page with pushstream.js. The page and the iframe set the same domain, so that
/// they can call each other if they come from different hosts of one domain. pushstream.js does not send the number of its first
/// instance, 0, and then does not find it.
const STREAM_HEADER: &str = r"<!DOCTYPE html>
<html><head><meta charset='utf-8'>
<script>
try {
  var host = location.hostname, parts = host.split('.');
  var keep = Math.max(parts.length - 1, /(\w{4,}\.\w{2}|\.\w{3,})$/.test(host) ? 2 : 3);
  document.domain = /^(\d{1,3}\.){3}\d{1,3}$/.test(host) ? host : parts.slice(-keep).join('.');
} catch (e) {}
parent.PushStream.register(this);
if (!window.p) parent.PushStreamManager[0].wrapper.register(this);
</script>
</head>
<body>
";

impl Default for PushStreamConfig {
    fn default() -> Self {
        Self {
            publish: "/pub".into(),
            subscribe: "/sub".into(),
            events: "/ev".into(),
            long_poll: "/lp".into(),
            websocket: "/ws".into(),
            statistics: "/channels-stats".into(),
            delete: false,
            websocket_publish: false,
            wait: Duration::from_secs(30),
            message: MESSAGE.into(),
            readers_decode: true,
            stream_header: STREAM_HEADER.into(),
            stream_message: STREAM_MESSAGE.into(),
            stream_footer: "</body></html>".into(),
        }
    }
}

//! The `backend.php` of the zeitoun chat, a long-poll.
//!
//! The chat page only echoes `timestamp`, so here it is a message's id. A poll gets the oldest message after it instead of
//! the newest, so that no message is lost between polls.

use std::{sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, Message, Since};

use crate::{
    hub::{Backlog, Hub},
    transport::{
        AddHeader, Channels, End, Form, Format, Kind, Shape, Status, Subscription,
        write_script_safe, write_token_expired,
    },
};

/// A timestamp below this is in seconds (of the old server, until the year 5138), above it an id.
const SECONDS_BELOW: u64 = 100_000_000_000;

/// What a request to the chat asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChatRequest {
    /// `msg=TEXT`.
    Publish(String),
    /// `timestamp=N`; a missing or malformed number is 0.
    Poll(Since),
}

impl ChatRequest {
    /// Reads the decoded pairs of the query. A `msg` that is not empty takes precedence.
    pub(crate) fn parse<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut since = Since::Id(Cursor(0));
        for (name, value) in pairs {
            match name {
                "msg" if !value.is_empty() => return Self::Publish(value.to_owned()),
                "timestamp" => since = timestamp(value),
                _ => {}
            }
        }
        Self::Poll(since)
    }
}

/// An immediate answer, or a subscription to wait for. Messages that are older than `oldest` may not be read.
pub(crate) fn poll(
    hub: &Hub,
    channel: &ChannelName,
    since: Since,
    oldest: Option<Duration>,
) -> Result<Vec<u8>, Subscription> {
    let now = hub.last();
    // A time in the future counts as now.
    let seen = hub.resolve(since).min(now);
    let of = std::slice::from_ref(channel);
    let withheld = oldest.and_then(|age| hub.newest_older(of, seen, age));
    let mut backlog = hub.since(of, withheld.unwrap_or(seen));
    backlog.gap |= withheld.is_some();
    // A new page shows only the last message.
    let message = if seen.0 == 0 {
        backlog.messages.last()
    } else {
        backlog.messages.first()
    };
    if let Some(message) = message {
        let mut out = Vec::new();
        write_message(message, backlog.gap, &mut out);
        return Ok(out);
    }
    Err(Subscription {
        channels: Channels::One(channel.clone()),
        since: Some(backlog.cursor),
        wait: None,
        format: Box::new(Chat),
        handshake: None,
        expires: None,
        gap: backlog.gap,
    })
}

struct Chat;

impl Format for Chat {
    /// The page shows every answer as a message. So there is no answer without a message, and a gap is reported with the
    /// next message.
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Poll,
            postpones_gap: true,
            form: Some(Form::Chat),
        }
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", b"application/json");
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        if let Some(message) = backlog.messages.first() {
            write_message(message, backlog.gap, out);
        }
    }

    fn nothing(&self, _cursor: Cursor, _out: &mut Vec<u8>) -> Status {
        Status::Ok
    }

    /// After any error the page polls again with its cursor 5 s later.
    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, .. } | End::HalfClosed { backlog } => {
                self.news(backlog, out);
                match backlog.messages.is_empty() {
                    true => Status::Unavailable,
                    false => Status::Ok,
                }
            }
            End::Expired { cursor } => write_token_expired(cursor, out),
        }
    }
}

fn write_message(message: &Message, gap: bool, out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(&message.data);
    let mut json = Vec::new();
    json.extend_from_slice(b"{\"msg\":");
    json.extend_from_slice(serde_json::Value::from(&*text).to_string().as_bytes());
    json.extend_from_slice(format!(",\"timestamp\":{}", message.id).as_bytes());
    json.extend_from_slice(if gap { b",\"gap\":true}" } else { b"}" });
    write_script_safe(&json, out); // the page evaluates it
}

/// Parses the leading digits: an id of this server, or whole seconds.
fn timestamp(text: &str) -> Since {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    match text[..digits].parse::<u64>() {
        Ok(0) | Err(_) => Since::Id(Cursor(0)),
        Ok(seconds) if seconds < SECONDS_BELOW => Since::Time(seconds * 1_000_000),
        Ok(id) => Since::Id(Cursor(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_old_page_sends() {
        let cases = [
            ("msg=hi%20%26+bye", ChatRequest::Publish("hi & bye".into())),
            ("msg=0&timestamp=5", ChatRequest::Publish("0".into())),
            (
                "msg=&timestamp=5",
                ChatRequest::Poll(Since::Time(5_000_000)),
            ),
            (
                "timestamp=1763690000123456",
                ChatRequest::Poll(Since::Id(Cursor(1_763_690_000_123_456))),
            ),
            (
                "timestamp=12abc",
                ChatRequest::Poll(Since::Time(12_000_000)),
            ),
            ("timestamp=-1", ChatRequest::Poll(Since::Id(Cursor(0)))),
            (
                "timestamp=99999999999999999999999",
                ChatRequest::Poll(Since::Id(Cursor(0))),
            ),
            ("", ChatRequest::Poll(Since::Id(Cursor(0)))),
        ];
        for (query, request) in cases {
            let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
            assert_eq!(
                ChatRequest::parse(pairs.iter().map(|(n, v)| (&**n, &**v))),
                request,
                "{query}"
            );
        }
    }
}

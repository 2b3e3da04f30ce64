//! The two zeitoun demos' `backend.php`, at two paths: the chat by long-poll and the clock in an iframe.
//!
//! The chat page only echoes `timestamp`, so here it is a message's id. A poll gets the oldest message after it instead of
//! the newest, so that no message is lost between polls.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comet_proto::{ChannelName, Cursor, Message, Since};

use super::super::{
    hub::{Backlog, Hub},
    transport::{
        Channels, End, Form, Format, Kind, Shape, Status, Subscription, write_script_safe,
        write_token_expired,
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
    /// Reads the query's pairs, decoded. A non-empty `msg` wins.
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
    /// The page shows every answer as a message. So there is no answer without a message, and a gap is told with the
    /// next message.
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Poll,
            media_type: "application/json",
            has_etag: false,
            postpones_gap: true,
            form: Some(Form::Chat),
        }
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        if let Some(message) = backlog.messages.first() {
            write_message(message, backlog.gap, out);
        }
    }

    fn nothing(&self, _cursor: Cursor, _out: &mut Vec<u8>) {}

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

/// The clock: one call at the beginning of each second, without end.
pub(crate) struct Clock;

impl Format for Clock {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Stream {
                // Computed again for each wait, so that delays do not add up.
                heartbeat: until_next_second(since_1970()),
            },
            media_type: "text/html; charset=utf-8",
            has_etag: false,
            postpones_gap: false,
            form: None,
        }
    }

    /// The frame's `comet` is the page's.
    fn opening(&self, cursor: Cursor, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>clock</title></head>\n<body>\n\
              <script type=\"text/javascript\">var comet = window.parent.comet;</script>\n",
        );
        out.resize(out.len() + 1024, b' ');
        out.push(b'\n');
        self.nothing(cursor, out);
    }

    fn news(&self, _backlog: &Backlog, _out: &mut Vec<u8>) {}

    fn nothing(&self, _cursor: Cursor, out: &mut Vec<u8>) {
        let seconds = since_1970().as_secs();
        let call = format!(
            "<script type=\"text/javascript\">comet.printServerTime({seconds});</script>\n"
        );
        out.extend_from_slice(call.as_bytes());
    }

    /// The protocol has nothing that says why a stream ends, so its last bytes are one more call.
    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        self.nothing(end.cursor(), out);
        Status::Ok
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Slightly longer, because the system's clock may be slowed down meanwhile, so that no second is sent twice.
fn until_next_second(now: Duration) -> Duration {
    const BIT: Duration = Duration::from_millis(2);
    Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into()) + BIT
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

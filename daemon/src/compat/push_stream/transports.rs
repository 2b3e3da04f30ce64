//! The formats of a subscription: polls, streams into an iframe, event streams and WebSockets. All of them send messages by the
//! templates. None of them can report a gap.

use std::{sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, Message};
use serde::de::IgnoredAny;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{
    render::{EVENT_ID, Notice, Templates, write_message, write_notice},
    start::EachStart,
};
use crate::{
    compat::http_push,
    hub::Backlog,
    transport::{
        AddHeader, End, Form, Format, Kind, Shape, Status, frames, frames::write_close,
        iframe::Callback, sse::EVENT_STREAM,
    },
};

/// A poll, with `callback` as JSONP. The answer has all new messages, one after the other.
pub(super) struct Poll {
    pub(super) templates: Arc<Templates>,
    pub(super) callback: Option<Callback>,
}

impl Format for Poll {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Poll,
            postpones_gap: true,
            form: self.callback.is_none().then_some(Form::PushStreamPoll),
        }
    }

    fn headers(&self, cursor: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        let media_type: &[u8] = match self.callback {
            Some(_) => b"application/javascript; charset=utf-8",
            None => b"text/plain; charset=utf-8",
        };
        add("content-type", media_type);
        add("last-modified", http_push::date(cursor).as_bytes());
        add("etag", format!("W/{}", http_push::tag(cursor)).as_bytes());
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        let (template, readable) = (&self.templates.message, &backlog.readable);
        let Some(callback) = &self.callback else {
            for message in &backlog.messages {
                write_message(template, message, readable, out);
            }
            return;
        };
        let messages = backlog.messages.iter().map(|message| {
            let mut value = Vec::new();
            write_message(template, message, readable, &mut value);
            value
        });
        write_call(callback, messages, out);
    }

    fn nothing(&self, _: Cursor, _: &mut Vec<u8>) -> Status {
        Status::NotModified
    }

    fn deleted(&self, channel: &ChannelName, cursor: Cursor, out: &mut Vec<u8>) -> Option<Status> {
        let notice = self.templates.deleted(channel, cursor);
        match &self.callback {
            Some(callback) => write_call(callback, [notice].into_iter(), out),
            None => out.extend_from_slice(&notice),
        }
        Some(Status::Ok)
    }

    /// pushstream.js asks again 100 ms after a 304, and 3 s after a 503. It keeps the cursor of both.
    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, .. } | End::HalfClosed { backlog }
                if !backlog.messages.is_empty() =>
            {
                self.news(backlog, out);
                Status::Ok
            }
            End::Reconnect { .. } => Status::Unavailable,
            End::HalfClosed { .. } => Status::NotModified,
            End::Expired { .. } => Status::Unauthorized,
        }
    }
}

/// Appends a call of the page's function with an array of the messages.
fn write_call(callback: &Callback, messages: impl Iterator<Item = Vec<u8>>, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}([", callback.as_str()).as_bytes());
    for (i, message) in messages.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_script_value(&message, out);
    }
    out.extend_from_slice(b"]);");
}

/// Appends a message as a value of JavaScript. What is no JSON becomes a string: otherwise a publisher could run a script in
/// the page.
fn write_script_value(message: &[u8], out: &mut Vec<u8>) {
    match serde_json::from_slice::<IgnoredAny>(message) {
        Ok(_) => out.extend_from_slice(message),
        Err(_) => {
            let text = serde_json::Value::from(&*String::from_utf8_lossy(message));
            out.extend_from_slice(text.to_string().as_bytes());
        }
    }
}

/// What the streams share.
pub(super) struct StreamParts {
    pub(super) templates: Arc<Templates>,
    pub(super) heartbeat: Duration,
    pub(super) each: Option<Box<EachStart>>,
}

impl StreamParts {
    fn kind(&self, form: Form) -> Kind {
        let is_shared = self.each.as_ref().is_none_or(|each| each.is_over());
        Kind {
            shape: Shape::Stream {
                heartbeat: self.heartbeat,
            },
            postpones_gap: true,
            form: is_shared.then_some(form),
        }
    }

    /// The messages of a backlog that the client gets.
    fn messages<'a>(&'a self, backlog: &'a Backlog) -> impl Iterator<Item = &'a Message> {
        let each = self.each.as_deref().filter(|each| !each.is_over());
        if let Some(each) = each {
            each.pass(backlog.cursor);
        }
        let messages = backlog.messages.iter().map(|message| &**message);
        messages.filter(move |message| each.is_none_or(|each| each.includes(message)))
    }

    /// A message in the template of all modes but streaming.
    fn rendered(&self, message: &Message, backlog: &Backlog) -> Vec<u8> {
        let mut out = Vec::new();
        write_message(
            &self.templates.message,
            message,
            &backlog.readable,
            &mut out,
        );
        out
    }
}

/// A stream of HTML into an iframe. Only the templates separate messages.
pub(super) struct Streaming(pub(super) StreamParts);

impl Format for Streaming {
    fn kind(&self) -> Kind {
        self.0.kind(Form::PushStreamStreaming)
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", b"text/html; charset=utf-8");
    }

    fn opening(&self, _: Cursor, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.templates.stream_header.as_bytes());
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        let template = &self.0.templates.stream_message;
        for message in self.0.messages(backlog) {
            write_message(template, message, &backlog.readable, out);
        }
    }

    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) -> Status {
        let template = &self.0.templates.stream_message;
        write_notice(template, Notice::Heartbeat, None, cursor, out);
        Status::Ok
    }

    fn deleted(&self, channel: &ChannelName, cursor: Cursor, out: &mut Vec<u8>) -> Option<Status> {
        let templates = &self.0.templates;
        let template = &templates.stream_message;
        write_notice(template, Notice::Deleted, Some(channel), cursor, out);
        out.extend_from_slice(templates.stream_footer.as_bytes());
        Some(Status::Ok)
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, .. } | End::HalfClosed { backlog } => {
                self.news(backlog, out);
            }
            End::Expired { .. } => {}
        }
        out.extend_from_slice(self.0.templates.stream_footer.as_bytes());
        Status::Ok
    }
}

/// The time in milliseconds after which a browser reconnects, unless a daemon that stops sends another time.
const RETRY: u32 = 3000;

/// Server-sent events. The original server sends `id:` only if the publisher has set an `Event-Id`. Here each event has an id, so
/// that a browser that reconnects by itself gets every message once.
pub(super) struct EventSource(pub(super) StreamParts);

impl Format for EventSource {
    fn kind(&self) -> Kind {
        self.0.kind(Form::PushStreamEventSource)
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", EVENT_STREAM.as_bytes());
    }

    fn opening(&self, cursor: Cursor, out: &mut Vec<u8>) {
        let id = http_push::pair(cursor);
        out.extend_from_slice(format!(": \nid: {id}\nretry: {RETRY}\n\n").as_bytes());
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        for message in self.0.messages(backlog) {
            let event_id = http_push::attribute(message, EVENT_ID).filter(|id| is_one_line(id));
            let pair = || http_push::pair(Cursor(message.id));
            let id = event_id.map_or_else(pair, str::to_owned);
            out.extend_from_slice(format!("id: {id}\n").as_bytes());
            let event_type = message.name.as_str();
            if !event_type.is_empty() {
                out.extend_from_slice(format!("event: {event_type}\n").as_bytes());
            }
            write_data(&self.0.rendered(message, backlog), out);
        }
    }

    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) -> Status {
        let id = http_push::pair(cursor);
        out.extend_from_slice(format!("id: {id}\n: -1\n\n").as_bytes());
        Status::Ok
    }

    fn deleted(&self, channel: &ChannelName, cursor: Cursor, out: &mut Vec<u8>) -> Option<Status> {
        let id = http_push::pair(cursor);
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
        write_data(&self.0.templates.deleted(channel, cursor), out);
        Some(Status::Ok)
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, retry } => {
                self.news(backlog, out);
                let (id, retry) = (http_push::pair(backlog.cursor), retry.as_millis());
                out.extend_from_slice(format!("id: {id}\nretry: {retry}\n\n").as_bytes());
            }
            End::HalfClosed { backlog } => self.news(backlog, out),
            End::Expired { .. } => {}
        }
        Status::Ok
    }
}

/// An id with a zero byte would be ignored (HTML standard, section 9.2.6). An empty one would reset the browser's cursor.
fn is_one_line(id: &str) -> bool {
    !id.is_empty() && !id.contains(['\r', '\n', '\0'])
}

/// Appends `data:` for each line of a message, and the end of the event.
fn write_data(message: &[u8], out: &mut Vec<u8>) {
    let message = String::from_utf8_lossy(message).replace("\r\n", "\n");
    for line in message.split(['\r', '\n']) {
        out.extend_from_slice(format!("data: {line}\n").as_bytes());
    }
    out.push(b'\n');
}

/// A WebSocket: each message is a text frame.
pub(super) struct WebSocket(pub(super) StreamParts);

impl Format for WebSocket {
    fn kind(&self) -> Kind {
        self.0.kind(Form::PushStreamWebSocket)
    }

    /// A WebSocket has no headers of its own.
    fn headers(&self, _: Cursor, _: &[Arc<Message>], _: AddHeader<'_>) {}

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        for message in self.0.messages(backlog) {
            let message = self.0.rendered(message, backlog);
            let text = String::from_utf8_lossy(&message);
            frames::write(frames::TEXT, text.as_bytes(), out);
        }
    }

    fn nothing(&self, _: Cursor, out: &mut Vec<u8>) -> Status {
        frames::write(frames::PING, b"", out);
        Status::Ok
    }

    fn deleted(&self, channel: &ChannelName, cursor: Cursor, out: &mut Vec<u8>) -> Option<Status> {
        let notice = self.0.templates.deleted(channel, cursor);
        let text = String::from_utf8_lossy(&notice);
        frames::write(frames::TEXT, text.as_bytes(), out);
        write_close(CloseCode::Normal, out);
        Some(Status::Ok)
    }

    /// pushstream.js connects again 3 s after any close.
    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        let code = match *end {
            End::Reconnect { backlog, .. } => {
                self.news(backlog, out);
                CloseCode::Away
            }
            End::HalfClosed { backlog } => {
                self.news(backlog, out);
                CloseCode::Normal
            }
            End::Expired { .. } => CloseCode::Policy,
        };
        write_close(code, out);
        Status::Ok
    }
}

//! nchan's event stream: the id is the cursor as `SECONDS:TAG`, and the data is the message as text.

use std::{sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, Message};

use crate::{
    compat::http_push::pair,
    hub::Backlog,
    transport::{AddHeader, End, Form, Format, Kind, Shape, Status, sse::EVENT_STREAM},
};

pub(super) struct Events {
    pub(super) heartbeat: Duration,
}

impl Format for Events {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Stream {
                heartbeat: self.heartbeat,
            },
            postpones_gap: true,
            form: Some(Form::NchanEvents),
        }
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", EVENT_STREAM.as_bytes());
    }

    fn opening(&self, _: Cursor, out: &mut Vec<u8>) {
        out.extend_from_slice(b": hi\n\n");
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        for message in &backlog.messages {
            write_event(message, out);
        }
    }

    /// An event without data, which browsers do not report to the page.
    fn nothing(&self, _: Cursor, out: &mut Vec<u8>) -> Status {
        out.extend_from_slice(b"event: ping\n\n");
        Status::Ok
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, retry } => {
                self.news(backlog, out);
                out.extend_from_slice(format!("retry: {}\n\n", retry.as_millis()).as_bytes());
            }
            End::HalfClosed { backlog } => self.news(backlog, out),
            End::Expired { .. } => out.extend_from_slice(b":401: 401 Unauthorized\n\n"),
        }
        Status::Ok
    }

    fn deleted(&self, _: &ChannelName, _: Cursor, out: &mut Vec<u8>) -> Option<Status> {
        out.extend_from_slice(b":410: 410 Gone\n\n");
        Some(Status::Gone)
    }
}

/// Appends a message as one event. Each line of its data is one field. All three line ends of event streams count, because
/// the rest of a line that they end would be a field of its own.
fn write_event(message: &Message, out: &mut Vec<u8>) {
    let mut line = |name: &str, value: &str| {
        for part in [name, ": ", value, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    if !message.name.as_str().is_empty() {
        line("event", message.name.as_str());
    }
    line("id", &pair(Cursor(message.id)));
    let text = String::from_utf8_lossy(&message.data).replace("\r\n", "\n");
    for data in text.split(['\n', '\r']) {
        line("data", data);
    }
    out.push(b'\n');
}

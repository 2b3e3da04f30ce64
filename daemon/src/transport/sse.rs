//! Server-sent events (HTML standard, "Server-sent events"): `id:` is the cursor, `data:` the message as JSON.

use std::{sync::Arc, time::Duration};

use comet_proto::{Cursor, Message};

use super::{
    AddHeader, End, Form, Format, Kind, Shape, Status, gap_cursor, write_expired, write_gap,
};
use crate::hub::Backlog;

/// The time in milliseconds after which a browser reconnects. A daemon that stops sends another time, and the next daemon
/// sends this time again at the start of each stream.
const RETRY: u32 = 3000;

pub(crate) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

pub(crate) struct Sse {
    pub(crate) heartbeat: Duration,
}

impl Format for Sse {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Stream {
                heartbeat: self.heartbeat,
            },
            postpones_gap: false,
            form: Some(Form::Sse),
        }
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", EVENT_STREAM.as_bytes());
    }

    /// The first heartbeat. The client sees that the stream works and that no proxy buffers it. The client also has a cursor
    /// if the connection breaks before the first message.
    fn opening(&self, cursor: Cursor, out: &mut Vec<u8>) {
        self.write_cursor_event(cursor, "", out);
        write_retry(Duration::from_millis(RETRY.into()), out);
        out.push(b'\n');
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        if backlog.gap {
            let cursor = gap_cursor(backlog);
            out.extend_from_slice(format!("id: {cursor}\nevent: gap\ndata: ").as_bytes());
            write_gap(cursor, out);
            out.extend_from_slice(b"\n\n");
        }
        for message in &backlog.messages {
            out.extend_from_slice(format!("id: {}\ndata: ", message.id).as_bytes());
            message.write_json(&backlog.readable, out); // JSON has no line ends
            out.extend_from_slice(b"\n\n");
        }
    }

    /// An event of type `cursor`, which `onmessage` does not get. The event moves the browser's cursor, so that a stream
    /// without messages resumes where it ended, and says when the next heartbeat is due.
    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) -> Status {
        self.write_cursor_event(cursor, "", out);
        out.push(b'\n');
        Status::Ok
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, retry } => {
                self.news(backlog, out);
                // The event has the time twice: for the browser, and for a script that reconnects by itself.
                let field = format!(",\"retry\":{}", retry.as_millis());
                self.write_cursor_event(backlog.cursor, &field, out);
                write_retry(retry, out);
                out.push(b'\n');
            }
            End::HalfClosed { backlog } => {
                self.news(backlog, out);
                return self.nothing(backlog.cursor, out);
            }
            End::Expired { cursor } => {
                out.extend_from_slice(format!("id: {cursor}\nevent: expired\ndata: ").as_bytes());
                write_expired(cursor, out);
                out.extend_from_slice(b"\n\n");
            }
        }
        Status::Ok
    }
}

impl Sse {
    /// Appends an event of type `cursor` without its last line end. `more` is added to the fields of its data.
    fn write_cursor_event(&self, cursor: Cursor, more: &str, out: &mut Vec<u8>) {
        let seconds = self.heartbeat.as_secs_f64();
        let data = format!("{{\"cursor\":\"{cursor}\",\"heartbeat\":{seconds}{more}}}");
        out.extend_from_slice(format!("id: {cursor}\nevent: cursor\ndata: {data}\n").as_bytes());
    }
}

fn write_retry(retry: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("retry: {}\n", retry.as_millis()).as_bytes());
}

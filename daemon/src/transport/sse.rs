//! Server-sent events (HTML standard, "Server-sent events"): `id:` is the cursor, `data:` the message as JSON.

use std::time::Duration;

use comet_proto::Cursor;

use super::{Format, Shape, form, gap_cursor, write_gap};
use crate::hub::Backlog;

pub(crate) struct Sse {
    pub(crate) heartbeat: Duration,
}

impl Format for Sse {
    fn shape(&self) -> Shape {
        Shape::Stream {
            heartbeat: self.heartbeat,
        }
    }

    fn content_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    /// The first sign of life: the stream stands, nothing on the way holds it back, and whoever is cut off before
    /// the first message has a cursor to come back with.
    fn opening(&self, cursor: Cursor, out: &mut Vec<u8>) {
        self.nothing(cursor, out);
    }

    fn backlog(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        if backlog.gap {
            let cursor = gap_cursor(backlog);
            out.extend_from_slice(format!("id: {cursor}\nevent: gap\ndata: ").as_bytes());
            write_gap(cursor, out);
            out.extend_from_slice(b"\n\n");
        }
        for message in &backlog.messages {
            out.extend_from_slice(format!("id: {}\ndata: ", message.id).as_bytes());
            message.write_json(out); // JSON has no line ends
            out.extend_from_slice(b"\n\n");
        }
    }

    /// An event of its own type, which `onmessage` does not see: it moves the browser's cursor, so that a quiet
    /// stream resumes where it ended, and tells a client that listens to it when to miss the next one.
    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) {
        let seconds = self.heartbeat.as_secs_f64();
        let data = format!("{{\"cursor\":\"{cursor}\",\"heartbeat\":{seconds}}}");
        out.extend_from_slice(format!("id: {cursor}\nevent: cursor\ndata: {data}\n\n").as_bytes());
    }

    fn form(&self) -> Option<u8> {
        Some(form::SSE)
    }
}

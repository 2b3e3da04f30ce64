//! Long-poll: each poll has one answer, `{"cursor":"…","gap":false,"messages":[…]}`. When the daemon stops, the answer also has
//! `"retry":…`, the milliseconds after which the client should ask again.

use std::{sync::Arc, time::Duration};

use comet_proto::{Cursor, Message};

use super::{AddHeader, End, Form, Format, Kind, Shape, Status, write_token_expired};
use crate::hub::Backlog;

pub(crate) struct LongPoll;

impl Format for LongPoll {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Poll,
            postpones_gap: false,
            form: Some(Form::LongPoll),
        }
    }

    fn headers(&self, cursor: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", b"application/json");
        add("etag", format!("\"{cursor}\"").as_bytes());
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        write_answer(backlog, None, out);
    }

    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) -> Status {
        let backlog = Backlog {
            cursor,
            ..Backlog::default()
        };
        write_answer(&backlog, None, out);
        Status::Ok
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, retry } => write_answer(backlog, Some(retry), out),
            End::HalfClosed { backlog } => write_answer(backlog, None, out),
            End::Expired { cursor } => return write_token_expired(cursor, out),
        }
        Status::Ok
    }
}

fn write_answer(backlog: &Backlog, retry: Option<Duration>, out: &mut Vec<u8>) {
    let (cursor, gap) = (backlog.cursor, backlog.gap);
    out.extend_from_slice(
        format!("{{\"cursor\":\"{cursor}\",\"gap\":{gap},\"messages\":[").as_bytes(),
    );
    for (i, message) in backlog.messages.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        message.write_json(&backlog.readable, out);
    }
    out.push(b']');
    if let Some(retry) = retry {
        out.extend_from_slice(format!(",\"retry\":{}", retry.as_millis()).as_bytes());
    }
    out.push(b'}');
}

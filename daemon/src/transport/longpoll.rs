//! Long-poll: one JSON answer, `{"cursor":"…","gap":false,"messages":[…]}`; when the daemon stops also `"retry":…`.

use std::time::Duration;

use comet_proto::Cursor;

use super::{Format, Shape, form};
use crate::hub::Backlog;

pub(crate) struct LongPoll;

impl Format for LongPoll {
    fn shape(&self) -> Shape {
        Shape::Poll
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn backlog(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        write_answer(backlog, None, out);
    }

    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) {
        let backlog = Backlog {
            cursor,
            ..Backlog::default()
        };
        write_answer(&backlog, None, out);
    }

    fn farewell(&self, backlog: &Backlog, retry: Duration, out: &mut Vec<u8>) -> u16 {
        write_answer(backlog, Some(retry), out);
        200
    }

    fn form(&self) -> Option<u8> {
        Some(form::LONGPOLL)
    }

    fn has_etag(&self) -> bool {
        true
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
        message.write_json(out);
    }
    out.push(b']');
    if let Some(retry) = retry {
        out.extend_from_slice(format!(",\"retry\":{}", retry.as_millis()).as_bytes());
    }
    out.push(b'}');
}

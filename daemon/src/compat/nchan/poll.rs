//! nchan's long-poll and interval poll: an answer is one message, with its cursor in `Last-Modified` and `Etag`.

use std::sync::Arc;

use comet_proto::{ChannelName, Cursor, Message};

use crate::{
    compat::http_push::{self, CONTENT_TYPE, attribute},
    hub::Backlog,
    transport::{AddHeader, End, Form, Format, Kind, Shape, Status},
};

pub(super) struct Poll {
    pub(super) is_interval: bool,
}

impl Format for Poll {
    /// nchan does not report gaps.
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Poll,
            postpones_gap: true,
            form: Some(Form::NchanPoll),
        }
    }

    fn headers(&self, _: Cursor, messages: &[Arc<Message>], add: AddHeader<'_>) {
        let exposed = b"Last-Modified, Etag, Content-Type";
        add("access-control-expose-headers", exposed);
        let Some(message) = messages.first() else {
            return;
        };
        let cursor = Cursor(message.id);
        add("last-modified", http_push::date(cursor).as_bytes());
        add("etag", http_push::tag(cursor).to_string().as_bytes());
        add("vary", b"If-None-Match, If-Modified-Since");
        if let Some(media_type) = attribute(message, CONTENT_TYPE) {
            add("content-type", media_type.as_bytes());
            // The publisher chooses the type. A browser that opens the URL must not run a script of the message.
            add("content-security-policy", b"sandbox; default-src 'none'");
        }
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        if let Some(message) = backlog.messages.first() {
            out.extend_from_slice(&message.data);
        }
    }

    fn nothing(&self, _: Cursor, _: &mut Vec<u8>) -> Status {
        match self.is_interval {
            true => Status::NotModified,
            false => Status::TimedOut,
        }
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, .. } | End::HalfClosed { backlog }
                if !backlog.messages.is_empty() =>
            {
                self.news(backlog, out);
                Status::Ok
            }
            End::Reconnect { .. } => Status::Unavailable,
            End::HalfClosed { .. } => self.nothing(end.cursor(), out),
            End::Expired { .. } => Status::Unauthorized,
        }
    }

    fn deleted(&self, _: &ChannelName, _: Cursor, _: &mut Vec<u8>) -> Option<Status> {
        Some(Status::Gone)
    }
}

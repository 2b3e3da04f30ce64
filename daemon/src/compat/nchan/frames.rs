//! nchan's WebSocket: each message is one frame. With the subprotocol `ws+meta.nchan` a frame begins with the message's cursor and
//! media type, and an empty line.

use std::{sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, Message};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::{
    compat::http_push::{CONTENT_TYPE, attribute, pair},
    hub::Backlog,
    transport::{AddHeader, End, Form, Format, Kind, Shape, Status, frames},
};

pub(super) struct Frames {
    pub(super) heartbeat: Duration,
    pub(super) has_meta: bool,
}

impl Format for Frames {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Stream {
                heartbeat: self.heartbeat,
            },
            postpones_gap: true,
            form: Some(match self.has_meta {
                true => Form::NchanFramesWithMeta,
                false => Form::NchanFrames,
            }),
        }
    }

    /// A WebSocket has no headers of its own.
    fn headers(&self, _: Cursor, _: &[Arc<Message>], _: AddHeader<'_>) {}

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        for message in &backlog.messages {
            self.write_message(message, out);
        }
    }

    fn nothing(&self, _: Cursor, out: &mut Vec<u8>) -> Status {
        frames::write(frames::PING, b"", out);
        Status::Ok
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, .. } => {
                self.news(backlog, out);
                write_close(CloseCode::Away, "503 Service Unavailable", out);
            }
            End::HalfClosed { backlog } => {
                self.news(backlog, out);
                frames::write_close(CloseCode::Normal, out);
            }
            End::Expired { .. } => write_close(CloseCode::Policy, "401 Unauthorized", out),
        }
        Status::Ok
    }

    fn deleted(&self, _: &ChannelName, _: Cursor, out: &mut Vec<u8>) -> Option<Status> {
        write_close(CloseCode::Away, "410 Gone", out);
        Some(Status::Gone)
    }
}

impl Frames {
    /// Appends a message. It is binary if its media type says so, or if it is no text.
    fn write_message(&self, message: &Message, out: &mut Vec<u8>) {
        let media_type = attribute(message, CONTENT_TYPE).filter(|text| !text.contains('\n'));
        let is_text =
            media_type != Some("application/octet-stream") && str::from_utf8(&message.data).is_ok();
        let opcode = if is_text {
            frames::TEXT
        } else {
            frames::BINARY
        };
        if !self.has_meta {
            return frames::write(opcode, &message.data, out);
        }
        let mut payload = format!("id: {}\n", pair(Cursor(message.id)));
        if let Some(media_type) = media_type {
            payload.push_str(&format!("content-type: {media_type}\n"));
        }
        payload.push('\n');
        let mut payload = payload.into_bytes();
        payload.extend_from_slice(&message.data);
        frames::write(opcode, &payload, out);
    }
}

/// Appends a close frame whose reason names a status of HTTP.
fn write_close(code: CloseCode, reason: &str, out: &mut Vec<u8>) {
    let mut payload = u16::from(code).to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frames::write(frames::CLOSE, &payload, out);
}

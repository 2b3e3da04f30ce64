//! The dialect of our own clients: the lines of the Unix socket, one in each frame (docs/protocol.md, "Session").

use std::io::Write;

use comet_proto::{
    ChannelNames, Since,
    line::{self, ErrorCode, LineError, Publish, Reference, Request},
};
use tungstenite::protocol::frame::coding::CloseCode;

use super::{
    Publication, Session,
    dialect::{Close, Dialect, DialectKind, Frames, Heard, SessionEnd, SessionForm},
};
use crate::{
    broker::{NotKept, Receipt},
    http::refusal::Refusal,
    hub::Backlog,
    transport::{gap_cursor, websocket::EXPIRED, write_expired, write_gap, write_retry},
};

/// The dialect of our own clients.
pub(crate) struct Comet;

/// Why a request is refused: a code and a text.
struct Refused(ErrorCode, String);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(
            ErrorCode::parse(refusal.code()),
            refusal.message().to_owned(),
        )
    }
}

impl From<LineError> for Refused {
    fn from(error: LineError) -> Self {
        Self(error.code(), error.to_string())
    }
}

impl Comet {
    /// Carries out a request, and writes the reply. `Some`: the request is a publish, and the reply is still to be written.
    fn serve(
        request: Request<'_>,
        session: &mut Session,
        reply: &mut Vec<u8>,
    ) -> Result<Option<Receipt>, Refused> {
        match request {
            Request::Publish(publish) => return publish_message(publish, session).map(Some),
            Request::Subscribe {
                channels,
                since,
                presence,
            } => {
                let permission = match presence {
                    None => session.may_read(channels)?,
                    Some(presence) => session.may_join(channels, presence.member.as_deref())?,
                };
                let added = session.subscribe(&permission, since);
                added.map_err(|error| Refused(ErrorCode::Channels, error.to_string()))?;
                line::write_ok(reply);
            }
            Request::Unsubscribe { channels } => {
                for channel in channels.iter() {
                    session.unsubscribe(channel);
                }
                line::write_ok(reply);
            }
            Request::History { channels, since } => write_history(channels, since, session, reply)?,
            Request::Token(token) => {
                let expires = session.replace_token(&token)?;
                let _ = writeln!(reply, r#"{{"ok":true,"expires":{expires}}}"#); // a Vec takes it
            }
            Request::Presence { channel, after } => {
                session.may_read(channel.clone().into())?;
                let site = session.http().site();
                let members = site.presence.members(&channel, after.as_deref());
                line::write_members(&members.json_fields(), reply);
            }
            Request::Cursor => line::write_cursor(session.http().audience().hub().last(), reply),
            Request::Ping => line::write_ok(reply),
            Request::Status => {
                let reason = "op status is for the socket: GET /metrics has the figures";
                return Err(Refused(ErrorCode::Op, reason.into()));
            }
        }
        Ok(None)
    }
}

fn publish_message(publish: Publish<'_>, session: &mut Session) -> Result<Receipt, Refused> {
    let max = session.http().site().config.max_body;
    if publish.data.len() > max {
        let length = publish.data.len();
        let reason = format!("data of {length} bytes is over the limit of {max}");
        return Err(Refused(ErrorCode::Data, reason));
    }
    let permission = session.may_publish(publish.channels)?;
    Ok(session.publish(
        permission,
        Publication {
            label: publish.name,
            data: &publish.data,
            attributes: publish.attributes,
            key: publish.key.as_deref(),
        },
    ))
}

fn write_history(
    channels: ChannelNames,
    since: Since,
    session: &Session,
    reply: &mut Vec<u8>,
) -> Result<(), Refused> {
    let permission = session.may_read(channels)?;
    let backlog = session.history(&permission, since);
    line::write_history_start(backlog.cursor, reply);
    for (place, message) in backlog.messages.iter().enumerate() {
        if place > 0 {
            reply.push(b',');
        }
        message.write_json(&backlog.readable, reply);
    }
    line::write_history_end(backlog.gap, reply);
    if backlog.more {
        reply.truncate(reply.len() - "}\n".len());
        reply.extend_from_slice(b",\"more\":true}\n");
    }
    Ok(())
}

/// Sends the reply, which is one line, as a frame.
fn send(reply: Vec<u8>, reference: Option<&Reference>, out: &mut Frames) {
    let mut reply = reply;
    if let Some(reference) = reference {
        reference.insert(0, &mut reply);
    }
    out.text(reply.trim_ascii_end());
}

fn acknowledge(outcome: Result<u64, NotKept>, reference: Option<&Reference>, out: &mut Frames) {
    let mut reply = Vec::new();
    match outcome {
        Ok(id) => line::write_receipt(id, &mut reply),
        Err(reason) => line::write_error(&ErrorCode::Store, &reason.to_string(), &mut reply),
    }
    send(reply, reference, out);
}

impl Dialect for Comet {
    fn kind(&self) -> DialectKind {
        DialectKind {
            form: Some(SessionForm::Comet),
            sends_close: true,
        }
    }

    fn hear(
        &mut self,
        text: &str,
        session: &mut Session,
        out: &mut Frames,
    ) -> Result<Heard, Close> {
        let (reference, request) = Request::parse_with_reference(text.as_bytes());
        let mut reply = Vec::new();
        let served = request
            .map_err(Refused::from)
            .and_then(|request| Self::serve(request, session, &mut reply));
        match served {
            Ok(None) => {}
            Ok(Some(receipt)) => {
                let answer = move |outcome, out: &mut Frames| {
                    acknowledge(outcome, reference.as_ref(), out);
                };
                return Ok(Heard::Published(receipt, Box::new(answer)));
            }
            Err(Refused(code, reason)) => {
                reply.clear();
                line::write_error(&code, &reason, &mut reply);
            }
        }
        send(reply, reference.as_ref(), out);
        Ok(Heard::Done)
    }

    fn tell(&self, backlog: &Backlog, out: &mut Frames) {
        let mut json = Vec::new();
        if backlog.gap {
            write_gap(gap_cursor(backlog), &mut json);
            out.text(&json);
        }
        for message in &backlog.messages {
            json.clear();
            message.write_json(&backlog.readable, &mut json);
            out.text(&json);
        }
    }

    fn end(&self, end: SessionEnd, session: &Session, out: &mut Frames) -> Close {
        let mut json = Vec::new();
        match end {
            SessionEnd::Reconnect(retry) => {
                write_retry(retry, &mut json);
                let reason = String::from_utf8_lossy(&json).into_owned();
                Close::Frame(CloseCode::Away.into(), reason.into())
            }
            SessionEnd::Expired => {
                write_expired(session.cursor(), &mut json);
                out.text(&json);
                Close::Frame(EXPIRED, "".into())
            }
            SessionEnd::HalfClosed => Close::code(CloseCode::Normal),
        }
    }
}

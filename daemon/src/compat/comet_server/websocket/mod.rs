//! The WebSocket of comet-server.ru's pages, as the script `CometServerApi.js` opens it.
//!
//! A pipe is the channel of the same name. A page changes its pipes by sending the complete list. Messages for one user are
//! those of the user's inbox, an internal channel, and arrive in the pipe `msg`.
//!
//! The script reconnects only if the connection ends without close frames. So none is sent, and that of the client is not
//! answered.

mod answers;
pub(crate) mod command;
mod endpoint;
pub(crate) mod envelope;
mod members;
pub(crate) mod url;

use std::net::IpAddr;

use comet_proto::{Attributes, ChannelName, Cursor, EventName, Message, Since};

use super::{
    SENDER, UserId, Users,
    connections::{CONNECTIONS, Seat, Visitor},
    inbox::{is_disconnect, is_inbox},
    pipes,
};
use crate::{
    access::permission::ReadPermission,
    config::Secret,
    http::date::unix_time,
    hub::Backlog,
    presence,
    session::{
        Publication, Session,
        dialect::{Close, Dialect, DialectKind, Frames, Heard, SessionEnd},
    },
};
use answers::write_error;
use command::{Command, CommandError, PipeList, WebMessage};
pub(crate) use endpoint::PageEndpoint;
use envelope::{Data, Envelope, Form, PRIVATE, SYSTEM};
use url::MissingField;

/// The name of this server in its first message.
const SERVER: &str = "comet";

/// A page's connection.
struct PageDialect {
    form: Form,
    /// What the page has said in its URL, until the connection is open.
    opening: Option<Result<Box<Opening>, OpeningError>>,
    /// `None`: the page is anonymous.
    user: Option<UserId>,
    seat: Option<Seat>,
    /// The membership in each of the page's pipes that tell who comes and goes.
    tracked: Vec<(ChannelName, presence::Seat)>,
    /// The user's membership in the pipe that tells whether the user is online.
    online: Option<presence::Seat>,
    uuid: String,
}

/// A page that connects.
struct Opening {
    key: String,
    site: String,
    secret: Secret,
    /// With the user that the page claims to be.
    visitor: Visitor,
}

impl Opening {
    /// With the address from which the page connects: that of a proxy, if there is one.
    fn from(mut self: Box<Self>, address: Option<IpAddr>) -> Box<Self> {
        self.visitor.ip = address.map(|ip| ip.to_string()).unwrap_or_default();
        self
    }
}

/// Why a page may not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum OpeningError {
    #[error("Error code 401(Invalid request, the user ID can not be found)")]
    NoUser,
    #[error("Error code 406(Invalid request, no public key found)")]
    NoSite,
    #[error("Error code 418(Invalid request Not assigned client api version)")]
    NoVersion,
    #[error("Error code 423({0})")]
    Origin(String),
}

impl From<MissingField> for OpeningError {
    fn from(missing: MissingField) -> Self {
        match missing {
            MissingField::User => Self::NoUser,
            MissingField::Site => Self::NoSite,
            MissingField::Version => Self::NoVersion,
        }
    }
}

impl PageDialect {
    fn new(form: Form, opening: Result<Box<Opening>, OpeningError>) -> Self {
        Self {
            form,
            opening: Some(opening),
            user: None,
            seat: None,
            tracked: Vec::new(),
            online: None,
            uuid: String::new(),
        }
    }

    /// Checks the user's key, and tells the page the result. Then the page gets the private messages that wait.
    fn enter(&mut self, opening: Opening, session: &mut Session, out: &mut Frames) {
        let http = session.http().clone();
        let site = http.site();
        let users = Users::new(http.audience().hub(), &*site.broker);
        let Opening {
            key,
            site: number,
            secret,
            mut visitor,
        } = opening;
        let now = unix_time().as_secs();
        let stored = visitor
            .user
            .and_then(|user| users.authorize(user, &key, &number, secret.text(), now));
        visitor.user = visitor.user.filter(|_| stored.is_some());
        self.user = visitor.user;
        self.uuid.clone_from(&visitor.uuid);
        let (seat, since) = users.enter(visitor);
        self.seat = Some(seat);
        let message = Envelope {
            authorized: Some(self.form.flag(stored.is_some())),
            data: Data::Text(stored.as_deref().unwrap_or_default()),
            event: "serverInfo",
            message_send_time: now,
            pipe: SYSTEM,
            server: Some(SERVER),
            ..Envelope::default()
        };
        self.form.write(message, out);
        if let Some(user) = self.user {
            self.open_inbox(user, since, session, out);
            self.online = Some(members::go_online(user, session));
        }
    }

    /// Delivers the private messages that wait, and subscribes to the later ones.
    fn open_inbox(&self, user: UserId, since: Cursor, session: &mut Session, out: &mut Frames) {
        let permission = ReadPermission::internal(Users::inbox(user));
        let mut cursor = since;
        loop {
            let backlog = session.history(&permission, Since::Id(cursor));
            for message in &backlog.messages {
                self.write_private(message, Some(true), out);
            }
            cursor = backlog.cursor;
            if !backlog.more {
                break;
            }
        }
        let added = session.subscribe(&permission, Some(Since::Id(cursor)));
        added.expect("internal channels are not counted");
    }

    fn write_private(&self, message: &Message, from_queue: Option<bool>, out: &mut Frames) {
        if is_disconnect(message) {
            return;
        }
        let data = String::from_utf8_lossy(&message.data);
        let envelope = Envelope {
            data: Data::Text(&data),
            event: message.name.as_str(),
            from_queue,
            message_send_time: seconds(message),
            pipe: PRIVATE,
            // After a crash of the daemon, messages may be delivered again.
            uuid: Some(message.id.to_string()),
            ..Envelope::default()
        };
        self.form.write(envelope, out);
    }

    fn write_message(
        &self,
        message: &Message,
        pipe: &ChannelName,
        is_saved: Option<bool>,
        out: &mut Frames,
    ) {
        let data = String::from_utf8_lossy(&message.data);
        let envelope = Envelope {
            data: Data::Text(&data),
            event: message.name.as_str(),
            from_queue: is_saved,
            history: is_saved,
            message_send_time: seconds(message),
            pipe,
            user_id: pipes::sender(message).parse().ok().filter(|user| *user > 0),
            ..Envelope::default()
        };
        self.form.write(envelope, out);
    }

    /// Makes the list of pipes the new one. Pipes that stay in the list lose no message.
    fn subscribe(&mut self, list: &PipeList, session: &mut Session, out: &mut Frames) {
        if list.is_cut {
            answers::write_too_many(self.form, out);
        }
        if list.has_long_name {
            write_error(self.form, &CommandError::Pipe, out);
        }
        let pipes = session.channels().iter().filter(|name| !name.is_internal());
        let dropped = pipes.filter(|pipe| !list.pipes.contains(*pipe));
        for pipe in dropped.cloned().collect::<Vec<_>>() {
            session.unsubscribe(&pipe);
            self.unfollow(&pipe, session);
        }
        for pipe in &list.pipes {
            if !session.channels().contains(pipe)
                && let Err(error) = self.add_pipe(pipe, session)
            {
                write_error(self.form, &error, out);
            }
        }
        if let Some(seat) = &self.seat {
            let pipes = session.channels().iter().filter(|name| !name.is_internal());
            CONNECTIONS.set_pipes(seat, pipes.cloned().collect());
        }
    }

    fn add_pipe(&mut self, pipe: &ChannelName, session: &mut Session) -> Result<(), CommandError> {
        if self.is_hidden(pipe) {
            return Ok(()); // the original server says nothing either
        }
        let permission = may_read(pipe, session)?;
        let added = session.subscribe(&permission, None);
        added.map_err(|error| CommandError::Refused(error.to_string()))?;
        self.follow(pipe, session);
        Ok(())
    }

    /// Whether only pages of a user may read the pipe, and this page is anonymous.
    fn is_hidden(&self, pipe: &ChannelName) -> bool {
        pipe.starts_with("private_") && self.user.is_none()
    }

    /// Publishes a message to all other subscribers of the pipe. Then the page gets a report.
    fn publish(
        &self,
        message: &WebMessage<'_>,
        session: &mut Session,
    ) -> Result<Heard, CommandError> {
        let WebMessage { pipe, payload, .. } = message;
        if message.needs_user() && self.user.is_none() {
            return Err(CommandError::Anonymous);
        }
        let permission = session.may_publish_by_name(pipe.clone().into());
        let permission =
            permission.map_err(|refusal| CommandError::Refused(refusal.message().to_owned()))?;
        let sender = self.user.filter(|_| message.is_signed);
        let attributes = sender.map(|user| Attributes::parse(&[(SENDER, user.to_string())]));
        let attributes = attributes.and_then(|checked| checked.expect("one short pair"));
        let is_subscribed = session.channels().contains(pipe);
        let facts = session.http().audience().hub().channel_facts(pipe);
        let readers = facts.map_or(0, |facts| facts.subscribers);
        let publication = Publication {
            label: EventName::parse(message.event).map_err(|_| CommandError::Event)?,
            data: payload.as_bytes(),
            attributes,
            key: None,
        };
        let receipt = session.publish(permission, publication);
        if let Some(id) = receipt.id().filter(|_| is_subscribed) {
            session.withhold(id);
        }
        let others = readers.saturating_sub(usize::from(is_subscribed));
        let report = answers::report(self.form, pipe, payload, others);
        Ok(Heard::Published(receipt, report))
    }

    fn serve(
        &mut self,
        command: Command<'_>,
        session: &mut Session,
        out: &mut Frames,
    ) -> Result<Heard, CommandError> {
        match command {
            Command::Subscribe(list) => self.subscribe(&list, session, out),
            Command::Publish(message) => return self.publish(&message, session),
            Command::Statistics => {}
            question => self.answer(question, session, out)?,
        }
        Ok(Heard::Done)
    }
}

fn seconds(message: &Message) -> u64 {
    message.id / 1_000_000
}

/// Checks that the rules of channels let pages read the pipe.
fn may_read(pipe: &ChannelName, session: &Session) -> Result<ReadPermission, CommandError> {
    let permission = session.may_read(pipe.clone().into());
    permission.map_err(|refusal| CommandError::Refused(refusal.message().to_owned()))
}

impl Dialect for PageDialect {
    fn kind(&self) -> DialectKind {
        DialectKind {
            form: Some(self.form.session_form()),
            sends_close: false,
        }
    }

    fn open(&mut self, session: &mut Session, out: &mut Frames) -> Result<(), Close> {
        match self.opening.take() {
            Some(Ok(opening)) => {
                self.enter(*opening, session, out);
                Ok(())
            }
            Some(Err(error)) => {
                answers::write_opening_error(self.form, &error, out);
                Err(Close::NoFrame)
            }
            None => Err(Close::NoFrame),
        }
    }

    fn hear(
        &mut self,
        text: &str,
        session: &mut Session,
        out: &mut Frames,
    ) -> Result<Heard, Close> {
        let served = Command::parse(text).and_then(|command| self.serve(command, session, out));
        Ok(served.unwrap_or_else(|error| {
            write_error(self.form, &error, out);
            Heard::Done
        }))
    }

    /// A gap is not shown, because the protocol has no word for it.
    fn tell(&self, backlog: &Backlog, out: &mut Frames) {
        for message in &backlog.messages {
            for channel in message.visible(&backlog.readable) {
                match channel.is_internal() {
                    true if is_inbox(channel) => self.write_private(message, None, out),
                    true => self.write_change(channel, message, out),
                    false => self.write_message(message, channel, None, out),
                }
            }
        }
    }

    fn ends_at(&self, backlog: &Backlog) -> Option<Close> {
        let ends = backlog
            .messages
            .iter()
            .any(|message| is_disconnect(message));
        ends.then_some(Close::NoFrame)
    }

    fn end(&self, _: SessionEnd, _: &Session, _: &mut Frames) -> Close {
        Close::NoFrame
    }

    fn closed(&mut self, session: &Session) {
        if let Some(seat) = self.seat.take() {
            let site = session.http().site();
            let users = Users::new(session.http().audience().hub(), &*site.broker);
            users.leave(seat, session.cursor());
        }
    }
}

//! The connection of a page: the dialect of pusher-js over a WebSocket.

use std::{borrow::Cow, sync::Arc, time::Duration};

use comet_proto::{Attributes, ChannelName, EventName, Message, Since};
use serde_json::json;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{
    app::App,
    channel::{ChannelKind, PusherChannel, TO_USER},
    frames::{
        EXCLUDED, TERMINATE, USER, attribute, client_events_of, presence_data, write_channel_event,
        write_error, write_event, write_message, write_subscription_error,
    },
    request::{ClientEvent, PageRequest, SignIn, Subscribe, User},
};
use crate::{
    access::permission::{PublishPermission, ReadPermission},
    broker::NotKept,
    hub::Backlog,
    presence::{Member, Members, Seat},
    session::{
        Publication, Session,
        dialect::{Close, Dialect, DialectKind, Frames, Heard, SessionEnd, SessionForm},
    },
};

/// Codes with which connections end (Pusher's documentation, "WebSocket protocol", section "Error codes"). After 4000 to 4099
/// pusher-js does not come back. After 4100 to 4199 it comes back after a second.
const UNAUTHORIZED: u16 = 4009;
const RETRY: u16 = 4100;
/// pusher-js comes back at once. Never used at the beginning of a connection, because that would be a storm.
const RELOAD: u16 = 4200;
/// The code of a refused client event. The connection stays open.
const CLIENT_EVENT: u16 = 4301;

/// The longest label of an event in bytes.
const MAX_EVENT: usize = EventName::MAX_LEN;

/// A page of an application.
pub(super) struct Page {
    app: Arc<App>,
    /// Names the connection: two numbers with a dot between them. Never given twice.
    socket_id: String,
    activity_timeout: Duration,
    /// The user who has signed in.
    user: Option<User>,
    /// The presence channels, and the id of the page's user in each.
    seats: Vec<(ChannelName, Arc<str>, Seat)>,
}

impl Page {
    pub(super) fn new(app: Arc<App>, socket_id: String, activity_timeout: Duration) -> Self {
        Self {
            app,
            socket_id,
            activity_timeout,
            user: None,
            seats: Vec::new(),
        }
    }

    fn subscribe(&mut self, ask: &Subscribe, session: &mut Session, out: &mut Frames) {
        let refuse = |status, error: &dyn std::fmt::Display, out: &mut Frames| {
            write_subscription_error(&ask.channel, status, &error.to_string(), out);
        };
        let channel = match PusherChannel::parse(&self.app, &ask.channel) {
            Ok(channel) => channel,
            Err(error) => return refuse(400, &error, out),
        };
        let permission = match self.permission(&channel, ask, session) {
            Ok(permission) => permission,
            Err((status, error)) => return refuse(status, &error, out),
        };
        let is_new = !session.channels().contains(&channel.channel);
        let members = match self.enter(&channel, ask, session) {
            Ok(members) => members,
            Err((status, error)) => return refuse(status, &error, out),
        };
        // The last event is read before the subscription begins, which then continues behind it.
        let last = (channel.is_cache && is_new).then(|| last_event(&permission, session, is_new));
        let since = last.as_ref().map(|(since, _)| *since);
        if let Err(error) = session.subscribe(&permission, since) {
            self.seats.retain(|(known, ..)| *known != channel.channel);
            return refuse(403, &error, out);
        }
        if is_new && channel.kind != ChannelKind::Public {
            self.subscribe_to_client_events(&channel.channel, session);
        }
        if let (Some(members), Some(changes)) = (&members, channel.channel.presence()) {
            let since = Since::Id(members.cursor);
            // Internal channels do not count towards the limit.
            let _ = session.subscribe(&ReadPermission::internal(changes), Some(since));
        }
        let succeeded = "pusher_internal:subscription_succeeded";
        let data = members.as_ref().map(presence_data);
        let data = data.as_deref().unwrap_or("{}");
        write_event(succeeded, Some(channel.name), data, out);
        match last {
            Some((_, Some(message))) => write_channel_event(channel.name, &message, out),
            Some((_, None)) => write_event("pusher:cache_miss", Some(channel.name), "{}", out),
            None => {}
        }
    }

    /// Makes the page's user a member of a presence channel. Returns the members, `None` for other channels. The error has a
    /// status and a text.
    fn enter(
        &mut self,
        channel: &PusherChannel<'_>,
        ask: &Subscribe,
        session: &Session,
    ) -> Result<Option<Members>, (u16, String)> {
        if channel.kind != ChannelKind::Presence {
            return Ok(None);
        }
        let described = ask.channel_data.as_deref().map(User::of_channel_data);
        let user = described.unwrap_or_else(|| self.user.clone());
        let user = user.ok_or((400, "channel_data needs a user_id".to_owned()))?;
        let member = Member::new(&user.id, user.info.as_ref())
            .map_err(|error| (400, format!("member: {error}")))?;
        let (presence, name) = (&session.http().site().presence, &channel.channel);
        let is_known = self.seats.iter().any(|(known, ..)| known == name);
        if presence.members(name, None).count >= Members::MAX && !is_known {
            let error = format!("a presence channel has at most {} members", Members::MAX);
            return Err((403, error));
        }
        if !is_known {
            // Pages learn at once when a user's last page has left.
            let seat = Seat::enter(presence, name, &member, Duration::ZERO);
            self.seats.push((name.clone(), member.id().clone(), seat));
        }
        Ok(Some(presence.members(name, None)))
    }

    /// Checks the right to subscribe. The error has a status and a text.
    fn permission(
        &self,
        channel: &PusherChannel<'_>,
        ask: &Subscribe,
        session: &Session,
    ) -> Result<ReadPermission, (u16, String)> {
        let refused = |refusal: crate::http::refusal::Refusal| (403, refusal.message().to_owned());
        let by_signature = match (channel.kind, &ask.channel_data) {
            (ChannelKind::Public, _) => {
                let channels = channel.channel.clone().into();
                return session.may_read(channels).map_err(refused);
            }
            (ChannelKind::ToUser, _) => {
                let user = channel.name.strip_prefix(TO_USER);
                user.is_some() && user == self.user.as_ref().map(|user| &*user.id)
            }
            (_, Some(data)) => {
                let text = format!("{}:{}:{data}", self.socket_id, channel.name);
                self.app.has_authorized(&text, &ask.auth)
            }
            (_, None) => {
                let text = format!("{}:{}", self.socket_id, channel.name);
                self.app.has_authorized(&text, &ask.auth)
            }
        };
        if !by_signature {
            let error = match channel.kind {
                ChannelKind::ToUser => "this channel is for the user who has signed in",
                _ => {
                    "the signature in auth is not that of the app's secret for this socket_id and channel"
                }
            };
            return Err((401, error.into()));
        }
        session
            .may_read_signed(channel.channel.clone())
            .map_err(refused)
    }

    fn subscribe_to_client_events(&self, channel: &ChannelName, session: &mut Session) {
        if let Some(events) = client_events_of(channel).filter(|_| self.app.client_events) {
            let permission = ReadPermission::internal(events);
            // Internal channels do not count towards the limit.
            let _ = session.subscribe(&permission, None);
        }
    }

    fn unsubscribe(&mut self, name: &str, session: &mut Session) {
        let Ok(PusherChannel { channel, .. }) = PusherChannel::parse(&self.app, name) else {
            return;
        };
        session.unsubscribe(&channel);
        if let Some(events) = client_events_of(&channel) {
            session.unsubscribe(&events);
        }
        if let Some(changes) = channel.presence() {
            session.unsubscribe(&changes);
        }
        self.seats.retain(|(known, ..)| *known != channel);
    }

    fn sign_in(
        &mut self,
        ask: &SignIn,
        session: &mut Session,
        out: &mut Frames,
    ) -> Result<(), Close> {
        let text = format!("{}::user::{}", self.socket_id, ask.user_data);
        let unauthorized = |reason: &'static str| Close::Frame(UNAUTHORIZED, reason.into());
        if !self.app.has_authorized(&text, &ask.auth) {
            let reason = "the signature of user_data is not that of the app's secret";
            write_error(UNAUTHORIZED, reason, None, out);
            return Err(unauthorized(reason));
        }
        let Some(user) = User::of_user_data(&ask.user_data) else {
            let reason = "user_data needs the text id";
            write_error(UNAUTHORIZED, reason, None, out);
            return Err(unauthorized(reason));
        };
        if self.user.as_ref().is_some_and(|known| known.id != user.id) {
            let reason = "this connection has signed in as another user";
            write_error(UNAUTHORIZED, reason, None, out);
            return Ok(());
        }
        if let Some(orders) = self.app.user_channel(&user.id) {
            let _ = session.subscribe(&ReadPermission::internal(orders), None);
        }
        self.user = Some(user);
        let data = json!({"user_data": ask.user_data}).to_string();
        write_event("pusher:signin_success", None, &data, out);
        Ok(())
    }

    /// Publishes an event of the page for the other pages of the channel.
    fn client_event(
        &self,
        event: &ClientEvent<'_>,
        session: &Session,
        out: &mut Frames,
    ) -> Result<Heard, Close> {
        match self.publish(event, session) {
            Ok(heard) => Ok(heard),
            Err(error) => {
                write_error(CLIENT_EVENT, &error, Some(&event.channel), out);
                Ok(Heard::Done)
            }
        }
    }

    fn publish(&self, event: &ClientEvent<'_>, session: &Session) -> Result<Heard, String> {
        if !self.app.client_events {
            return Err("client events are off for this app: client_events = false".into());
        }
        let channel =
            PusherChannel::parse(&self.app, &event.channel).map_err(|error| error.to_string())?;
        let is_closed = matches!(channel.kind, ChannelKind::Private | ChannelKind::Presence);
        if !is_closed || !session.channels().contains(&channel.channel) {
            return Err(
                "client events are for private and presence channels to which the page has subscribed"
                    .into(),
            );
        }
        let name = EventName::parse(&event.event).map_err(|_| {
            format!("the name of an event has at most {MAX_EVENT} bytes without control characters")
        })?;
        let events = client_events_of(&channel.channel).ok_or("the channel's name is too long")?;
        let mut attributes = vec![(EXCLUDED, &*self.socket_id)];
        let member = self
            .seats
            .iter()
            .find(|(known, ..)| *known == channel.channel);
        attributes.extend(member.map(|(_, user, _)| (USER, &**user)));
        let publication = Publication {
            label: name,
            data: event.data.as_bytes(),
            attributes: Attributes::parse(&attributes).map_err(|error| error.to_string())?,
            key: None,
        };
        let receipt = session.publish(PublishPermission::internal(events), publication);
        if let Some(reason) = receipt.refusal() {
            return Err(reason.to_string());
        }
        // pusher-js expects no answer.
        let nothing = |_: Result<u64, NotKept>, _: &mut Frames| {};
        Ok(Heard::Published(receipt, Box::new(nothing)))
    }
}

/// The last event of a channel that the page has not got, and the id behind which the page reads on.
fn last_event(
    permission: &ReadPermission,
    session: &Session,
    is_new: bool,
) -> (Since, Option<Arc<Message>>) {
    let hub = session.http().audience().hub();
    let cursor = hub.last();
    let newest = hub.newest(&permission.channels()[0], 1).pop();
    let last = newest.filter(|message| is_new && message.id <= cursor.0);
    (Since::Id(cursor), last)
}

impl Dialect for Page {
    fn kind(&self) -> DialectKind {
        DialectKind {
            form: Some(SessionForm::Pusher),
            sends_close: true,
        }
    }

    fn open(&mut self, _: &mut Session, out: &mut Frames) -> Result<(), Close> {
        let data = json!({"socket_id": self.socket_id, "activity_timeout": self.activity_timeout.as_secs()});
        write_event(
            "pusher:connection_established",
            None,
            &data.to_string(),
            out,
        );
        Ok(())
    }

    fn hear(
        &mut self,
        text: &str,
        session: &mut Session,
        out: &mut Frames,
    ) -> Result<Heard, Close> {
        match PageRequest::parse(text) {
            Ok(PageRequest::Ping) => write_event("pusher:pong", None, "{}", out),
            Ok(PageRequest::Nothing) => {}
            Ok(PageRequest::Subscribe(ask)) => self.subscribe(&ask, session, out),
            Ok(PageRequest::Unsubscribe(name)) => self.unsubscribe(&name, session),
            Ok(PageRequest::SignIn(ask)) => self.sign_in(&ask, session, out)?,
            Ok(PageRequest::ClientEvent(event)) => return self.client_event(&event, session, out),
            Err(error) => write_error(RELOAD, &format!("invalid message: {error}"), None, out),
        }
        Ok(Heard::Done)
    }

    fn tell(&self, backlog: &Backlog, out: &mut Frames) {
        for message in &backlog.messages {
            write_message(message, &backlog.readable, out);
        }
    }

    fn withholds(&self, message: &Message) -> bool {
        attribute(message, EXCLUDED) == Some(&*self.socket_id)
    }

    /// Ends the connection at a gap, because Pusher's protocol cannot report one. pusher-js then connects again at once, and the page
    /// can load its state when it is connected.
    fn ends_at(&self, backlog: &Backlog) -> Option<Close> {
        if backlog.gap {
            return Some(Close::Frame(RELOAD, "messages are missing".into()));
        }
        let user = self.app.user_channel(&self.user.as_ref()?.id)?;
        let ends = |message: &Arc<Message>| {
            message.channels[0] == user && message.name.as_str() == TERMINATE
        };
        let mut messages = backlog.messages.iter();
        messages.any(ends).then(|| {
            Close::Frame(
                UNAUTHORIZED,
                "the app has ended the user's connections".into(),
            )
        })
    }

    fn end(&self, end: SessionEnd, _: &Session, _: &mut Frames) -> Close {
        match end {
            // pusher-js comes back after a second, and reports no error to the page.
            SessionEnd::Reconnect(_) => Close::code(CloseCode::Away),
            SessionEnd::Expired => Close::Frame(RETRY, "the token has expired".into()),
            SessionEnd::HalfClosed => Close::code(CloseCode::Normal),
        }
    }
}

/// A page that is told why it gets no connection.
pub(super) struct RefusedPage {
    pub(super) code: u16,
    pub(super) reason: Cow<'static, str>,
}

impl Dialect for RefusedPage {
    fn kind(&self) -> DialectKind {
        DialectKind {
            form: None,
            sends_close: true,
        }
    }

    fn open(&mut self, _: &mut Session, out: &mut Frames) -> Result<(), Close> {
        write_error(self.code, &self.reason, None, out);
        Err(Close::Frame(self.code, self.reason.clone()))
    }

    fn hear(&mut self, _: &str, _: &mut Session, _: &mut Frames) -> Result<Heard, Close> {
        Ok(Heard::Done)
    }

    fn tell(&self, _: &Backlog, _: &mut Frames) {}

    fn end(&self, _: SessionEnd, _: &Session, _: &mut Frames) -> Close {
        Close::code(CloseCode::Away)
    }
}

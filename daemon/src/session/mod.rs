//! A session: a client that changes what it has subscribed to, and publishes, over one connection. [`Session`] is the same
//! for all protocols. A [`Dialect`] turns the client's texts into calls of the session and messages into texts, and a
//! carrier such as [`WebSocket`](websocket::WebSocket) moves the texts.

pub(crate) mod comet;
pub(crate) mod dialect;
mod endpoint;
#[cfg(test)]
mod tests;
pub(crate) mod websocket;

use std::{collections::HashMap, num::NonZeroU32, rc::Rc};

use comet_proto::{
    Attributes, ChannelName, ChannelNames, ChannelNamesError, Cursor, EventName, MAX_CHANNELS,
    Since,
};

use crate::{
    access::permission::{Credentials, PublishPermission, ReadPermission},
    api,
    broker::{Receipt, SourceKind},
    connection::memory,
    http::{Http, Site, date::unix_time, refusal::Refusal},
    hub::{
        Backlog, ChannelSet, NewMessage, PublisherKey, RightEnds,
        subscriber::{Feed, SharedBacklog, Subscriber},
    },
    presence::{self, Member},
};
pub(crate) use endpoint::SessionEndpoint;

/// The channels of one client, and its rights.
///
/// What is meant for this client alone, such as a message to a user or an order to disconnect, is a message of an internal
/// channel to which its session subscribes. So it comes from any thread, in order with the others, and within the limits of
/// the history.
pub(crate) struct Session {
    http: Rc<Http>,
    set: ChannelSet,
    /// One for each channel, in the order of the channels.
    seats: Vec<Seat>,
    /// When the first seat ends.
    first_end: Option<NonZeroU32>,
    credentials: Credentials,
    /// Ids of messages that this client has published and must not get.
    withheld: Vec<u64>,
    /// There was a gap that no backlog contained. The next backlog contains it.
    has_pending_gap: bool,
    /// New settings have ended the rights.
    is_revoked: bool,
}

/// A subscription to one channel.
#[derive(Default)]
struct Seat {
    /// When the right to read the channel ends, in seconds since 1970. `None`: never.
    ends: Option<NonZeroU32>,
    /// The right comes from the rules of channels, and may end with new rules.
    by_rules: bool,
    /// Set if the client is a member of the channel.
    presence: Option<Box<presence::Seat>>,
}

/// A message that a client publishes.
#[derive(Debug, Default)]
pub(crate) struct Publication<'a> {
    pub(crate) label: EventName,
    pub(crate) data: &'a [u8],
    pub(crate) attributes: Option<Box<Attributes>>,
    pub(crate) key: Option<&'a str>,
}

impl Session {
    /// A session without channels, whose messages are delivered to this connection.
    pub(crate) fn new(
        http: &Rc<Http>,
        subscriber: Rc<dyn Subscriber>,
        credentials: Credentials,
    ) -> Self {
        http.site().metrics.subscribers.add(1);
        Self {
            http: http.clone(),
            set: ChannelSet::join(http.audience(), subscriber),
            seats: Vec::new(),
            first_end: None,
            credentials,
            withheld: Vec::new(),
            has_pending_gap: false,
            is_revoked: false,
        }
    }

    /// The channels, in the order in which they were added.
    pub(crate) fn channels(&self) -> &[ChannelName] {
        self.set.channels()
    }

    /// The cursor with which the client can continue in another session.
    pub(crate) fn cursor(&self) -> Cursor {
        self.set.cursor()
    }

    pub(crate) fn http(&self) -> &Rc<Http> {
        &self.http
    }

    /// Checks that the client may read `channels`, by the rules and its token.
    pub(crate) fn may_read(&self, channels: ChannelNames) -> Result<ReadPermission, Refusal> {
        let site = self.http.site();
        self.credentials.may_read(api::rights(&site), channels)
    }

    /// Like [`Session::may_read`], for a client that also wants to be a member of the channels. `chosen`: the id that the client
    /// has chosen.
    pub(crate) fn may_join(
        &self,
        channels: ChannelNames,
        chosen: Option<&str>,
    ) -> Result<ReadPermission, Refusal> {
        let site = self.http.site();
        self.credentials
            .may_join(api::rights(&site), channels, chosen)
    }

    /// The right to read a channel to which another server's protocol admits the client, by a signature of that protocol.
    pub(crate) fn may_read_signed(&self, channel: ChannelName) -> Result<ReadPermission, Refusal> {
        let site = self.http.site();
        ReadPermission::signed(api::rights(&site), channel)
    }

    /// Checks that the client may publish to `channels`, by the rules and its token.
    pub(crate) fn may_publish(&self, channels: ChannelNames) -> Result<PublishPermission, Refusal> {
        let site = self.http.site();
        self.credentials
            .may_publish(api::rights(&site), &site, channels)
    }

    /// Like [`Session::may_publish`], for a protocol in which the names of channels say who may publish: channels without a rule
    /// are open.
    pub(crate) fn may_publish_by_name(
        &self,
        channels: ChannelNames,
    ) -> Result<PublishPermission, Refusal> {
        let site = self.http.site();
        self.credentials
            .may_publish_by_name(api::rights(&site), &site, channels)
    }

    /// Adds channels, of which messages after `since` are delivered (`None`: from now on). The other channels continue as
    /// before.
    ///
    /// # Errors
    /// There would be more than [`MAX_CHANNELS`]. No channel was added.
    pub(crate) fn subscribe(
        &mut self,
        permission: &ReadPermission,
        since: Option<Since>,
    ) -> Result<(), ChannelNamesError> {
        let (channels, right) = (permission.channels(), permission.right());
        let known = self.channels();
        let new = channels.iter().filter(|name| !known.contains(name));
        let all = known.iter().chain(new);
        let count = all.filter(|name| !name.is_internal()).count();
        if count > MAX_CHANNELS {
            return Err(ChannelNamesError::TooMany(count));
        }
        let hub = self.http.audience().hub();
        let since = since.map(|since| hub.resolve(since));
        let withheld = since.and_then(|since| right.withheld(hub, channels, since));
        self.has_pending_gap |= withheld.is_some();
        // The client enters before it subscribes, so that it does not get its own presence message.
        let mut entered = self.enter(permission);
        let mut channels = channels.to_vec();
        if permission.joining().is_some() {
            let presence: Vec<_> = channels.iter().filter_map(ChannelName::presence).collect();
            channels.extend(presence);
        }
        memory::sub_channels(self.set.channels());
        self.set.add(&channels, withheld.or(since));
        memory::add_channels(self.set.channels());
        self.seats
            .resize_with(self.set.channels().len(), Seat::default);
        let ends = right.expires.map(|second| {
            let second = u32::try_from(second).unwrap_or(u32::MAX);
            NonZeroU32::new(second).unwrap_or(NonZeroU32::MIN)
        });
        for (channel, seat) in self.set.channels().iter().zip(&mut self.seats) {
            if channels.contains(channel) {
                (seat.ends, seat.by_rules) = (ends, permission.is_by_rules());
                let entered = entered.remove(channel).map(Box::new);
                seat.presence = seat.presence.take().or(entered);
            }
        }
        self.find_first_end();
        Ok(())
    }

    /// Makes the client a member of the channels of which it is none yet.
    fn enter(&self, permission: &ReadPermission) -> HashMap<ChannelName, presence::Seat> {
        let joining = permission.joining();
        let Some(member) = joining.and_then(|joining| joining.member.as_ref()) else {
            return HashMap::new();
        };
        let site = self.http.site();
        let is_member = |channel: &ChannelName| {
            let mut seats = self.set.channels().iter().zip(&self.seats);
            seats.any(|(known, seat)| known == channel && seat.presence.is_some())
        };
        let channels = permission.channels().iter();
        let new = channels.filter(|channel| !is_member(channel));
        new.map(|channel| (channel.clone(), enter(&site, channel, member)))
            .collect()
    }

    /// Drops a channel. Returns false if the client had not subscribed to it.
    pub(crate) fn unsubscribe(&mut self, channel: &ChannelName) -> bool {
        let removed = self.remove(channel);
        if let Some(presence) = channel.presence() {
            self.remove(&presence);
        }
        self.find_first_end();
        removed
    }

    fn remove(&mut self, channel: &ChannelName) -> bool {
        let known = self.channels().iter().position(|name| name == channel);
        let Some(place) = known else {
            return false;
        };
        memory::sub_channels(self.set.channels());
        self.set.remove(channel);
        memory::add_channels(self.set.channels());
        self.seats.remove(place);
        true
    }

    /// Publishes a message. The receipt says when the client may learn that the message is kept.
    pub(crate) fn publish(
        &self,
        permission: PublishPermission,
        message: Publication<'_>,
    ) -> Receipt {
        let (channels, publisher) = permission.into_parts();
        let site = self.http.site();
        let receipt = site.broker.publish(
            SourceKind::Client,
            NewMessage {
                channels,
                name: message.label,
                data: message.data.into(),
                attributes: message.attributes,
                key: message.key.map(|key| PublisherKey { publisher, key }),
            },
        );
        if receipt.refusal().is_none() {
            site.metrics.published_http.add(1);
        }
        receipt
    }

    /// Keeps the message with this id from this client. To be called right after the client has published the message.
    pub(crate) fn withhold(&mut self, id: u64) {
        self.withheld.push(id);
    }

    /// Reads what is kept of channels after a cursor.
    pub(crate) fn history(&self, permission: &ReadPermission, since: Since) -> Backlog {
        let hub = self.http.audience().hub();
        let (channels, since) = (permission.channels(), hub.resolve(since));
        let withheld = permission.right().withheld(hub, channels, since);
        let mut backlog = hub.since(channels, withheld.unwrap_or(since));
        backlog.gap |= withheld.is_some();
        backlog
    }

    /// Replaces the token. The new token must grant reading the channels that the client reads by a token. Returns when the new
    /// token expires, in seconds since 1970.
    pub(crate) fn replace_token(&mut self, token: &str) -> Result<u64, Refusal> {
        let (site, before) = (self.http.site(), self.credentials.member().ok().flatten());
        let seats = self.set.channels().iter().zip(&self.seats);
        // Who may read a channel may read its presence messages.
        let by_token =
            seats.filter(|(channel, seat)| seat.ends.is_some() && !channel.is_internal());
        let needed: Vec<&ChannelName> = by_token.map(|(channel, _)| channel).collect();
        let expires = self
            .credentials
            .replace(api::rights(&site), token, &needed)?;
        let ends = NonZeroU32::new(u32::try_from(expires).unwrap_or(u32::MAX));
        for seat in self.seats.iter_mut().filter(|seat| seat.ends.is_some()) {
            seat.ends = ends;
        }
        self.find_first_end();
        let member = self.credentials.member().ok().flatten();
        if before.is_some() && member != before {
            self.change_member(member.as_ref());
        }
        Ok(expires)
    }

    /// The client's token has another member now, or none.
    fn change_member(&mut self, member: Option<&Member>) {
        let site = self.http.site();
        for (channel, seat) in self.set.channels().iter().zip(&mut self.seats) {
            if seat.presence.is_some() {
                let entered = member.map(|member| enter(&site, channel, member));
                seat.presence = entered.map(Box::new);
            }
        }
    }

    /// Reads the new messages, at most `bytes`; a larger message comes alone. `None`: there are none, and the connection is
    /// called at the next message.
    pub(crate) fn take_news(&mut self, bytes: usize) -> Option<Backlog> {
        let mut backlog = self.set.read(bytes);
        self.adapt(&mut backlog);
        backlog.is_news().then_some(backlog)
    }

    /// Like [`Session::take_news`], during a delivery. A backlog that is the same for many sessions is read and rendered once.
    pub(crate) fn take_shared_news(&mut self, feed: &mut Feed<'_>) -> Option<Rc<SharedBacklog>> {
        let shared = self.set.read_shared(feed);
        if !self.has_pending_gap && self.withheld.is_empty() {
            return shared.backlog().is_news().then_some(shared);
        }
        let mut own = shared.backlog().clone();
        self.adapt(&mut own);
        own.is_news().then(|| Rc::new(SharedBacklog::new(own)))
    }

    /// Makes the backlog of all readers that of this client.
    fn adapt(&mut self, backlog: &mut Backlog) {
        backlog.gap |= std::mem::take(&mut self.has_pending_gap);
        if self.withheld.is_empty() {
            return;
        }
        backlog
            .messages
            .retain(|message| !self.withheld.contains(&message.id));
        self.withheld.retain(|id| *id > backlog.cursor.0);
    }

    /// When the first right ends.
    pub(crate) fn ends(&self) -> RightEnds {
        if self.is_revoked {
            return RightEnds::Revoked;
        }
        self.first_end.map_or(RightEnds::Never, |second| {
            RightEnds::At(second.get().into())
        })
    }

    /// Must be called when the seats have changed.
    fn find_first_end(&mut self) {
        self.first_end = self.seats.iter().filter_map(|seat| seat.ends).min();
    }

    /// Whether a right has ended.
    pub(crate) fn has_ended(&self) -> bool {
        match self.ends() {
            RightEnds::Never => false,
            RightEnds::Revoked => true,
            RightEnds::At(second) => second <= unix_time().as_secs(),
        }
    }

    /// Checks the rights after a change of the settings. If new settings may refuse what the session does, all its rights
    /// end.
    pub(crate) fn check_rights(&mut self) {
        let Some(before) = self.http.site_before() else {
            return;
        };
        let (site, by_token) = (self.http.site(), self.credentials.has_token());
        let (rights, before) = (api::rights(&site), api::rights(&before));
        let seats = self.set.channels().iter().zip(&self.seats);
        let by_rules = seats.filter(|(_, seat)| seat.by_rules);
        let by_rules: Vec<ChannelName> = by_rules.map(|(channel, _)| channel.clone()).collect();
        self.is_revoked |= rights.end(before, &by_rules, by_token)
            || (by_token && !rights.accept_tokens_of(before))
            || !self.credentials.page_is_allowed(&site);
    }
}

/// Makes a client a member of a channel.
fn enter(site: &Site, channel: &ChannelName, member: &Member) -> presence::Seat {
    let grace = api::rights(site).grace(channel);
    presence::Seat::enter(&site.presence, channel, member, grace)
}

impl Drop for Session {
    fn drop(&mut self) {
        self.http.site().metrics.subscribers.sub(1);
        memory::sub_channels(self.set.channels());
    }
}

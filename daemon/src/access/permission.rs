//! The rights of a client that asks for many things over one connection. The client's page and token are checked once,
//! when the connection begins. What the client asks for later is checked against the rules of that moment.
//!
//! Only this module makes a [`ReadPermission`] and a [`PublishPermission`]. A session subscribes and publishes with such
//! a permission only, so no protocol can forget to check the right.

use comet_proto::{ChannelName, ChannelNames};

use super::{
    Caller, Rights, check_use,
    member::no_member,
    rules::ReadRight,
    token::{Grant, TokenError},
};
use crate::{
    config::TokenRight,
    http::{
        cors::Cors,
        date::unix_time,
        refusal::{Reason, Refusal},
        site::Site,
    },
    hub::Publisher,
    presence::Member,
};

/// The right to read these channels.
pub(crate) struct ReadPermission {
    channels: ChannelNames,
    right: ReadRight,
    is_by_rules: bool,
    joining: Option<Joining>,
}

/// A client gets the presence messages of its channels, and becomes a member of them if it has an identity.
#[derive(Clone)]
pub(crate) struct Joining {
    pub(crate) member: Option<Member>,
}

/// The right to publish one message to these channels.
pub(crate) struct PublishPermission {
    channels: ChannelNames,
    publisher: Publisher,
}

/// What a client has proved when its connection began, and its present token.
#[derive(Default)]
pub(crate) struct Credentials {
    token: Token,
    /// The listed origin of the client's page.
    origin: Option<Cors>,
}

/// The token of a client.
#[derive(Default)]
enum Token {
    #[default]
    None,
    Valid(Box<Grant>),
    /// The refusal for uses that need a token. Other uses are allowed.
    Refused(Box<Refusal>),
}

impl Credentials {
    /// The credentials of the request that begins the connection. Checks that its page may open a WebSocket.
    pub(crate) fn of(caller: &Caller<'_>) -> Result<Self, Refusal> {
        caller.may_open_websocket()?;
        let token = match caller.grant() {
            Ok(grant) => Token::Valid(Box::new(grant)),
            Err(refusal) if refusal.is_without_token() => Token::None,
            Err(refusal) => Token::Refused(Box::new(refusal)),
        };
        let origin = Some(caller.listed_origin()).filter(|cors| *cors != Cors::None);
        Ok(Self { token, origin })
    }

    /// Checks that all of `channels` may be read.
    pub(crate) fn may_read(
        &self,
        rights: &Rights,
        channels: ChannelNames,
    ) -> Result<ReadPermission, Refusal> {
        let mut right = ReadRight::default();
        rights.check_read(&channels, |channel| {
            let grant = self.grant(TokenRight::Subscribe, channel)?;
            right = rights.granted(grant);
            Ok(())
        })?;
        Ok(ReadPermission {
            channels,
            right,
            is_by_rules: true,
            joining: None,
        })
    }

    /// Like [`Credentials::may_read`], for a client that also wants to be a member of the channels. `chosen`: the id that the
    /// client has chosen.
    pub(crate) fn may_join(
        &self,
        rights: &Rights,
        channels: ChannelNames,
        chosen: Option<&str>,
    ) -> Result<ReadPermission, Refusal> {
        let member = rights.member(&channels, self.member()?, chosen)?;
        let mut permission = self.may_read(rights, channels)?;
        permission.joining = Some(Joining { member });
        Ok(permission)
    }

    /// The member of the client's token. `None`: the client has no token, or the token has no subject.
    pub(crate) fn member(&self) -> Result<Option<Member>, Refusal> {
        match &self.token {
            Token::Valid(grant) if grant.expires <= unix_time().as_secs() => {
                Err(refused(&TokenError::Expired))
            }
            Token::Valid(grant) => grant.member().map_err(no_member),
            Token::Refused(refusal) if refusal.reason() == Reason::Forbidden => Ok(None),
            Token::Refused(refusal) => Err((**refusal).clone()),
            Token::None => Ok(None),
        }
    }

    /// Checks that a message may be published to all of `channels`. The page was checked when the connection began.
    pub(crate) fn may_publish(
        &self,
        rights: &Rights,
        site: &Site,
        channels: ChannelNames,
    ) -> Result<PublishPermission, Refusal> {
        let mut subject = 0;
        rights.check_publish(&channels, |channel| {
            subject = self.grant(TokenRight::Publish, channel)?.subject;
            Ok(())
        })?;
        if site.is_stopping() {
            return Err(Refusal::stopping());
        }
        let publisher = Publisher::Http(subject);
        Ok(PublishPermission {
            channels,
            publisher,
        })
    }

    /// Like [`Credentials::may_publish`], but channels without a rule are open. For a protocol in which the names of channels say
    /// who may publish: whoever configures the protocol wants these names to work.
    pub(crate) fn may_publish_by_name(
        &self,
        rights: &Rights,
        site: &Site,
        channels: ChannelNames,
    ) -> Result<PublishPermission, Refusal> {
        match channels
            .iter()
            .any(|channel| rights.has_publish_rule(channel))
        {
            true => self.may_publish(rights, site, channels),
            false if site.is_stopping() => Err(Refusal::stopping()),
            false => Ok(PublishPermission {
                channels,
                publisher: Publisher::Http(0),
            }),
        }
    }

    /// Replaces the token. The new token must grant reading `needed`: the channels that the client reads by the token so far.
    /// Returns the time at which the new token expires, in seconds since 1970.
    pub(crate) fn replace(
        &mut self,
        rights: &Rights,
        token: &str,
        needed: &[&ChannelName],
    ) -> Result<u64, Refusal> {
        let grant = verify(rights, token)?;
        for channel in needed {
            check_use(&grant, TokenRight::Subscribe, channel)?;
        }
        let expires = grant.expires;
        self.token = Token::Valid(Box::new(grant));
        Ok(expires)
    }

    pub(crate) fn has_token(&self) -> bool {
        matches!(self.token, Token::Valid(_))
    }

    /// Whether the settings still allow the client's page.
    pub(crate) fn page_is_allowed(&self, site: &Site) -> bool {
        self.origin
            .is_none_or(|origin| site.origins.still_allow(origin))
    }

    /// The client's grant, if it allows this use of the channel now.
    fn grant(&self, what: TokenRight, channel: &ChannelName) -> Result<&Grant, Refusal> {
        let grant = match &self.token {
            Token::Valid(grant) => grant,
            Token::Refused(refusal) => return Err((**refusal).clone()),
            Token::None => {
                let message = format!("{channel} needs a token");
                return Err(Refusal::new(Reason::NoToken, message));
            }
        };
        if grant.expires <= unix_time().as_secs() {
            return Err(refused(&TokenError::Expired));
        }
        check_use(grant, what, channel)?;
        Ok(grant)
    }
}

impl ReadPermission {
    /// The right of the daemon itself to read an internal channel for a client.
    pub(crate) fn internal(channel: ChannelName) -> Self {
        assert!(channel.is_internal(), "{channel} is a channel of clients");
        Self {
            channels: channel.into(),
            right: ReadRight::default(),
            is_by_rules: false,
            joining: None,
        }
    }

    pub(crate) fn joining(&self) -> Option<&Joining> {
        self.joining.as_ref()
    }

    /// The right of a client that another server's protocol admits to the channel, by a signature of that protocol. A rule that
    /// closes the channel takes precedence.
    pub(crate) fn signed(rights: &Rights, channel: ChannelName) -> Result<Self, Refusal> {
        rights.check_not_closed(&channel)?;
        Ok(Self {
            channels: channel.into(),
            right: ReadRight::default(),
            is_by_rules: false,
            joining: None,
        })
    }

    /// Whether the right comes from the rules of channels.
    pub(crate) fn is_by_rules(&self) -> bool {
        self.is_by_rules
    }

    pub(crate) fn channels(&self) -> &ChannelNames {
        &self.channels
    }

    pub(crate) fn right(&self) -> ReadRight {
        self.right
    }
}

impl PublishPermission {
    /// The right of the daemon itself to publish to an internal channel for a client.
    pub(crate) fn internal(channel: ChannelName) -> Self {
        assert!(channel.is_internal(), "{channel} is a channel of clients");
        Self {
            channels: channel.into(),
            publisher: Publisher::Http(0),
        }
    }

    /// The channels, and the publisher to whom idempotency keys belong.
    pub(crate) fn into_parts(self) -> (ChannelNames, Publisher) {
        (self.channels, self.publisher)
    }
}

/// Verifies a token.
pub(super) fn verify(rights: &Rights, token: &str) -> Result<Grant, Refusal> {
    let verified = rights.tokens.verify(token, unix_time().as_secs());
    verified.map_err(|error| refused(&error))
}

fn refused(error: &TokenError) -> Refusal {
    let reason = match error {
        TokenError::Expired => Reason::TokenExpired,
        _ => Reason::InvalidToken,
    };
    Refusal::new(reason, format!("token: {error}"))
}

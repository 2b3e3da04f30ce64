//! Access rights over HTTP: whether a request may read or publish. The rule of the channel decides first. If this rule
//! asks for a token, the token of the request decides. A publish and a WebSocket also depend on the page that sent the
//! request.

mod bearer;
pub(crate) mod hosts;
mod member;
mod page;
pub(crate) mod permission;
pub(crate) mod rules;
pub mod token;

use std::collections::BTreeMap;

use comet_proto::ChannelName;

use crate::{
    config::{Access, TokenRight},
    http::{
        query::Query,
        refusal::{Reason, Refusal},
        request::Request,
        site::Site,
    },
    hub::Publisher,
};
use rules::ReadRight;
pub use rules::{Rights, RightsError};
use token::Grant;

/// What the access rights of a request depend on.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) rights: &'a Rights,
    pub(crate) site: &'a Site,
    pub(crate) request: &'a Request<'a>,
    pub(crate) query: &'a Query<'a>,
}

impl Caller<'_> {
    /// Checks that the request may read all of `channels`.
    pub(crate) fn may_read(&self, channels: &[ChannelName]) -> Result<ReadRight, Refusal> {
        let (rights, mut grant) = (self.rights, None);
        if rights.all_is_read() {
            return Ok(ReadRight::default());
        }
        rights.check_read(channels, |channel| {
            self.check_grant(&mut grant, TokenRight::Subscribe, channel)
        })?;
        Ok(grant.map_or_else(ReadRight::default, |grant| rights.granted(&grant)))
    }

    /// Checks that the token grants this use of `channel`. The token is verified only once, for the first channel, and then
    /// stored in `grant`.
    fn check_grant(
        &self,
        grant: &mut Option<Grant>,
        what: TokenRight,
        channel: &ChannelName,
    ) -> Result<(), Refusal> {
        let grant = match grant {
            Some(grant) => grant,
            none => none.insert(self.grant()?),
        };
        check_use(grant, what, channel)
    }

    /// Removes the channels that the request may not read.
    pub(crate) fn keep_readable<T>(&self, channels: &mut BTreeMap<ChannelName, T>) -> ReadRight {
        let rights = self.rights;
        let needs_token = |channel: &ChannelName| rights.read(channel) == Access::Token;
        let grant = match channels.keys().any(needs_token) {
            true => self.grant().ok(),
            false => None,
        };
        channels.retain(|channel, _| match rights.read(channel) {
            Access::Public => true,
            Access::Token => grant
                .as_ref()
                .is_some_and(|grant| grant.may_subscribe(channel)),
            Access::Closed => false,
        });
        let granted = grant.filter(|_| channels.keys().any(needs_token));
        granted.map_or_else(ReadRight::default, |grant| rights.granted(&grant))
    }

    /// Checks that the request may publish to all of `channels`, and that its page may publish. Returns the publisher to
    /// whom the idempotency keys of the request belong: the token's subject, if one of the channels needs a token.
    pub(crate) fn may_publish(&self, channels: &[ChannelName]) -> Result<Publisher, Refusal> {
        let mut grant = None;
        self.rights.check_publish(channels, |channel| {
            self.check_grant(&mut grant, TokenRight::Publish, channel)
        })?;
        if self.site.is_stopping() {
            return Err(Refusal::stopping());
        }
        self.check_page("publish")?;
        Ok(Publisher::Http(grant.map_or(0, |grant| grant.subject)))
    }

    /// Checks that the page may open a WebSocket. Browsers leave this check to the server (RFC 6455, section 10.2). For all
    /// other answers the browser checks the headers of the answer before the page may read it.
    pub(crate) fn may_open_websocket(&self) -> Result<(), Refusal> {
        self.check_page("read")
    }

    /// Checks that the page may read an answer that it loads as a script. A browser runs scripts of every origin, and does not
    /// send the header `Origin` for them. So the page of another origin is known by the header `Referer` alone.
    pub(crate) fn may_load_script(&self) -> Result<(), Refusal> {
        match self.is_from_listed_referer() {
            true => Ok(()),
            false => self.check_page("read by a script"),
        }
    }
}

/// Checks that a token with this grant allows this use of `channel`.
fn check_use(grant: &Grant, what: TokenRight, channel: &ChannelName) -> Result<(), Refusal> {
    let (is_granted, to_use) = match what {
        TokenRight::Subscribe => (grant.may_subscribe(channel), "reading"),
        TokenRight::Publish => (grant.may_publish(channel), "publishing to"),
    };
    if is_granted {
        return Ok(());
    }
    let message = format!("the token does not grant {to_use} {channel}");
    Err(Refusal::new(Reason::NotGranted, message))
}

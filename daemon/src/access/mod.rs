//! Who may read and publish by HTTP. The channel's rule decides first. Where the rule says so, the request's token
//! decides. A publish and a WebSocket also depend on the page that asks.

mod bearer;
pub(crate) mod hosts;
mod page;
pub mod token;

use std::{collections::BTreeMap, time::Duration};

use comet_proto::ChannelName;
use hyper::{header, http::request::Parts};

use crate::{
    config::{Access, ByPrefix, Config},
    http::{Site, answer::Refusal, publish::refuse_while_stopping, query::Query},
    hub::{Hub, Publisher},
    transport::Subscription,
};
pub(crate) use bearer::COOKIE;
use bearer::bearer;
pub(crate) use page::may_open;
use token::{Grant, KeyError, Tokens};

/// The rules of `[[channel]]`, the rules for all other channels, and the keys of tokens.
pub struct Rights {
    read: ByPrefix<Access>,
    read_else: Access,
    publish: ByPrefix<Access>,
    publish_else: Access,
    tokens: Tokens,
}

/// Why the rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("channel: \"token\" needs a key that tokens are signed with: a table [[auth.key]]")]
    NoKey,
}

/// How long and how far back a subscription may read.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ReadRight {
    /// When the right ends, in seconds since 1970.
    pub(crate) expires: Option<u64>,
    /// Messages that are older than this may not be read.
    pub(crate) oldest: Option<Duration>,
}

impl Rights {
    /// Reads the rules from the settings. Without rules, all channels may be read on a loopback address, and none on
    /// another address.
    ///
    /// # Errors
    /// A key that cannot be used, or no key where a rule needs tokens.
    pub fn new(config: &Config) -> Result<Self, RightsError> {
        let access = |public| {
            if public {
                Access::Public
            } else {
                Access::Closed
            }
        };
        let is_local = config.is_local();
        let publish = config.http.publish.unwrap_or(config.demo && is_local);
        let tokens = Tokens::load(&config.auth)?;
        let rules = &config.channels;
        if tokens.is_empty() && (rules.read.any(Access::Token) || rules.publish.any(Access::Token))
        {
            return Err(RightsError::NoKey);
        }
        Ok(Self {
            read: rules.read.clone(),
            read_else: access(is_local),
            publish: rules.publish.clone(),
            publish_else: access(publish),
            tokens,
        })
    }

    /// Whether requests may carry tokens.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn read(&self, channel: &ChannelName) -> Access {
        self.read.get(channel).copied().unwrap_or(self.read_else)
    }

    /// Whether everyone may read every channel.
    fn all_is_read(&self) -> bool {
        self.read.is_empty() && self.read_else == Access::Public
    }

    /// Whether a subscription that began under the rights `before` has to end. It ends when these rights refuse it, or when
    /// only its token could tell, because the token is not kept. `by_token`: the subscription began with a token.
    pub(crate) fn end(&self, before: &Self, channels: &[ChannelName], by_token: bool) -> bool {
        let is_judged_alike = |channel| {
            by_token
                && before.read(channel) == Access::Token
                && self.tokens.accept_all_of(&before.tokens)
        };
        channels.iter().any(|channel| match self.read(channel) {
            Access::Public => false,
            Access::Token => !is_judged_alike(channel),
            Access::Closed => true,
        })
    }

    fn leave(&self, grant: &Grant) -> ReadRight {
        ReadRight {
            expires: Some(grant.expires),
            oldest: (!grant.history).then_some(self.tokens.resume),
        }
    }
}

impl ReadRight {
    /// Limits a subscription to this right.
    pub(crate) fn bound(self, hub: &Hub, subscription: &mut Subscription) {
        subscription.expires = self.expires;
        // A message that is withheld makes a gap. The age of the cursor does not: on a quiet channel every cursor is old.
        if let (Some(age), Some(since)) = (self.oldest, subscription.since)
            && let Some(withheld) = hub.newest_older(&subscription.channels, since, age)
        {
            subscription.since = Some(withheld);
            subscription.gap = true;
        }
    }
}

/// Checks that all of `channels` may be read.
pub(crate) fn may_read(
    site: &Site,
    head: &Parts,
    query: &Query<'_>,
    channels: &[ChannelName],
) -> Result<ReadRight, Refusal> {
    let rights = &site.rights;
    if rights.all_is_read() {
        return Ok(ReadRight::default());
    }
    let mut grant = None;
    for channel in channels {
        match rights.read(channel) {
            Access::Public => {}
            Access::Token => {
                let grant = match &mut grant {
                    Some(grant) => grant,
                    none => none.insert(bearer(site, head, query)?),
                };
                if !grant.may_subscribe(channel) {
                    return Err(not_granted(format!(
                        "the token does not grant reading {channel}"
                    )));
                }
            }
            Access::Closed => {
                return Err(Refusal::forbidden(format!(
                    "{channel} may not be read by HTTP; read under [[channel]] says what may"
                )));
            }
        }
    }
    Ok(grant.map_or_else(ReadRight::default, |grant| rights.leave(&grant)))
}

/// Removes the channels that may not be read.
pub(crate) fn keep_readable<T>(
    site: &Site,
    head: &Parts,
    query: &Query<'_>,
    channels: &mut BTreeMap<ChannelName, T>,
) -> ReadRight {
    let rights = &site.rights;
    let needs_token = |channel: &ChannelName| rights.read(channel) == Access::Token;
    let grant = match channels.keys().any(needs_token) {
        true => bearer(site, head, query).ok(),
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
    granted.map_or_else(ReadRight::default, |grant| rights.leave(&grant))
}

/// Checks that `channel` may be published to, and by the page that asks. Returns the publisher that the idempotency keys
/// of the request belong to.
pub(crate) fn may_publish(
    site: &Site,
    head: &Parts,
    query: &Query<'_>,
    channel: &ChannelName,
) -> Result<Publisher, Refusal> {
    let rights = &site.rights;
    let mut publisher = Publisher::Http(0);
    match rights.publish.get(channel) {
        Some(Access::Public) => {}
        Some(Access::Token) => {
            let grant = bearer(site, head, query)?;
            publisher = Publisher::Http(grant.subject);
            if !grant.may_publish(channel) {
                let message = format!("the token does not grant publishing to {channel}");
                return Err(not_granted(message));
            }
        }
        Some(Access::Closed) => {
            let message = format!(
                "{channel} may not be published to by HTTP; publish under [[channel]] says what may"
            );
            return Err(Refusal::forbidden(message));
        }
        None if rights.publish_else == Access::Public => {}
        None => {
            let hint =
                "publishing over HTTP is off; it is switched on by publish = true under [http]";
            return Err(Refusal::forbidden(hint));
        }
    }
    refuse_while_stopping(site)?;
    page::check(site, head, "publish")?;
    Ok(publisher)
}

fn not_granted(message: String) -> Refusal {
    let challenge = "Bearer realm=\"comet\", error=\"insufficient_scope\"";
    Refusal::forbidden(message).with(header::WWW_AUTHENTICATE, challenge)
}

//! The rules of channels: who may read and publish according to the settings.

use std::time::Duration;

use comet_proto::{ChannelName, Cursor};

use super::token::{Grant, KeyError, Tokens};
use crate::{
    config::{Access, ByPrefix, Config, Identity},
    http::refusal::Refusal,
    hub::Hub,
    presence,
    transport::Subscription,
};

/// The rules of `[[channel]]`, the rules for all other channels, and the keys of tokens.
pub struct Rights {
    read: ByPrefix<Access>,
    read_else: Access,
    publish: ByPrefix<Access>,
    publish_else: Access,
    pub(super) tokens: Tokens,
    identity: ByPrefix<Identity>,
    grace: ByPrefix<Duration>,
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
            identity: rules.presence.clone(),
            grace: rules.presence_grace.clone(),
        })
    }

    /// Presence messages may be read by those who may read the channel.
    pub(super) fn read(&self, channel: &ChannelName) -> Access {
        let channel = channel.presence_of().unwrap_or(channel);
        self.read.get(channel).copied().unwrap_or(self.read_else)
    }

    /// Checks that all of `channels` may be read. Calls `check_token` for each channel that needs a token.
    pub(super) fn check_read(
        &self,
        channels: &[ChannelName],
        mut check_token: impl FnMut(&ChannelName) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for channel in channels {
            match self.read(channel) {
                Access::Public => {}
                Access::Token => check_token(channel)?,
                Access::Closed => {
                    return Err(Refusal::forbidden(format!(
                        "{channel} may not be read over HTTP; set read under [[channel]] to allow this"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Refuses a channel that a rule closes for reading.
    pub(super) fn check_not_closed(&self, channel: &ChannelName) -> Result<(), Refusal> {
        match self.read.get(channel) {
            Some(Access::Closed) => Err(Refusal::forbidden(format!(
                "a rule under [[channel]] closes {channel} for reading"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses publishing to a channel that a rule closes for publishing. For protocols whose requests are signed.
    pub(crate) fn check_publish_signed(&self, channel: &ChannelName) -> Result<(), Refusal> {
        match self.publish.get(channel) {
            Some(Access::Closed) => Err(Refusal::forbidden(format!(
                "a rule under [[channel]] closes {channel} for publishing"
            ))),
            _ => Ok(()),
        }
    }

    /// Checks that messages may be published to all of `channels`. Calls `check_token` for each channel that needs a token.
    pub(super) fn check_publish(
        &self,
        channels: &[ChannelName],
        mut check_token: impl FnMut(&ChannelName) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for channel in channels {
            match self.publish.get(channel) {
                Some(Access::Public) => {}
                Some(Access::Token) => check_token(channel)?,
                Some(Access::Closed) => {
                    let message = format!(
                        "{channel} may not be published to over HTTP; set publish under [[channel]] to allow this"
                    );
                    return Err(Refusal::forbidden(message));
                }
                None if self.publish_else == Access::Public => {}
                None => {
                    let hint =
                        "publishing over HTTP is off; set publish = true under [http] to allow it";
                    return Err(Refusal::forbidden(hint));
                }
            }
        }
        Ok(())
    }

    /// Who can be a member of a channel.
    pub(super) fn identity(&self, channel: &ChannelName) -> Identity {
        let identity = self.identity.get(channel).copied();
        identity.unwrap_or(Identity::Token)
    }

    /// How long a member stays on a channel without a connection.
    pub(crate) fn grace(&self, channel: &ChannelName) -> Duration {
        self.grace.get(channel).copied().unwrap_or(presence::GRACE)
    }

    /// Whether a rule of `[[channel]]` says who may publish to the channel.
    pub(super) fn has_publish_rule(&self, channel: &ChannelName) -> bool {
        self.publish.get(channel).is_some()
    }

    /// Whether everyone may read every channel.
    pub(super) fn all_is_read(&self) -> bool {
        self.read.is_empty() && self.read_else == Access::Public
    }

    /// Whether a client of another protocol's port may publish to the channel without a key. Whoever configures such a
    /// port wants its clients to publish, so channels without a rule are open.
    pub(crate) fn may_publish_on_port(&self, channel: &ChannelName) -> bool {
        self.publish
            .get(channel)
            .is_none_or(|rule| *rule == Access::Public)
    }

    /// Like [`Rights::may_publish_on_port`], for reading.
    pub(crate) fn may_read_on_port(&self, channel: &ChannelName) -> bool {
        self.read
            .get(channel)
            .is_none_or(|rule| *rule == Access::Public)
    }

    /// Whether a rule says that everyone may read the channel.
    pub(crate) fn has_public_rule(&self, channel: &ChannelName) -> bool {
        self.read.get(channel) == Some(&Access::Public)
    }

    /// Whether a subscription that began under the rights `before` must end. It must end if these rights refuse it. It must
    /// also end if the decision depends on its token, because tokens are not stored. `by_token`: the subscription began with a
    /// token.
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

    /// Whether every token that was valid under the rights `before` is still valid, and grants no less.
    pub(crate) fn accept_tokens_of(&self, before: &Self) -> bool {
        self.tokens.accept_all_of(&before.tokens)
    }

    /// The right that a token grants.
    pub(super) fn granted(&self, grant: &Grant) -> ReadRight {
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
        if let Some(since) = subscription.since
            && let Some(withheld) = self.withheld(hub, &subscription.channels, since)
        {
            subscription.since = Some(withheld);
            subscription.gap = true;
        }
    }

    /// The newest message after `since` that may not be read. Only such a message causes a gap. An old cursor alone does
    /// not: on a quiet channel every cursor is old.
    pub(crate) fn withheld(
        self,
        hub: &Hub,
        channels: &[ChannelName],
        since: Cursor,
    ) -> Option<Cursor> {
        hub.newest_older(channels, since, self.oldest?)
    }
}

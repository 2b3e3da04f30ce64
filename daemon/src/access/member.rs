//! Finds which member of its channels a client is.

use comet_proto::ChannelName;

use super::{Caller, Rights};
use crate::{
    config::Identity,
    http::refusal::{Reason, Refusal},
    presence::Member,
};

impl Rights {
    /// The member that a client is on all of `channels`: that of its token, or else the one with the id that the client has
    /// chosen, where the rule of each channel allows that. `None`: the client has no identity.
    pub(super) fn member(
        &self,
        channels: &[ChannelName],
        by_token: Option<Member>,
        chosen: Option<&str>,
    ) -> Result<Option<Member>, Refusal> {
        let (None, Some(id)) = (&by_token, chosen) else {
            return Ok(by_token);
        };
        let mut channels = channels.iter();
        if let Some(channel) = channels.find(|name| self.identity(name) != Identity::Anyone) {
            return Err(Refusal::forbidden(format!(
                "clients may not choose their own id on {channel}; presence = \"anyone\" under [[channel]] allows it, \
                 and a token with sub needs no such rule"
            )));
        }
        Member::new(id, None).map(Some).map_err(no_member)
    }
}

impl Caller<'_> {
    /// The member that the client is on all of `channels`: the subject of its token, or else the parameter `member`, where
    /// the rule of each channel allows that. `None`: the client has no identity.
    pub(crate) fn member(&self, channels: &[ChannelName]) -> Result<Option<Member>, Refusal> {
        let by_token = match self.grant() {
            Ok(grant) => grant.member().map_err(no_member)?,
            // Without a token, and with a cookie that the page may not use, the client has no identity.
            Err(refusal) if matches!(refusal.reason(), Reason::NoToken | Reason::Forbidden) => None,
            Err(refusal) => return Err(refusal),
        };
        let chosen = self.query.filled("member");
        self.rights.member(channels, by_token, chosen)
    }
}

pub(super) fn no_member(error: impl std::fmt::Display) -> Refusal {
    Refusal::bad("member", error)
}

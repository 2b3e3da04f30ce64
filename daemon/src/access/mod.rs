//! Who may read and publish by HTTP. The channel's rule decides first. Where the rule says so, the request's token
//! decides. A publish and a WebSocket also depend on the page that asks.

mod bearer;
pub(crate) mod hosts;
mod page;
pub(crate) mod rules;
pub mod token;

use std::collections::BTreeMap;

use comet_proto::ChannelName;
use hyper::header;

use crate::{
    config::Access,
    http::{
        answer::Refusal, publish::refuse_while_stopping, query::Query, request::Request, site::Site,
    },
    hub::Publisher,
};
use bearer::bearer;
pub(crate) use page::may_open;
use rules::ReadRight;
pub use rules::{Rights, RightsError};

/// Checks that all of `channels` may be read.
pub(crate) fn may_read(
    site: &Site,
    request: &Request<'_>,
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
                    none => none.insert(bearer(site, request, query)?),
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
    Ok(grant.map_or_else(ReadRight::default, |grant| rights.granted(&grant)))
}

/// Removes the channels that may not be read.
pub(crate) fn keep_readable<T>(
    site: &Site,
    request: &Request<'_>,
    query: &Query<'_>,
    channels: &mut BTreeMap<ChannelName, T>,
) -> ReadRight {
    let rights = &site.rights;
    let needs_token = |channel: &ChannelName| rights.read(channel) == Access::Token;
    let grant = match channels.keys().any(needs_token) {
        true => bearer(site, request, query).ok(),
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

/// Checks that all of `channels` may be published to, and by the page that asks. Returns the publisher that the idempotency
/// keys of the request belong to: the token's subject, if one of the channels needs a token.
pub(crate) fn may_publish(
    site: &Site,
    request: &Request<'_>,
    query: &Query<'_>,
    channels: &[ChannelName],
) -> Result<Publisher, Refusal> {
    let rights = &site.rights;
    let mut grant = None;
    for channel in channels {
        match rights.publish.get(channel) {
            Some(Access::Public) => {}
            Some(Access::Token) => {
                let grant = match &mut grant {
                    Some(grant) => grant,
                    none => none.insert(bearer(site, request, query)?),
                };
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
    }
    refuse_while_stopping(site)?;
    page::check(site, request, "publish")?;
    Ok(Publisher::Http(grant.map_or(0, |grant| grant.subject)))
}

fn not_granted(message: String) -> Refusal {
    let challenge = "Bearer realm=\"comet\", error=\"insufficient_scope\"";
    Refusal::forbidden(message).with(header::WWW_AUTHENTICATE, challenge)
}

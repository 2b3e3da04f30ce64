//! Who may read and publish by HTTP: the channel's rule first, then whose page it is that asks.

use comet_proto::ChannelName;
use hyper::{StatusCode, http::request::Parts};

use super::{
    Site,
    answer::{Cors, Refusal},
    router::{cors, goes_on},
};
use crate::config::{Access, ByPrefix, Config};

/// The rules of `[[channel]]`, and what holds where none does.
pub struct Rights {
    read: ByPrefix<Access>,
    read_else: Access,
    publish: ByPrefix<Access>,
    publish_else: Access,
}

impl Rights {
    /// On a loopback address all may be read. Whoever reaches another may neither read nor publish unless somebody
    /// said so.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let access = |public| {
            if public {
                Access::Public
            } else {
                Access::Closed
            }
        };
        let is_local = config.is_local();
        let publish = config.http.publish.unwrap_or(config.demo && is_local);
        Self {
            read: config.channels.read.clone(),
            read_else: access(is_local),
            publish: config.channels.publish.clone(),
            publish_else: access(publish),
        }
    }

    fn read(&self, channel: &ChannelName) -> Access {
        self.read.get(channel).copied().unwrap_or(self.read_else)
    }
}

/// All of `channels` may be read.
pub(super) fn may_read(site: &Site, channels: &[ChannelName]) -> Result<(), Refusal> {
    let rights = &site.rights;
    let is_open = |channel: &&ChannelName| rights.read(channel) == Access::Public;
    match channels.iter().find(|channel| !is_open(channel)) {
        None => Ok(()),
        Some(channel) => Err(forbidden(format!(
            "{channel} may not be read by HTTP; read under [[channel]] says what may"
        ))),
    }
}

/// `channel` may be published to, and by the page that asks.
pub(super) fn may_publish(site: &Site, head: &Parts, channel: &ChannelName) -> Result<(), Refusal> {
    let rights = &site.rights;
    match rights.publish.get(channel) {
        Some(Access::Public) => {}
        Some(Access::Closed) => {
            let message = format!(
                "{channel} may not be published to by HTTP; publish under [[channel]] says what may"
            );
            return Err(forbidden(message));
        }
        None if rights.publish_else == Access::Public => {}
        None => {
            let hint =
                "publishing over HTTP is off; it is switched on by publish = true under [http]";
            return Err(forbidden(hint));
        }
    }
    goes_on(site)?;
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    match header("origin") {
        Some(origin) if is_same_origin(origin, header("host").unwrap_or_default()) => Ok(()),
        Some(_) if cors(site, &head.headers) != Cors::None => Ok(()),
        Some(origin) => Err(forbidden(format!(
            "pages of {origin} may not publish; it is allowed by origins = [{origin:?}] under [http]"
        ))),
        // A browser that sends no Origin with a GET still says whose page made it. The same site is also
        // another port of the same host.
        None if matches!(header("sec-fetch-site"), Some("cross-site" | "same-site")) => {
            Err(forbidden("pages of other origins may not publish by GET"))
        }
        None => Ok(()),
    }
}

/// What a page may read of another origin is the browser's decision, by the answer's headers; a WebSocket it leaves
/// to the server (RFC 6455, section 10.2).
pub(super) fn may_open(site: &Site, head: &Parts) -> Result<(), Refusal> {
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    match header("origin") {
        Some(origin)
            if !is_same_origin(origin, header("host").unwrap_or_default())
                && cors(site, &head.headers) == Cors::None =>
        {
            Err(forbidden(format!(
                "pages of {origin} may not read; it is allowed by origins = [{origin:?}] under [http]"
            )))
        }
        _ => Ok(()),
    }
}

fn forbidden(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", message)
}

fn is_same_origin(origin: &str, host: &str) -> bool {
    origin
        .split_once("://")
        .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

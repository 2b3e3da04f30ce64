//! Who may read and publish by HTTP: the channel's rule first, where it says so the request's token, then whose page it
//! is that asks.

pub(crate) mod hosts;
pub mod token;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use comet_proto::ChannelName;
use hyper::{StatusCode, header, http::request::Parts};

use crate::{
    config::{Access, ByPrefix, Config, Origin},
    http::{Site, answer::Refusal, cors::Cors, publish::refuse_while_stopping, query::Query},
    hub::{Hub, Publisher},
    transport::{Subscription, websocket},
};

use token::{Grant, KeyError, TokenError, Tokens};

/// Where a browser keeps a token for us: of this host alone, and not over plain HTTP.
pub(crate) const COOKIE: &str = "__Host-comet";

/// The challenge to a token that is no good, or is no more (RFC 6750, section 3).
pub(crate) const INVALID_TOKEN: &str = "Bearer realm=\"comet\", error=\"invalid_token\"";

/// The rules of `[[channel]]`, what holds where none does, and what a token needs.
pub struct Rights {
    read: ByPrefix<Access>,
    read_else: Access,
    publish: ByPrefix<Access>,
    publish_else: Access,
    tokens: Tokens,
}

/// Why the rules cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("channel: \"token\" needs a key that tokens are signed with: a table [[auth.key]]")]
    NoKey,
}

/// How far the right to read goes that a token gives.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Leave {
    /// Seconds since 1970.
    pub(crate) expires: Option<u64>,
    /// Messages that are older than this may not be read.
    pub(crate) oldest: Option<Duration>,
}

impl Rights {
    /// On a loopback address all may be read. Whoever reaches another may neither read nor publish unless somebody
    /// said so.
    ///
    /// # Errors
    /// A key that cannot be used, or none where one is needed.
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

    /// Requests may carry tokens.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn read(&self, channel: &ChannelName) -> Access {
        self.read.get(channel).copied().unwrap_or(self.read_else)
    }

    /// Nobody asks who reads.
    fn all_is_read(&self) -> bool {
        self.read.is_empty() && self.read_else == Access::Public
    }

    /// A subscription that began by the rights `before` has to end: by these rights it would be refused, or only its token,
    /// which is not kept, could tell. `by_token`: it began with one.
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

    fn leave(&self, grant: &Grant) -> Leave {
        Leave {
            expires: Some(grant.expires),
            oldest: (!grant.history).then_some(self.tokens.resume),
        }
    }
}

impl Leave {
    /// Keeps a subscription within it.
    pub(crate) fn bound(self, hub: &Hub, subscription: &mut Subscription) {
        subscription.expires = self.expires;
        // Only a message that is withheld makes a gap, not the age of the cursor: on a quiet channel every cursor is old.
        if let (Some(age), Some(since)) = (self.oldest, subscription.since)
            && let Some(withheld) = hub.newest_older(&subscription.channels, since, age)
        {
            subscription.since = Some(withheld);
            subscription.gap = true;
        }
    }
}

/// All of `channels` may be read.
pub(crate) fn may_read(
    site: &Site,
    head: &Parts,
    query: &Query<'_>,
    channels: &[ChannelName],
) -> Result<Leave, Refusal> {
    let rights = &site.rights;
    if rights.all_is_read() {
        return Ok(Leave::default());
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
                return Err(forbidden(format!(
                    "{channel} may not be read by HTTP; read under [[channel]] says what may"
                )));
            }
        }
    }
    Ok(grant.map_or_else(Leave::default, |grant| rights.leave(&grant)))
}

/// Keeps those of `channels` that may be read.
pub(crate) fn keep_readable<T>(
    site: &Site,
    head: &Parts,
    query: &Query<'_>,
    channels: &mut BTreeMap<ChannelName, T>,
) -> Leave {
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
    granted.map_or_else(Leave::default, |grant| rights.leave(&grant))
}

/// `channel` may be published to, and by the page that asks. Returns whose idempotency keys the request's are.
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
            return Err(forbidden(message));
        }
        None if rights.publish_else == Access::Public => {}
        None => {
            let hint =
                "publishing over HTTP is off; it is switched on by publish = true under [http]";
            return Err(forbidden(hint));
        }
    }
    refuse_while_stopping(site)?;
    match page_of(site, head) {
        Page::Ours | Page::Listed | Page::Unknown => Ok(publisher),
        page => Err(forbidden(page.refusal("publish"))),
    }
}

/// Scheme and authority of a URL.
fn origin_part(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| authority + at);
    &url[..end]
}

/// What a page may read of another origin is the browser's decision, by the answer's headers; a WebSocket it leaves
/// to the server (RFC 6455, section 10.2).
pub(crate) fn may_open(site: &Site, head: &Parts) -> Result<(), Refusal> {
    match page_of(site, head) {
        Page::Ours | Page::Listed | Page::Unknown => Ok(()),
        page => Err(forbidden(page.refusal("read"))),
    }
}

/// What the request's token grants. An `Authorization` header beats a subprotocol of a WebSocket beats a cookie beats
/// the URL.
fn bearer(site: &Site, head: &Parts, query: &Query<'_>) -> Result<Grant, Refusal> {
    let tokens = &site.rights.tokens;
    let by_url = || query.token().filter(|_| tokens.query);
    let token = match authorization(head).or_else(|| websocket::token(head)) {
        Some(token) => token,
        None => match cookie(head) {
            Some(token) => {
                may_use_cookie(site, head)?;
                token
            }
            None => by_url().ok_or_else(|| {
                let how = "this needs a token: Authorization: Bearer TOKEN, or the cookie __Host-comet; \
                           a WebSocket may offer the subprotocols comet and comet.token.TOKEN";
                unauthorized("token", how, "Bearer realm=\"comet\"")
            })?,
        },
    };
    tokens.verify(token, now().as_secs()).map_err(|error| {
        let code = match error {
            TokenError::Expired => "token_expired",
            _ => "token",
        };
        unauthorized(code, format!("token: {error}"), INVALID_TOKEN)
    })
}

/// RFC 6750, section 2.1. Another scheme is somebody else's, such as a proxy's.
fn authorization(head: &Parts) -> Option<&str> {
    let values = head.headers.get_all(header::AUTHORIZATION).iter();
    let mut texts = values.filter_map(|value| value.to_str().ok());
    texts.find_map(|text| {
        let (scheme, token) = text.split_once(' ')?;
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| token.trim())
    })
}

fn cookie(head: &Parts) -> Option<&str> {
    let values = head.headers.get_all(header::COOKIE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(';')).find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name.trim() == COOKIE).then(|| value.trim())
    })
}

/// A browser sends its cookies whatever page it is that asks: only those of our pages are meant.
fn may_use_cookie(site: &Site, head: &Parts) -> Result<(), Refusal> {
    match page_of(site, head) {
        Page::Ours => Ok(()),
        // Any origin may read what everyone may, not what this browser's user may.
        Page::Listed if site.origins.of_request(&head.headers) != Cors::Any => Ok(()),
        _ => Err(forbidden(
            "the cookie __Host-comet is taken from pages of this site and of origins under [http] alone, by the \
             headers Origin and Sec-Fetch-Site that browsers send",
        )),
    }
}

/// Whose page asks.
#[derive(Debug, PartialEq, Eq)]
enum Page<'a> {
    Ours,
    /// Of a configured origin.
    Listed,
    /// Of another origin, as the Origin header has it.
    Other(&'a str),
    /// Of another origin that the browser does not name.
    Foreign,
    /// No page, or no browser, or one that says nothing about the page.
    Unknown,
}

impl Page<'_> {
    /// Why the page may not `act`, and the setting that would allow it where there is one.
    fn refusal(&self, act: &str) -> String {
        let Self::Other(sent) = *self else {
            return format!("pages of other origins may not {act}");
        };
        let shown: String = sent.chars().take(MAX_SHOWN).collect();
        match Origin::parse(sent).filter(|_| sent.len() <= MAX_SHOWN) {
            Some(origin) => {
                let origin = origin.to_string();
                format!(
                    "pages of {origin} may not {act}; it is allowed by origins = [{origin:?}] under [http]"
                )
            }
            None if sent == "null" => format!(
                "pages without an origin (Origin: null, from sandboxed frames and local files) may not {act}, and no \
                 entry of origins under [http] names them"
            ),
            None => format!(
                "pages of {shown:?} may not {act}; this is no origin that origins under [http] can list"
            ),
        }
    }
}

/// Longest origin that a refusal proposes to list: a scheme, a host of 253 characters, and a port.
const MAX_SHOWN: usize = 300;

/// Whose page asks, as the browser says.
///
/// `Sec-Fetch-Site` is the browser's own comparison of page and request, schemes included, and no page can set it: it
/// beats an Origin that looks like the Host header. Browsers leave it out over plain HTTP (but to this machine), and
/// old ones always do. Then Origin is compared with Host, where the scheme of the request is not known; and where there
/// is no Origin, Referer.
fn page_of<'a>(site: &Site, head: &'a Parts) -> Page<'a> {
    let origin = match origin_of(head) {
        Ok(origin) => origin,
        Err(odd) => return Page::Other(odd),
    };
    if origin.is_some() && site.origins.of_request(&head.headers) != Cors::None {
        return Page::Listed;
    }
    let host = hosts::of(head).unwrap_or_default(); // where no host is said, no page is of it
    let is_at = |origin: &str, ports_count| {
        Origin::parse(origin).is_some_and(|origin| origin.is_at(host, ports_count))
    };
    match (fetch_site(head), origin) {
        // A proxy may have left the port out of Host. A wholly different host is one that a proxy has put there, and
        // what the browser compared with is not known. A form of a page with `Referrer-Policy: no-referrer` sends `null`.
        (Some("same-origin"), Some(origin)) if origin != "null" && !is_at(origin, false) => {
            Page::Other(origin)
        }
        (Some("same-origin"), _) => Page::Ours,
        (Some("cross-site" | "same-site"), Some(origin)) => Page::Other(origin),
        // The same site is also another port of the same host.
        (Some("cross-site" | "same-site"), None) => Page::Foreign,
        (_, Some(origin)) if is_at(origin, true) => Page::Ours,
        (_, Some(origin)) => Page::Other(origin),
        // A person has typed the address.
        (Some("none"), None) => Page::Unknown,
        // A browser that is too old for both says where it comes from.
        (_, None) => match text(head, "referer") {
            Some(page) if !is_at(origin_part(page), true) => Page::Foreign,
            _ => Page::Unknown,
        },
    }
}

/// The one Origin header, if there is one; an error is what stands for a header that is no text, or for several.
fn origin_of(head: &Parts) -> Result<Option<&str>, &'static str> {
    let mut all = head.headers.get_all(header::ORIGIN).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(origin), None) => origin.to_str().map(Some).map_err(|_| "(no text)"),
        _ => Err("(several origins)"),
    }
}

/// The `Sec-Fetch-Site` header. Browsers send one: of several none is believed.
fn fetch_site(head: &Parts) -> Option<&str> {
    let all = head.headers.get_all("sec-fetch-site").iter();
    if all.count() > 1 {
        return Some("cross-site");
    }
    text(head, "sec-fetch-site")
}

fn text<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

/// The system's clock, since 1970: tokens are made by it.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn forbidden(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", message)
}

fn not_granted(message: String) -> Refusal {
    let challenge = "Bearer realm=\"comet\", error=\"insufficient_scope\"";
    forbidden(message).with(header::WWW_AUTHENTICATE, challenge)
}

fn unauthorized(
    code: &'static str,
    message: impl Into<String>,
    challenge: &'static str,
) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, code, message).with(header::WWW_AUTHENTICATE, challenge)
}

//! Finds the token of a request.

use super::{Caller, page::Page, permission::verify, token::Grant};
use crate::http::{
    cors::Cors,
    refusal::{Reason, Refusal},
    request::Request,
    upgrade,
};

/// The cookie in which a browser keeps a token for this host alone, and which is sent over TLS only.
const COOKIE: &str = "__Host-comet";

impl Caller<'_> {
    /// What the request's token grants. If the request has several tokens, the first one in this order counts: the header
    /// `Authorization`, a subprotocol of a WebSocket, the cookie, the URL.
    pub(super) fn grant(&self) -> Result<Grant, Refusal> {
        verify(self.rights, self.token()?)
    }

    fn token(&self) -> Result<&str, Refusal> {
        if let Some(token) = authorization(self.request).or_else(|| upgrade::token(self.request)) {
            return Ok(token);
        }
        if let Some(token) = cookie(self.request) {
            self.may_use_cookie()?;
            return Ok(token);
        }
        let by_url = self.query.get("token").filter(|token| !token.is_empty());
        let by_url = by_url.filter(|_| self.rights.tokens.query);
        by_url.ok_or_else(|| {
            let how = "this needs a token: Authorization: Bearer TOKEN, or the cookie __Host-comet; \
                       a WebSocket may offer the subprotocols comet and comet.token.TOKEN";
            Refusal::new(Reason::NoToken, how)
        })
    }

    /// Refuses the cookie unless a page of this site or of a listed origin has sent the request. This check is needed
    /// because a browser sends its cookies with the requests of every page.
    fn may_use_cookie(&self) -> Result<(), Refusal> {
        match self.page() {
            Page::Ours => Ok(()),
            // With the setting `*` every page may read public channels, but not the channels that only this browser's user
            // may read.
            Page::Listed if self.site.origins.of_request(self.request) != Cors::Any => Ok(()),
            _ => Err(Refusal::forbidden(
                "the cookie __Host-comet is taken from pages of this site and of origins under [http] alone, by the \
                 headers Origin and Sec-Fetch-Site that browsers send",
            )),
        }
    }
}

/// The token in `Authorization: Bearer` (RFC 6750, section 2.1). Credentials of another scheme, such as those of a proxy,
/// are ignored.
fn authorization<'a>(request: &Request<'a>) -> Option<&'a str> {
    request.texts("authorization").find_map(|text| {
        let (scheme, token) = text.split_once(' ')?;
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer
            .then(|| token.trim())
            .filter(|token| !token.is_empty())
    })
}

fn cookie<'a>(request: &Request<'a>) -> Option<&'a str> {
    let mut pairs = request.texts("cookie").flat_map(|text| text.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let is_ours = name.trim() == COOKIE && !value.trim().is_empty();
        is_ours.then(|| value.trim())
    })
}

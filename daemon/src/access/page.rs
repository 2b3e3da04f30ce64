//! Determines which page has sent a request, from the headers of the browser.

use super::{Caller, hosts};
use crate::{
    config::Origin,
    http::{
        cors::{Cors, Origins},
        refusal::Refusal,
        request::{Repeated, Request, text},
    },
};

/// The page that has sent a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page<'a> {
    /// A page of this site.
    Ours,
    /// A page of an origin that the settings list.
    Listed,
    /// A page of another origin: the value of the Origin header.
    Other(&'a str),
    /// A page of another origin that the browser does not name.
    Foreign,
    /// No page: the sender is not a browser, or the browser does not name a page.
    Unknown,
}

impl<'a> Page<'a> {
    /// The page that has sent the request.
    ///
    /// `Sec-Fetch-Site` is the browser's own comparison of page and request, including the schemes, and no page can set this
    /// header. So it takes precedence over an Origin header that looks like the Host header. Old browsers never send
    /// `Sec-Fetch-Site`. Other browsers do not send it over plain HTTP, except to this machine. Without it, the Origin header
    /// is compared with the Host header; the scheme of the request is not known. Without an Origin header, Referer is compared
    /// with the Host header.
    fn of(origins: &Origins, request: &Request<'a>) -> Self {
        let origin = match origin_of(request) {
            Ok(origin) => origin,
            Err(odd) => return Page::Other(odd),
        };
        if origin.is_some() && origins.of_request(request) != Cors::None {
            return Page::Listed;
        }
        let is_at = |origin: &str, ports_count| {
            let host = hosts::of(request).unwrap_or_default(); // an empty host is not the host of any page
            Origin::parse(origin).is_some_and(|origin| origin.is_at(host, ports_count))
        };
        match (fetch_site(request), origin) {
            // A proxy may have removed the port from Host. If the names differ, too, a proxy has replaced Host, and it is
            // unknown which host the browser has compared. A form of a page with `Referrer-Policy: no-referrer` sends
            // `null`.
            (Some("same-origin"), Some(origin)) if origin != "null" && !is_at(origin, false) => {
                Page::Other(origin)
            }
            (Some("same-origin"), _) => Page::Ours,
            (Some("cross-site" | "same-site"), Some(origin)) => Page::Other(origin),
            // Another port of the same host is the same site, but another origin.
            (Some("cross-site" | "same-site"), None) => Page::Foreign,
            (_, Some(origin)) if is_at(origin, true) => Page::Ours,
            (_, Some(origin)) => Page::Other(origin),
            // The user has typed the address.
            (Some("none"), None) => Page::Unknown,
            // A browser that is too old for both headers sends Referer.
            (_, None) => match request.values("referer").next().and_then(text) {
                Some(page) if !is_at(origin_part(page), true) => Page::Foreign,
                _ => Page::Unknown,
            },
        }
    }

    /// Why the page may not `act`, and the setting that would allow it, if there is one.
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

impl<'a> Caller<'a> {
    /// The page that has sent the request.
    pub(super) fn page(&self) -> Page<'a> {
        Page::of(&self.site.origins, self.request)
    }

    /// The listed origin of the page that has sent the request, if the settings list the origin.
    pub(super) fn listed_origin(&self) -> Cors {
        match self.page() {
            Page::Listed => self.site.origins.of_request(self.request),
            _ => Cors::None,
        }
    }

    /// Whether `Referer` names a page of a listed origin.
    pub(super) fn is_from_listed_referer(&self) -> bool {
        let referer = self.request.only("referer").ok().flatten().and_then(text);
        let origins = &self.site.origins;
        referer.is_some_and(|page| origins.of(origin_part(page)) != Cors::None)
    }

    /// Refuses to let a page of another origin `act`.
    pub(super) fn check_page(&self, act: &str) -> Result<(), Refusal> {
        match self.page() {
            Page::Ours | Page::Listed | Page::Unknown => Ok(()),
            page => Err(Refusal::forbidden(page.refusal(act))),
        }
    }
}

/// Longest origin that a refusal proposes to list: a scheme, a host of 253 characters, and a port.
const MAX_SHOWN: usize = 300;

/// The one Origin header, if there is one. The error is the text to show for a header that is no text, or for several.
fn origin_of<'a>(request: &Request<'a>) -> Result<Option<&'a str>, &'static str> {
    let origin = request
        .only("origin")
        .map_err(|Repeated| "(several origins)")?;
    origin
        .map(|origin| text(origin).ok_or("(no text)"))
        .transpose()
}

/// The `Sec-Fetch-Site` header. Browsers send it once. Several of them count as `cross-site`.
fn fetch_site<'a>(request: &Request<'a>) -> Option<&'a str> {
    let site = request.only("sec-fetch-site");
    site.map_or(Some("cross-site"), |site| site.and_then(text))
}

/// The scheme and the authority of a URL.
fn origin_part(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| authority + at);
    &url[..end]
}

//! The loader page and the script for pages. They are Comet's own: the original server's files are not needed, and pages may
//! go on to use their copy of its script.

use bytes::Bytes;

const LOADER: &str = include_str!("../../../../web/realplexor/loader.html");

const SCRIPT: &str = include_str!("../../../../web/realplexor/script.js");

/// Browsers may keep the pages for a day. The original server lets them be kept for ever, so that an update would not reach
/// browsers.
const CACHED: &str = "Cache-Control: public, max-age=86400";

/// The reply to `identifier=IFRAME`. `Origin-Agent-Cluster` lets a page of another subdomain use the loader, if that page has
/// the header, too.
pub(super) fn loader() -> Bytes {
    let headers = "Origin-Agent-Cluster: ?0\r\n\
        Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; connect-src 'self'";
    reply("text/html", headers, LOADER)
}

/// The reply to `identifier=SCRIPT`.
pub(super) fn script() -> Bytes {
    reply("text/javascript", "X-Content-Type-Options: nosniff", SCRIPT)
}

fn reply(media_type: &str, headers: &str, body: &str) -> Bytes {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {media_type}; charset=utf-8\r\n{CACHED}\r\n{headers}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    (head + body).into()
}

//! The loader page and the script for pages. They are Comet's own: the original server's files are not needed, and pages may
//! go on to use their copy of its script.

use bytes::Bytes;

use super::request::Request;

const LOADER: &str = include_str!("../../../../web/realplexor/loader.html");

const SCRIPT: &str = include_str!("../../../../web/realplexor/script.js");

/// Browsers may keep the pages for a day. The original server lets them be kept for ever, so that an update would not reach
/// browsers.
const CACHED: &str = "Cache-Control: public, max-age=86400";

/// Without this header of both documents, browsers ignore `document.domain`, and a page of another host cannot use the loader.
/// For a page of the same host the header would only cause a warning.
const OTHER_HOST: &str = "Origin-Agent-Cluster: ?0\r\n";

const POLICY: &str =
    "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; connect-src 'self'";

/// The reply to `identifier=IFRAME`. The request names the page's host with `HOST=`.
pub(super) fn loader(request: &Request<'_>) -> Bytes {
    let own = request.values("host").next();
    let page = parameter(request.first_line(), b"HOST=");
    let is_other = page.is_some_and(|page| Some(page) != own);
    let header = if is_other { OTHER_HOST } else { "" };
    reply("text/html", &format!("{header}{POLICY}"), LOADER)
}

/// The value of a parameter in the first line of a request.
fn parameter<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut parameters = line.split(|byte| b"?& ".contains(byte));
    parameters.find_map(|parameter| parameter.strip_prefix(name))
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

//! Serves the built-in files: the browser client and the demo pages.

use std::{net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};

use crate::http::{
    answer::{Answer, UsualHeaders},
    request::Request,
};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// What the demo pages show about this daemon.
#[derive(Clone)]
pub(crate) struct Demo {
    pub(crate) dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) listen: SocketAddr,
}

/// The browser client, which is always served.
const CLIENT: &[u8] = include_bytes!("../../../web/comet.js");

/// The demo pages, which are served with `--demo`.
const DEMO: &[(&str, &str, &[u8])] = &[
    ("/", HTML, include_bytes!("../../../web/demo/index.html")),
    (
        "/touch",
        HTML,
        include_bytes!("../../../web/demo/touch.html"),
    ),
    (
        "/clock",
        HTML,
        include_bytes!("../../../web/demo/clock.html"),
    ),
    ("/chat", HTML, include_bytes!("../../../web/demo/chat.html")),
    (
        "/demo/demo.css",
        STYLE,
        include_bytes!("../../../web/demo/demo.css"),
    ),
    (
        "/demo/demo.js",
        SCRIPT,
        include_bytes!("../../../web/demo/demo.js"),
    ),
    (
        "/demo/index.js",
        SCRIPT,
        include_bytes!("../../../web/demo/index.js"),
    ),
    (
        "/demo/touch.js",
        SCRIPT,
        include_bytes!("../../../web/demo/touch.js"),
    ),
    (
        "/demo/clock.js",
        SCRIPT,
        include_bytes!("../../../web/demo/clock.js"),
    ),
    (
        "/demo/chat.js",
        SCRIPT,
        include_bytes!("../../../web/demo/chat.js"),
    ),
    (
        "/demo/icon.svg",
        "image/svg+xml",
        include_bytes!("../../../web/demo/icon.svg"),
    ),
];

/// Headers of a file. Clients ask each time, because a new daemon may bring a new file.
const FILE_HEADERS: &UsualHeaders = &UsualHeaders(
    "cache-control: no-cache\r\ncontent-security-policy: default-src 'self'\r\nx-content-type-options: nosniff\r\n",
);

/// Whether there is a page at this path.
pub(super) fn is_page(demo: Option<&Demo>, path: &str) -> bool {
    let is_demo = || path == "/demo.json" || DEMO.iter().any(|(at, ..)| *at == path);
    path == "/comet.js" || (demo.is_some() && is_demo())
}

/// The page at this path, if there is one, for this request.
pub(super) fn page(demo: Option<&Demo>, path: &str, request: &Request<'_>) -> Option<Answer> {
    if path == "/comet.js" {
        return Some(file(request, SCRIPT, CLIENT));
    }
    let demo = demo?;
    if path == "/demo.json" {
        let about = serde_json::json!({
            "dir": demo.dir,
            "socket": demo.socket,
            "listen": demo.listen,
            "version": env!("CARGO_PKG_VERSION"),
        });
        return Some(Answer::json(about.to_string()));
    }
    let (_, content_type, content) = DEMO.iter().find(|(at, _, _)| *at == path)?;
    Some(file(request, content_type, content))
}

/// A script of another server's protocol.
pub(crate) fn script(request: &Request<'_>, content: &'static [u8]) -> Answer {
    file(request, SCRIPT, content)
}

/// A file, or 304 when the client has it already.
fn file(request: &Request<'_>, content_type: &'static str, content: &'static [u8]) -> Answer {
    let tag = format!("{:08x}{:x}", crc32fast::hash(content), content.len());
    let mut answer = match knows(request, &tag) {
        true => Answer::empty(StatusCode::NOT_MODIFIED),
        false => Answer::new(StatusCode::OK, content_type, Bytes::from_static(content)),
    };
    answer.usual = FILE_HEADERS;
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("digits and quotes");
    answer.with(header::ETAG, tag)
}

/// Whether `If-None-Match` lists this entity tag (RFC 9110, section 13.1.2). Proxies that compress a file mark its tag
/// as weak, or add the coding's name behind a dash or a semicolon, such as `"tag-gzip"`.
fn knows(request: &Request<'_>, tag: &str) -> bool {
    request.list("if-none-match").any(|one| {
        let quoted = one.strip_prefix("W/").unwrap_or(one);
        let opaque = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
        let known = opaque.and_then(|opaque| opaque.split(['-', ';']).next());
        one == "*" || known == Some(tag)
    })
}

//! Serves the built-in files: the browser client and the demo pages.

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};

use super::{answer::answer, request::Request, site::Site};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

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

/// Whether there is a page at this path.
pub(super) fn is_page(site: &Site, path: &str) -> bool {
    let is_demo = || path == "/demo.json" || DEMO.iter().any(|(at, ..)| *at == path);
    path == "/comet.js" || (site.demo.is_some() && is_demo())
}

/// The page at this path, if there is one, for this request.
pub(super) fn page(site: &Site, path: &str, request: &Request<'_>) -> Option<Response<Bytes>> {
    if path == "/comet.js" {
        return Some(file(request, SCRIPT, CLIENT));
    }
    let demo = site.demo.as_ref()?;
    if path == "/demo.json" {
        let about = serde_json::json!({
            "dir": demo.dir,
            "socket": demo.socket,
            "listen": demo.listen,
            "version": env!("CARGO_PKG_VERSION"),
        });
        return Some(answer(
            StatusCode::OK,
            "application/json",
            about.to_string(),
        ));
    }
    let (_, content_type, content) = DEMO.iter().find(|(at, _, _)| *at == path)?;
    Some(file(request, content_type, content))
}

/// A file, or 304 when the client has it already. Clients ask each time, because a new daemon may bring a new file.
fn file(
    request: &Request<'_>,
    content_type: &'static str,
    content: &'static [u8],
) -> Response<Bytes> {
    let tag = format!("{:08x}{:x}", crc32fast::hash(content), content.len());
    let is_known = knows(request, &tag);
    let mut answer = match is_known {
        true => answer(StatusCode::NOT_MODIFIED, content_type, ""),
        false => answer(StatusCode::OK, content_type, Bytes::from_static(content)),
    };
    let headers = answer.headers_mut();
    if is_known {
        headers.remove(header::CONTENT_TYPE); // a 304 has no body to describe
    }
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'"),
    );
    headers.remove("x-accel-buffering");
    answer
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

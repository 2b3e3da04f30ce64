//! What is served as it is: the browser client, the demo pages, and figures.

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};

use super::{Site, answer::answer, memory};
use crate::hub::{Hub, StoreStatus};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Served always.
const CLIENT: &[u8] = include_bytes!("../../../web/comet.js");

/// Served with `--demo`.
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

/// There is a page at this path.
pub(super) fn is_page(site: &Site, path: &str) -> bool {
    let is_demo = || path == "/demo.json" || DEMO.iter().any(|(at, ..)| *at == path);
    path == "/comet.js" || (site.demo.is_some() && is_demo())
}

/// The page at this path, if there is one, for a request with these headers.
pub(super) fn page(site: &Site, path: &str, request: &HeaderMap) -> Option<Response<Bytes>> {
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
    request: &HeaderMap,
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
        headers.remove(header::CONTENT_TYPE); // it describes a body
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
fn knows(request: &HeaderMap, tag: &str) -> bool {
    let values = request.get_all(header::IF_NONE_MATCH).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|one| {
        let one = one.trim();
        let quoted = one.strip_prefix("W/").unwrap_or(one);
        let opaque = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
        let known = opaque.and_then(|opaque| opaque.split(['-', ';']).next());
        one == "*" || known == Some(tag)
    })
}

/// Prometheus' text format, version 0.0.4.
pub(super) fn metrics(site: &Site, hub: &Hub) -> String {
    let ahead = hub.ahead().as_secs();
    let (m, store, hub) = (&site.metrics, hub.store_status(), hub.status());
    let store = |figure: fn(&StoreStatus) -> u64| store.as_ref().map_or(0, figure);
    let figures = [
        (
            "comet_http_connections",
            "gauge",
            "HTTP connections open now",
            m.http_connections.get(),
        ),
        (
            "comet_http_refused_total",
            "counter",
            "HTTP connections over the limits of connections and their memory",
            m.http_refused.get(),
        ),
        (
            "comet_http_refused_by_address_total",
            "counter",
            "HTTP connections over the limit of their address",
            m.http_refused_by_address.get(),
        ),
        (
            "comet_http_memory_bytes",
            "gauge",
            "bytes that HTTP connections take",
            memory::taken(m),
        ),
        (
            "comet_http_memory_max_bytes",
            "gauge",
            "bytes that they may take",
            site.ceiling.bytes(),
        ),
        (
            "comet_http_shed_total",
            "counter",
            "requests refused and slow clients cut for want of that memory",
            m.http_shed.get(),
        ),
        (
            "comet_http2_broken_total",
            "counter",
            "HTTP/2 connections ended because the client broke the protocol or one of its limits",
            m.http2_broken.get(),
        ),
        (
            "comet_http_accept_pauses_total",
            "counter",
            "pauses of accepting because the machine had no descriptor or memory left",
            m.http_accept_pauses.get(),
        ),
        (
            "comet_http_requests_total",
            "counter",
            "HTTP requests",
            m.http_requests.get(),
        ),
        (
            "comet_subscribers",
            "gauge",
            "subscriptions held now",
            m.subscribers.get(),
        ),
        (
            "comet_delivered_total",
            "counter",
            "messages written to subscribers",
            m.delivered.get(),
        ),
        (
            "comet_published_total",
            "counter",
            "messages published",
            hub.published,
        ),
        (
            "comet_published_files_total",
            "counter",
            "of these by files",
            m.published_files.get(),
        ),
        (
            "comet_published_socket_total",
            "counter",
            "of these by the Unix socket",
            m.published_socket.get(),
        ),
        (
            "comet_published_spool_total",
            "counter",
            "of these from the spool",
            m.published_spool.get(),
        ),
        (
            "comet_published_http_total",
            "counter",
            "of these by HTTP",
            m.published_http.get(),
        ),
        (
            "comet_files_refused_total",
            "counter",
            "files refused",
            m.files_refused.get(),
        ),
        (
            "comet_spool_refused_total",
            "counter",
            "files of the spool refused",
            m.spool_refused.get(),
        ),
        (
            "comet_files_rescans_total",
            "counter",
            "scans of the directory after the first",
            m.files_rescans.get(),
        ),
        (
            "comet_files_polling",
            "gauge",
            "1 while inotify refuses to watch the directory, which is compared every second instead",
            m.files_polling.get(),
        ),
        (
            "comet_socket_connections",
            "gauge",
            "Unix socket connections open now",
            m.socket_connections.get(),
        ),
        (
            "comet_socket_refused_total",
            "counter",
            "Unix socket connections refused",
            m.socket_refused.get(),
        ),
        (
            "comet_socket_forbidden_total",
            "counter",
            "publishes over the Unix socket that a rule did not allow",
            m.socket_forbidden.get(),
        ),
        (
            "comet_socket_accept_pauses_total",
            "counter",
            "pauses of accepting on the Unix socket because the machine had no descriptor or memory left",
            m.socket_accept_pauses.get(),
        ),
        (
            "comet_channels",
            "gauge",
            "channels with history or listeners",
            hub.channels as u64,
        ),
        (
            "comet_history_messages",
            "gauge",
            "messages kept",
            hub.messages as u64,
        ),
        (
            "comet_history_bytes",
            "gauge",
            "bytes that the messages take",
            hub.bytes as u64,
        ),
        (
            "comet_clock_ahead_seconds",
            "gauge",
            "how far ids are ahead of a clock that has stepped back",
            ahead,
        ),
        (
            "comet_store_bytes",
            "gauge",
            "bytes of the log",
            store(|store| store.bytes),
        ),
        (
            "comet_store_failing",
            "gauge",
            "1 while the log cannot be written",
            store(|store| u64::from(store.error.is_some())),
        ),
        (
            "comet_store_rewrites_total",
            "counter",
            "times that the log was written anew",
            store(|store| store.rewrites),
        ),
    ];
    let lines = figures.map(|(name, kind, help, value)| {
        format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
    });
    lines.concat()
}

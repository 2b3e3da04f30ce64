//! Finds what is at a path. Escapes are decoded once before a path is compared, for all paths alike (RFC 3986, section
//! 6.2.2): `/%68ealthz` is `/healthz`. An escaped slash does not separate segments. Nothing else is normalised: there
//! is nothing at `/./healthz`, `//healthz` and `/%2568ealthz`.

use std::borrow::Cow;

use super::{Api, endpoint::Endpoint, pages};

/// The methods of a channel.
const CHANNEL_METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// The methods of a path that can only be read.
pub(crate) const PAGE_METHODS: &str = "GET, HEAD, OPTIONS";

/// The path of a request.
pub(crate) struct UrlPath<'a> {
    /// As it was sent, with its escapes.
    sent: &'a str,
    /// `None`: an escape is malformed or stands for a slash, or the path is not UTF-8.
    decoded: Option<Cow<'a, str>>,
}

impl<'a> UrlPath<'a> {
    pub(crate) fn new(sent: &'a str) -> Self {
        let decoded = decoded(sent);
        Self { sent, decoded }
    }

    /// Whether the decoded path is `path`.
    pub(crate) fn is(&self, path: &str) -> bool {
        self.decoded.as_deref() == Some(path)
    }

    /// The part of the path after `prefix`, which begins and ends with a slash. This part is as it was sent, because an
    /// escaped slash or comma in it differs from a plain one. `None`: the path does not begin with `prefix`.
    pub(crate) fn after(&self, prefix: &str) -> Option<&'a str> {
        let slashes = prefix.matches('/').count();
        let (end, _) = self.sent.match_indices('/').nth(slashes.checked_sub(1)?)?;
        let (first, rest) = self.sent.split_at(end + 1);
        (decoded(first)? == prefix).then_some(rest)
    }
}

/// What a request asks for by its path.
pub(super) enum Resource<'a> {
    /// `/ch/NAMES`: the names as the URL has them, not decoded.
    Channels(&'a str),
    /// `/presence/NAME`: the name as the URL has it, not decoded.
    Presence(&'a str),
    /// An endpoint of another server's protocol, and its methods at this path.
    Endpoint(&'a dyn Endpoint, &'static str),
    Health,
    Metrics,
    /// The browser client, or a demo page: its path.
    Page(Cow<'a, str>),
}

impl<'a> Resource<'a> {
    /// Finds what is at this path. `None`: there is nothing.
    pub(super) fn at(api: &'a Api, path: &'a str) -> Option<Self> {
        if let Some(names) = behind("ch", path) {
            return Some(Self::Channels(names));
        }
        if let Some(name) = behind("presence", path) {
            return Some(Self::Presence(name));
        }
        if path.is_empty() {
            return None;
        }
        let path = UrlPath::new(path);
        for endpoint in &api.endpoints {
            if let Some(methods) = endpoint.methods(&path) {
                return Some(Self::Endpoint(&**endpoint, methods));
            }
        }
        let path = path.decoded?;
        match &*path {
            "/healthz" => Some(Self::Health),
            "/metrics" => Some(Self::Metrics),
            _ => pages::is_page(api.demo.as_ref(), &path).then_some(Self::Page(path)),
        }
    }

    /// The methods that are answered here, as a list for the header `Allow`.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Channels(_) => CHANNEL_METHODS,
            Self::Endpoint(_, methods) => methods,
            Self::Presence(_) | Self::Health | Self::Metrics | Self::Page(_) => PAGE_METHODS,
        }
    }
}

/// The part of a path after its first segment, if that is `folder`.
fn behind<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    let (first, rest) = path.strip_prefix('/')?.split_once('/')?;
    (first == folder || decoded(first)? == folder).then_some(rest)
}

/// Decodes the escapes of a path. `None`: an escape is malformed or stands for a slash, or the result is not UTF-8.
fn decoded(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(path.into());
    }
    let mut escapes = path.split('%').skip(1).map(|rest| rest.get(..2));
    let is_whole = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !escapes.all(|escape| {
        escape.is_some_and(|digits| is_whole(digits) && digits != "2F" && digits != "2f")
    }) {
        return None;
    }
    percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_once() {
        for (path, plain) in [
            ("/healthz", Some("/healthz")),
            ("/%68ealthz", Some("/healthz")),
            ("/%68%65%61%6C%74%68%7a", Some("/healthz")),
            ("/%2568ealthz", Some("/%68ealthz")),
            ("/a%00", Some("/a\0")),
            ("/%C3%A9", Some("/é")),
            ("/./a//%2e%2E/", Some("/./a//../")),
            ("/a%2Fb", None),
            ("/a%2fb", None),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%+1", None),
            ("/%é", None),
            ("/%FF", None),
        ] {
            assert_eq!(decoded(path).as_deref(), plain, "{path}");
        }
    }

    #[test]
    fn the_rest_after_a_prefix_keeps_its_escapes() {
        for (path, rest) in [
            ("/a/sub/x", Some("x")),
            ("/a/sub/", Some("")),
            ("/%61/s%75b/x%2Cy,z/%2F", Some("x%2Cy,z/%2F")),
            ("/a/sub//x", Some("/x")),
            ("/a/sub", None),
            ("/a%2Fsub/x", None),
            ("/a/sub%2Fx", None),
            ("/a/subx/x", None),
            ("/b/sub/x", None),
            ("//a/sub/x", None),
            ("", None),
        ] {
            assert_eq!(UrlPath::new(path).after("/a/sub/"), rest, "{path}");
        }
    }

    #[test]
    fn channels_are_behind_their_first_segment() {
        for (path, expected) in [
            ("/ch/a", Some("a")),
            ("/ch/", Some("")),
            ("/%63h/a%2Cb", Some("a%2Cb")),
            ("/c%68/./a", Some("./a")),
            ("/ch", None),
            ("/ch%2Fa", None),
            ("/ch%2Fa/b", None),
            ("//ch/a", None),
            ("/./ch/a", None),
            ("/%2563h/a", None),
            ("/CH/a", None),
            ("ch/a", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(behind("ch", path), expected, "{path}");
        }
    }
}

//! Fits refusals to the clients that would not understand them.

use hyper::{Method, http::request::Parts};

use super::{
    answer::{ClientKind, Refusal},
    framing::without_line_ends,
    media::Accepted,
    paths::Place,
    site::Site,
};
use crate::compat::novcomet;

impl ClientKind {
    /// The kind of client, by the method and the URL as they were sent.
    fn of(site: &Site, method: &str, url: &str, accepted: &Accepted) -> Self {
        let url = url.split_once("://").map_or(url, |(_, rest)| {
            rest.find('/').map_or("", |path| &rest[path..])
        });
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let pairs = form_urlencoded::parse(query.as_bytes());
        let transport = || pairs.filter(|(name, _)| name == "as").last();
        let is_stream = || transport().map_or(accepted.prefers_stream(), |(_, name)| name == "sse");
        match Place::at(site, path) {
            _ if !matches!(method, "GET" | "HEAD") => Self::Other,
            Some(Place::Channels(_)) if is_stream() => Self::EventSource,
            Some(Place::NovComet) => match novcomet::Request::parse(pairs) {
                novcomet::Request::Publish(_) => Self::NovComet("false"),
                novcomet::Request::Subscribe(_) => Self::NovComet("{\"s\":0}"),
            },
            _ => Self::Other,
        }
    }
}

impl Refusal {
    /// Fits the refusal to the client whose request begins with `input`. The head may be incomplete or malformed. The
    /// origin of its page is noted, so that the page may read why it is refused.
    pub(crate) fn asked_by(self, site: &Site, input: &[u8]) -> Self {
        let mut lines = without_line_ends(input).split(|&byte| byte == b'\n');
        let request = lines.next().and_then(|line| str::from_utf8(line).ok());
        let (mut accepted, mut origin) = (Accepted::default(), None);
        for line in lines.take_while(|line| !line.trim_ascii().is_empty()) {
            let mut parts = line.splitn(2, |&byte| byte == b':');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                continue;
            };
            if name.eq_ignore_ascii_case(b"accept") {
                accepted.add(value.trim_ascii());
            } else if name.eq_ignore_ascii_case(b"origin") {
                let value = str::from_utf8(value).ok();
                origin = value.map(|value| value.trim().to_owned());
            }
        }
        let mut words = request.unwrap_or_default().split(' ');
        let (method, url) = (words.next().unwrap_or_default(), words.next());
        let client = ClientKind::of(site, method, url.unwrap_or_default(), &accepted);
        self.for_client(client, method == "HEAD", origin)
    }

    /// Fits the refusal to the client that sent this request. hyper writes the answer.
    pub(crate) fn to(self, site: &Site, head: &Parts) -> Self {
        let url = head.uri.path_and_query().map(|url| url.as_str());
        let (method, accepted) = (head.method.as_str(), Accepted::of(&head.headers));
        let client = ClientKind::of(site, method, url.unwrap_or_default(), &accepted);
        self.for_client(client, head.method == Method::HEAD, None)
    }
}

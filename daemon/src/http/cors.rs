//! What an answer says about cross-origin use (CORS, Fetch standard, section 3.3): which pages of other origins may read
//! the answer. The setting `origins` lists the pages.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::request::{Request, text};
use crate::config::Origin;

/// What an answer says about cross-origin use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cors {
    /// Nothing: the page has the same origin or one that is not listed, or no page asks.
    None,
    /// Any origin.
    Any,
    /// The origin with this place among [`Origins`].
    Origin(u16),
}

/// The origins whose pages may read answers.
///
/// A connection that waits remembers the place of its origin, and so do answers that many connections share. So a name
/// keeps its place when the settings change.
#[derive(Default)]
pub struct Origins {
    /// All names so far, also those of earlier settings.
    names: Vec<String>,
    /// The places in `names` of those that the settings list now.
    listed: Vec<u16>,
    any: bool,
}

impl Origins {
    /// The origins of new settings; `before` are those of the old ones.
    #[must_use]
    pub fn new(listed: &[String], before: Option<&Self>) -> Self {
        let mut origins = Self {
            names: before.map_or(Vec::new(), |before| before.names.clone()),
            listed: Vec::new(),
            any: listed.iter().any(|name| name == "*"),
        };
        for name in listed.iter().filter(|name| *name != "*") {
            let known = origins.names.iter().position(|known| known == name);
            let place = known.unwrap_or_else(|| {
                origins.names.push(name.clone());
                origins.names.len() - 1
            });
            origins.listed.extend(u16::try_from(place));
        }
        origins
    }

    /// What the answer to this request says.
    pub(crate) fn of_request(&self, request: &Request<'_>) -> Cors {
        // No browser sends two.
        let origin = request.only("origin").ok().flatten();
        origin
            .and_then(text)
            .map_or(Cors::None, |origin| self.of(origin))
    }

    /// What an answer says to a page of `origin`. A listed name takes precedence over `*`, because only pages of listed
    /// origins may send credentials.
    pub(crate) fn of(&self, origin: &str) -> Cors {
        let any = if self.any { Cors::Any } else { Cors::None };
        let Some(origin) = Origin::parse(origin) else {
            return any;
        };
        let is_it = |place: &&u16| {
            let name = self.names.get(usize::from(**place));
            name.and_then(|name| Origin::parse(name)) == Some(origin)
        };
        let place = self.listed.iter().find(is_it);
        place.map_or(any, |place| Cors::Origin(*place))
    }

    /// Whether pages for which an answer said this may still read answers, by these settings.
    pub(crate) fn still_allow(&self, cors: Cors) -> bool {
        match cors {
            Cors::None => true,
            Cors::Any => self.any,
            Cors::Origin(place) => self.any || self.listed.contains(&place),
        }
    }

    /// Whether answers depend on the Origin header of the request. Then answers to requests without that header say so, too.
    fn vary(&self) -> bool {
        self.any || !self.listed.is_empty()
    }

    /// The value of `Access-Control-Allow-Origin` for `cors`.
    fn allowed(&self, cors: Cors) -> Option<&str> {
        match cors {
            Cors::None => None,
            Cors::Any => Some("*"),
            Cors::Origin(place) => self.names.get(usize::from(place)).map(String::as_str),
        }
    }
}

/// The names and values of the headers for `cors`. Only a page of an origin that is listed by name may read answers to
/// requests with cookies. With `*` any page could use the cookie of the person who visits that page.
pub(crate) fn cors_headers(
    cors: Cors,
    origins: &Origins,
) -> impl Iterator<Item = (&'static str, &str)> {
    let origin = origins.allowed(cors);
    let credentials = matches!(cors, Cors::Origin(_)).then_some("true");
    let lines = [
        ("access-control-allow-origin", origin),
        ("access-control-allow-credentials", credentials),
        (
            "access-control-expose-headers",
            origin.map(|_| "ETag, Retry-After"),
        ),
        ("vary", origins.vary().then_some("Origin")),
    ];
    let lines = lines.into_iter();
    lines.filter_map(|(name, value)| Some((name, value?)))
}

/// Adds the headers for `cors` to an answer.
pub(crate) fn add_cors(headers: &mut HeaderMap, cors: Cors, origins: &Origins) {
    for (name, value) in cors_headers(cors, origins) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(listed: &[&str], before: Option<&Origins>) -> Origins {
        let listed: Vec<String> = listed.iter().map(|&name| name.to_owned()).collect();
        Origins::new(&listed, before)
    }

    #[test]
    fn a_name_keeps_its_place_and_loses_its_right() {
        let first = origins(&["https://a", "https://b"], None);
        let b = first.of("https://B");
        assert_eq!(first.allowed(b), Some("https://b"));
        let second = origins(&["https://c", "https://b"], Some(&first));
        assert_eq!(second.of("https://b"), b);
        assert_eq!(second.of("https://a"), Cors::None);
        let c = second.of("https://c");
        assert_eq!(second.allowed(c), Some("https://c"));
        let third = origins(&["*"], Some(&second));
        assert_eq!(third.allowed(third.of("https://x")), Some("*"));
        assert_eq!(third.allowed(c), Some("https://c"), "of a poll that waits");
        assert_eq!(origins(&[], Some(&third)).of("https://c"), Cors::None);
    }

    #[test]
    fn a_name_counts_before_any() {
        let both = origins(&["*", "https://a", "capacitor://localhost"], None);
        assert_eq!(both.allowed(both.of("https://A:443")), Some("https://a"));
        assert_eq!(both.of("capacitor://LocalHost"), Cors::Any, "as it is sent");
        let app = both.of("capacitor://localhost");
        assert_eq!(both.allowed(app), Some("capacitor://localhost"));
        for other in ["https://b", "http://a", "null", "*", ""] {
            assert_eq!(both.of(other), Cors::Any, "{other}");
        }
    }
}

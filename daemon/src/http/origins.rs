//! Origins whose pages may read, as the configuration lists them.

use super::answer::Cors;
use crate::config::Origin;

/// See the module. A connection that waits notes the place of its origin, and so do answers that many share: a name
/// keeps its place when the settings change.
#[derive(Default)]
pub struct Origins {
    /// Those of earlier settings, too.
    names: Vec<String>,
    /// Places in `names`.
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

    /// What an answer says to a page of `origin`. A name counts before `*`: only named origins may send credentials.
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

    /// Answers differ by the Origin of the request, also those to requests without one.
    pub(crate) fn vary(&self) -> bool {
        self.any || !self.listed.is_empty()
    }

    /// The header value for `cors`.
    pub(crate) fn header(&self, cors: Cors) -> Option<&str> {
        match cors {
            Cors::None => None,
            Cors::Any => Some("*"),
            Cors::Origin(place) => self.names.get(usize::from(place)).map(String::as_str),
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
        assert_eq!(first.header(b), Some("https://b"));
        let second = origins(&["https://c", "https://b"], Some(&first));
        assert_eq!(second.of("https://b"), b);
        assert_eq!(second.of("https://a"), Cors::None);
        let c = second.of("https://c");
        assert_eq!(second.header(c), Some("https://c"));
        let third = origins(&["*"], Some(&second));
        assert_eq!(third.header(third.of("https://x")), Some("*"));
        assert_eq!(third.header(c), Some("https://c"), "of a poll that waits");
        assert_eq!(origins(&[], Some(&third)).of("https://c"), Cors::None);
    }

    #[test]
    fn a_name_counts_before_any() {
        let both = origins(&["*", "https://a", "capacitor://localhost"], None);
        assert_eq!(both.header(both.of("https://A:443")), Some("https://a"));
        let app = both.of("capacitor://localhost");
        assert_eq!(both.header(app), Some("capacitor://localhost"));
        for other in ["https://b", "http://a", "null", "*", ""] {
            assert_eq!(both.of(other), Cors::Any, "{other}");
        }
    }
}

//! The parameters of a URL.

use std::borrow::Cow;

use super::request::Request;

/// The decoded pairs of a query.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn of(request: &Request<'a>) -> Self {
        let query = request.query.unwrap_or_default();
        if query.contains(['%', '+']) {
            return Self(form_urlencoded::parse(query.as_bytes()).collect());
        }
        // Nothing is escaped in the query of nearly every poll.
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The last value of this parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rfind(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// The last value of this parameter that is not empty.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        let is_filled =
            |(known, value): &&(Cow<'_, str>, Cow<'_, str>)| known == name && !value.is_empty();
        self.0.iter().rfind(is_filled).map(|(_, value)| &**value)
    }
}

//! Attributes: optional pairs of a key and a text, which a publisher adds to a message.

use std::fmt;

use serde::{Serialize, Serializer};

/// The attributes of a message: 1 to 16 pairs of a key and a text, 2048 bytes at most together, sorted by key. A message
/// without attributes has no `Attributes`.
#[derive(Clone, PartialEq, Eq)]
pub struct Attributes(Box<[(Box<str>, Box<str>)]>);

/// Why attributes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// A key is empty, too long, or has a character that keys may not have.
    #[error(
        "attribute key {0:?} must have 1 to {max} bytes of A-Z a-z 0-9 _ . -", max = Attributes::MAX_KEY
    )]
    Key(Box<str>),
    /// A key is listed twice.
    #[error("attribute {0:?} is set twice")]
    Twice(Box<str>),
    /// There are more pairs than [`Attributes::MAX_COUNT`].
    #[error("{0} attributes are over the limit of {max}", max = Attributes::MAX_COUNT)]
    TooMany(usize),
    /// Keys and values together are longer than [`Attributes::MAX_BYTES`].
    #[error("attributes of {0} bytes are over the limit of {max}", max = Attributes::MAX_BYTES)]
    TooLong(usize),
}

impl Attributes {
    /// The most pairs.
    pub const MAX_COUNT: usize = 16;

    /// The most bytes of all keys and values together.
    pub const MAX_BYTES: usize = 2048;

    /// The longest key in bytes.
    pub const MAX_KEY: usize = 64;

    /// Checks the pairs and sorts them by key. `None`: there is no pair.
    ///
    /// # Errors
    /// Says which rule the pairs break.
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(
        pairs: &[(K, V)],
    ) -> Result<Option<Box<Self>>, AttributesError> {
        if pairs.is_empty() {
            return Ok(None);
        }
        if pairs.len() > Self::MAX_COUNT {
            return Err(AttributesError::TooMany(pairs.len()));
        }
        let pairs = pairs
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_ref()));
        let bytes = pairs.clone().map(|(key, value)| key.len() + value.len());
        let bytes: usize = bytes.sum();
        if bytes > Self::MAX_BYTES {
            return Err(AttributesError::TooLong(bytes));
        }
        let mut sorted: Vec<(Box<str>, Box<str>)> = pairs
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        sorted.sort_unstable();
        if let Some((key, _)) = sorted.iter().find(|(key, _)| !is_key(key)) {
            return Err(AttributesError::Key(
                key.chars().take(Self::MAX_KEY).collect(),
            ));
        }
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(AttributesError::Twice(twice[0].0.clone()));
        }
        Ok(Some(Box::new(Self(sorted.into()))))
    }

    /// The pairs, in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The approximate memory in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        const PAIR: usize = size_of::<(Box<str>, Box<str>)>();
        let pair = |(key, value): (&str, &str)| PAIR + key.len() + value.len();
        size_of::<Self>() + self.iter().map(pair).sum::<usize>()
    }
}

fn is_key(key: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=Attributes::MAX_KEY).contains(&key.len()) && key.bytes().all(is_allowed)
}

/// As a JSON object of strings.
impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pair_is_no_attributes_and_pairs_are_sorted() {
        assert_eq!(Attributes::parse::<&str, &str>(&[]), Ok(None));
        let attributes = Attributes::parse(&[("type", "book"), ("Id", "é\n")]);
        let attributes = attributes.unwrap().unwrap();
        let pairs: Vec<_> = attributes.iter().collect();
        assert_eq!(pairs, [("Id", "é\n"), ("type", "book")]);
        let json = serde_json::to_string(&attributes).unwrap();
        assert_eq!(json, r#"{"Id":"é\n","type":"book"}"#);
    }

    #[test]
    fn the_bounds_are_those_of_the_protocol() {
        use AttributesError as E;
        let count = |n| (0..n).map(|i| (format!("k{i}"), "v")).collect::<Vec<_>>();
        assert_eq!(
            Attributes::parse(&count(16)).unwrap().unwrap().iter().len(),
            16
        );
        assert_eq!(Attributes::parse(&count(17)), Err(E::TooMany(17)));
        let long = |n| [("k", "v".repeat(n))];
        assert!(Attributes::parse(&long(2047)).is_ok());
        assert_eq!(Attributes::parse(&long(2048)), Err(E::TooLong(2049)));
        assert_eq!(
            Attributes::parse(&[("a", "1"), ("b", ""), ("a", "2")]),
            Err(E::Twice("a".into()))
        );
        assert!(Attributes::parse(&[("k".repeat(64), "")]).is_ok());
        for key in ["", "a b", "a=b", "é", "a\0", &"k".repeat(65)] {
            let refused = Attributes::parse(&[(key, "v")]);
            assert!(matches!(refused, Err(E::Key(_))), "{key:?}");
        }
    }
}

//! The reference of a request, which its reply repeats.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{LineError, MAX_REFERENCE};

/// Chosen by the client: a whole number or a text. The daemon repeats it in the reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reference {
    /// A whole number that is not negative.
    Number(u64),
    /// A negative number.
    Negative(i64),
    /// A text of at most [`MAX_REFERENCE`] bytes.
    Text(Box<str>),
}

impl Reference {
    pub(super) fn check(self) -> Result<Self, LineError> {
        match &self {
            Self::Text(text) if text.len() > MAX_REFERENCE => Err(LineError::Reference(text.len())),
            _ => Ok(self),
        }
    }

    /// Puts the reference into the reply that begins at `start` of `out`: a JSON object with at least one field.
    pub fn insert(&self, start: usize, out: &mut Vec<u8>) {
        let mut field = b"\"ref\":".to_vec();
        serde_json::to_writer(&mut field, self).expect("text has a JSON form and a Vec takes it");
        field.push(b',');
        let inside = start + 1;
        out.splice(inside..inside, field);
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReferenceVisitor;
        impl de::Visitor<'_> for ReferenceVisitor {
            type Value = Reference;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a text as ref")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Reference, E> {
                Ok(Reference::Number(number))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Reference, E> {
                Ok(Reference::Negative(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Reference, E> {
                Ok(Reference::Text(text.into()))
            }
        }
        deserializer.deserialize_any(ReferenceVisitor)
    }
}

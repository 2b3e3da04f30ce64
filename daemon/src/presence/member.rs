//! A member: a user's id, and what others may know of the user.

use std::sync::Arc;

use serde_json::Value;

/// A member of channels. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    id: Arc<str>,
    info: Option<Arc<str>>,
}

/// Why somebody cannot be a member. The text fits after "member: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("an id of {0} bytes is not allowed: it must have 1 to {max}", max = Member::MAX_ID)]
    IdLength(usize),
    #[error("an id may not contain control characters")]
    IdCharacter,
    #[error("an info of {0} bytes is over the limit of {max}", max = Member::MAX_INFO)]
    InfoLength(usize),
}

impl Member {
    /// The longest id in bytes.
    pub const MAX_ID: usize = 200;

    /// The longest info in bytes of JSON.
    pub const MAX_INFO: usize = 2048;

    /// Checks the id and the info, which is any JSON.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn new(id: &str, info: Option<&Value>) -> Result<Self, MemberError> {
        if id.is_empty() || id.len() > Self::MAX_ID {
            return Err(MemberError::IdLength(id.len()));
        }
        if id.chars().any(char::is_control) {
            return Err(MemberError::IdCharacter);
        }
        let info = info.filter(|info| !info.is_null()).map(Value::to_string);
        if let Some(info) = info.as_ref().filter(|info| info.len() > Self::MAX_INFO) {
            return Err(MemberError::InfoLength(info.len()));
        }
        Ok(Self {
            id: id.into(),
            info: info.map(Into::into),
        })
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What others may know of the member, as JSON on one line.
    #[must_use]
    pub fn info(&self) -> Option<&str> {
        self.info.as_deref()
    }

    /// Appends the fields of a JSON object: `"id":"42","info":{…}`.
    pub(super) fn write_fields(&self, out: &mut String) {
        out.push_str("\"id\":");
        out.push_str(&Value::from(&*self.id).to_string());
        if let Some(info) = &self.info {
            out.push_str(",\"info\":");
            out.push_str(info);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_short_and_visible_and_an_info_is_short() {
        use MemberError as E;
        let long = "x".repeat(201);
        for (id, error) in [
            ("", E::IdLength(0)),
            (&*long, E::IdLength(201)),
            ("a\nb", E::IdCharacter),
            ("a\u{85}", E::IdCharacter),
        ] {
            assert_eq!(Member::new(id, None), Err(error), "{id:?}");
        }
        let info = json!({"name": "x".repeat(2048)});
        assert!(matches!(
            Member::new("a", Some(&info)),
            Err(E::InfoLength(_))
        ));
        let info = json!({"name": "Ann\n"});
        let member = Member::new("a\"é", Some(&info)).unwrap();
        let mut out = String::new();
        member.write_fields(&mut out);
        assert_eq!(out, r#""id":"a\"é","info":{"name":"Ann\n"}"#);
        assert_eq!(Member::new("a", Some(&Value::Null)).unwrap().info(), None);
    }
}

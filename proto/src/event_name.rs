//! Event names: the optional label of a message.

/// The label of a message (`name` on the wire): at most 200 bytes of text without control characters, usually
/// empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventName(Box<str>);

/// Why an event name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventNameError {
    /// The name is longer than [`EventName::MAX_LEN`].
    #[error("event name of {0} bytes is over the limit of {max}", max = EventName::MAX_LEN)]
    TooLong(usize),
    /// The name contains a line end or another control character.
    #[error("event name may not contain {0:?}")]
    Character(char),
    /// The bytes are not UTF-8.
    #[error("event name is not UTF-8")]
    NotUtf8,
}

impl EventName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 200;

    /// Checks `name`.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse(name: &str) -> Result<Self, EventNameError> {
        if name.len() > Self::MAX_LEN {
            return Err(EventNameError::TooLong(name.len()));
        }
        match name.chars().find(|c| c.is_control()) {
            Some(c) => Err(EventNameError::Character(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// Like [`EventName::parse`], for names that arrive as bytes.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse_bytes(name: &[u8]) -> Result<Self, EventNameError> {
        if name.len() > Self::MAX_LEN {
            return Err(EventNameError::TooLong(name.len()));
        }
        Self::parse(str::from_utf8(name).map_err(|_| EventNameError::NotUtf8)?)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_text_and_refuses_line_ends() {
        assert_eq!(
            EventName::parse("order paid").unwrap().as_str(),
            "order paid"
        );
        assert_eq!(
            EventName::parse("a\nb"),
            Err(EventNameError::Character('\n'))
        );
        assert_eq!(
            EventName::parse(&"x".repeat(201)),
            Err(EventNameError::TooLong(201))
        );
    }
}

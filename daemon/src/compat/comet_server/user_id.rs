//! The number of a user.

use std::{fmt, num::NonZeroU32};

/// The number of a user: 1 to 999,999,999. A connection without a user is anonymous, and shows the number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UserId(NonZeroU32);

/// Longest number in digits.
const MAX_DIGITS: usize = 9;

impl UserId {
    /// Parses a number in decimal digits. `None`: this is not the number of a user.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        let fits = (1..=MAX_DIGITS).contains(&text.len());
        (is_number && fits)
            .then(|| text.parse().ok())
            .flatten()
            .map(Self)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number_of_up_to_nine_digits() {
        for (text, number) in [("1", "1"), ("007", "7"), ("999999999", "999999999")] {
            assert_eq!(UserId::parse(text).unwrap().to_string(), number);
        }
        for text in ["", "0", "-1", "+1", "1000000000", "undefined", "1 ", "١"] {
            assert_eq!(UserId::parse(text), None, "{text:?}");
        }
    }
}

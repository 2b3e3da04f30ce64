//! Cursors: the id that was seen last, as clients write it.

/// The id of the last message that a client saw, in microseconds since the Unix epoch. `0` asks for all that
/// is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(pub u64);

/// Why a cursor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Neither a number nor a time.
    #[error("cursor must be a message id, 0, or an RFC 3339 time such as 2026-01-31T12:00:00Z")]
    Malformed,
    /// A number that no 64 bits hold.
    #[error("cursor is over the limit of {max}", max = u64::MAX)]
    TooLarge,
    /// A time before 1970.
    #[error("cursor may not lie before 1970")]
    BeforeEpoch,
}

impl Cursor {
    /// Parses an id, `0`, or an RFC 3339 time (section 5.6; any offset, any fraction).
    ///
    /// # Errors
    /// Says what a cursor may be.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Self).map_err(|_| CursorError::TooLarge);
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| CursorError::Malformed)?;
        u64::try_from(time.as_microsecond())
            .map(Self)
            .map_err(|_| CursorError::BeforeEpoch)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ids_and_times() {
        let cases = [
            ("0", 0),
            ("1763690000123456", 1_763_690_000_123_456),
            ("18446744073709551615", u64::MAX),
            ("1970-01-01T00:00:01Z", 1_000_000),
            ("1970-01-01T01:00:00.5+01:00", 500_000),
        ];
        for (text, cursor) in cases {
            assert_eq!(Cursor::parse(text), Ok(Cursor(cursor)), "{text}");
        }
    }

    #[test]
    fn names_the_broken_rule() {
        use CursorError as E;
        let cases = [
            ("", E::Malformed),
            ("-1", E::Malformed),
            ("1.5", E::Malformed),
            ("now", E::Malformed),
            ("18446744073709551616", E::TooLarge),
            ("1969-12-31T23:59:59Z", E::BeforeEpoch),
        ];
        for (text, error) in cases {
            assert_eq!(Cursor::parse(text), Err(error), "{text:?}");
        }
    }
}

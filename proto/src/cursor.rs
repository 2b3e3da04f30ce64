//! Cursors: the last id that a client has received, in the forms that clients send.

use std::borrow::Cow;

/// The id of the last message that a client has received, in microseconds since the Unix epoch. `0` stands for the beginning: the
/// client gets all messages that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(pub u64);

/// Why a cursor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// The text is neither a number nor a time.
    #[error("cursor must be a message id, 0, or an RFC 3339 time such as 2026-01-31T12:00:00Z")]
    Malformed,
    /// The number is larger than 64 bits.
    #[error("cursor is over the limit of {max}", max = u64::MAX)]
    TooLarge,
    /// The time is before 1970.
    #[error("cursor may not be before 1970")]
    BeforeEpoch,
}

/// The position after which a client wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// After the message with this id. `0` asks for everything that is kept.
    Id(Cursor),
    /// After this moment, in microseconds since the Unix epoch. No message needs to have exactly this time, so only
    /// the daemon can turn it into a cursor.
    Time(u64),
}

impl Since {
    /// Parses an id, `0`, or an RFC 3339 time (section 5.6; any offset, any fraction). The plus of an offset may be a
    /// blank, because decoding a URL's query turns an unescaped plus into one.
    ///
    /// # Errors
    /// Says what a cursor may be.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let id = text.parse().map_err(|_| CursorError::TooLarge)?;
            return Ok(Self::Id(Cursor(id)));
        }
        let time = with_plus(text);
        let time: jiff::Timestamp = time
            .parse()
            .or_else(|_| last_days(&time).parse())
            .map_err(|_| CursorError::Malformed)?;
        u64::try_from(time.as_microsecond())
            .map(Self::Time)
            .map_err(|_| CursorError::BeforeEpoch)
    }
}

impl Since {
    /// The id or the time, in microseconds since the Unix epoch. Both can be compared with each other.
    #[must_use]
    pub fn micros(&self) -> u64 {
        match *self {
            Self::Id(Cursor(micros)) | Self::Time(micros) => micros,
        }
    }
}

/// Moves a time in the last two days of the year 9999, which often stands for "for ever", to the day before. The time library cannot
/// represent all times of these two days.
fn last_days(time: &str) -> Cow<'_, str> {
    match time.split_at_checked("9999-12-3".len()) {
        Some(("9999-12-3", rest)) => match rest.strip_prefix(['0', '1']) {
            Some(rest) => format!("9999-12-29{rest}").into(),
            None => time.into(),
        },
        _ => time.into(),
    }
}

/// Restores the plus of an offset that has become a blank: before `HH:MM` or `HHMM` at the end, after a time.
fn with_plus(text: &str) -> Cow<'_, str> {
    let Some((time, offset)) = text.rsplit_once(' ') else {
        return text.into();
    };
    let digits = offset.replacen(':', "", 1);
    let is_offset = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit());
    match is_offset && time.contains(':') {
        true => format!("{time}+{offset}").into(),
        false => text.into(),
    }
}

/// The form that [`Since::parse`] reads.
impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |micros| jiff::Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok();
        match *self {
            Self::Id(id) => id.fmt(f),
            Self::Time(micros) => time(micros).unwrap_or(jiff::Timestamp::MAX).fmt(f),
        }
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
        let ids = [
            ("0", 0),
            ("1763690000123456", 1_763_690_000_123_456),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, id) in ids {
            let since = Since::Id(Cursor(id));
            assert_eq!(Since::parse(text), Ok(since));
            assert_eq!(since.to_string(), text);
        }
        let times = [
            ("1970-01-01T00:00:01Z", 1_000_000),
            ("1970-01-01T01:00:00.5+01:00", 500_000),
            ("1970-01-01T00:00:00.000001-00:00", 1),
            ("9999-12-31T23:59:59Z", 253_402_127_999_000_000),
            ("9999-12-30T23:59:59-02:00", 253_402_135_199_000_000),
        ];
        for (text, time) in times {
            let since = Since::Time(time);
            assert_eq!(Since::parse(text), Ok(since), "{text}");
            assert_eq!(Since::parse(&since.to_string()), Ok(since), "{text}");
        }
    }

    #[test]
    fn a_blank_before_the_offset_is_its_plus() {
        for offset in [" 01:00", " 0100", "+01:00", "+0100"] {
            for time in [
                "1970-01-01T02:00:00",
                "1970-01-01T02:00:00.000",
                "1970-01-01 02:00:00",
            ] {
                let text = format!("{time}{offset}");
                assert_eq!(
                    Since::parse(&text),
                    Ok(Since::Time(3_600_000_000)),
                    "{text}"
                );
            }
        }
        for text in [
            "1970-01-01 01:00",
            "1970-01-01T02:00:00 1:00",
            "1970-01-01T02:00:00  01:00",
            "1970-01-01T02:00:00 01:00 ",
            "1970-01-01T02:00:00 99:99",
            "1970-01-01T02:00:00Z 01:00",
            "0 01:00",
            "1763690000123456 01:00",
            " 01:00",
        ] {
            assert_eq!(Since::parse(text), Err(CursorError::Malformed), "{text:?}");
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
            assert_eq!(Since::parse(text), Err(error), "{text:?}");
        }
    }
}

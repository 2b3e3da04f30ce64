//! The cursors of this protocol: decimal numbers of any length. They are compared digit by digit, because a floating-point
//! number would round them.

use std::{borrow::Cow, cmp::Ordering};

/// A decimal number. `7.5` and `07.50` are the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decimal {
    /// A number of millionths, like the ids of messages.
    Micros(u64),
    /// Any other number, without leading and trailing zeros.
    Text(Box<str>),
}

impl Decimal {
    /// Parses digits, which may have a fraction. `None`: the text is no such number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        Some(match micros(whole, fraction) {
            Some(micros) => Self::Micros(micros),
            None => Self::Text(format!("{whole}.{fraction}").into()),
        })
    }

    /// A whole number.
    pub(crate) fn of_whole(number: u64) -> Self {
        Self::Micros(number.saturating_mul(1_000_000))
    }

    /// The digits before and after the point, without leading and trailing zeros.
    fn digits(&self) -> Cow<'_, str> {
        match self {
            Self::Micros(micros) => {
                let text = seconds(*micros);
                text.trim_matches('0').to_owned().into()
            }
            Self::Text(text) => (&**text).into(),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Self::Micros(a), Self::Micros(b)) = (self, other) {
            return a.cmp(b);
        }
        let (a, b) = (self.digits(), other.digits());
        key(&a).cmp(&key(&b))
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The number with more digits before the point is larger. Between equally long numbers the order of the digits decides.
fn key(digits: &str) -> (usize, &str, &str) {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    (whole.len(), whole, fraction)
}

/// The number of millionths. `None`: it has smaller parts than millionths, or is too large.
fn micros(whole: &str, fraction: &str) -> Option<u64> {
    if fraction.len() > 6 {
        return None;
    }
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(fraction)
}

/// An id as a cursor: seconds with six decimals.
pub(crate) fn seconds(id: u64) -> String {
    format!("{}.{:06}", id / 1_000_000, id % 1_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn numbers_of_any_length_are_compared_exactly() {
        let ascending = [
            "0",
            "0.0000000000000000000000000001",
            "0.000001",
            "7",
            "7.49999999999999999999",
            "7.5",
            "7.50000000000000000001",
            "10",
            "1763690000.123456",
            "1763690000.1234560000001",
            "1763690000.123457",
            "18446744073709.551615",
            "18446744073709.551616",
            "99999999999999999999999999999999",
            "100000000000000000000000000000000.5",
        ];
        for pair in ascending.windows(2) {
            assert!(decimal(pair[0]) < decimal(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn zeros_at_the_ends_do_not_count() {
        for (a, b) in [
            ("7.5", "7.50"),
            ("007", "7.0"),
            ("0", "00.00"),
            ("1.00000000000000001", "01.000000000000000010"),
        ] {
            assert_eq!(decimal(a), decimal(b));
        }
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in ["", ".", "1.", ".5", "-1", "1e5", "1.2.3", "1,5", " 1", "١"] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_id_is_its_number_of_micros() {
        assert_eq!(seconds(1_763_690_000_000_001), "1763690000.000001");
        assert_eq!(seconds(5), "0.000005");
    }

    proptest! {
        #[test]
        fn ids_have_the_order_of_their_texts(a: u64, b in "[0-9]{1,15}(\\.[0-9]{1,9})?") {
            prop_assert_eq!(decimal(&seconds(a)), Decimal::Micros(a));
            let as_text = Decimal::Text(decimal(&seconds(a)).digits().into());
            let b = decimal(&b);
            prop_assert_eq!(as_text.cmp(&b), Decimal::Micros(a).cmp(&b));
        }
    }
}

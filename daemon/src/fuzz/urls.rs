//! Escapes of URLs and forms, written a second time so that the daemon can be compared with them.

/// Text of a query or a form, decoded by the rules of the URL standard ("application/x-www-form-urlencoded parsing").
/// `None`: it is not UTF-8.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        let (byte, taken) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 2),
            (b'+', ..) => (b' ', 0),
            (byte, ..) => (byte, 0),
        };
        bytes.push(byte);
        rest = &after[taken..];
    }
    String::from_utf8(bytes).ok()
}

/// Escapes all `bytes`, so that they stand for themselves in any part of a URL.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_forms_as_browsers_encode_them() {
        assert_eq!(decoded("a+b%20%2Bc%zz%4").unwrap(), "a b +c%zz%4");
        assert_eq!(decoded("%ff"), None);
        assert_eq!(decoded(&escaped("é&".as_bytes())).unwrap(), "é&");
    }
}

//! A request of either line, as far as it has come. The original server searches its input instead of parsing it, so a
//! request need not be HTTP: the lines before the empty line are enough.

use super::identifier;

/// The parts of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The lines before the empty line.
    head: &'a [u8],
    /// What has come after the empty line. `None`: the empty line has not come.
    body: Option<&'a [u8]>,
}

/// The header `Content-Length` is malformed, or there are several.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLength;

impl<'a> Request<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut ends = memchr::memchr_iter(b'\n', bytes);
        let empty_line = ends.find_map(|end| {
            let rest = &bytes[end + 1..];
            let body = rest
                .strip_prefix(b"\n")
                .or_else(|| rest.strip_prefix(b"\r\n"))?;
            Some((&bytes[..end], body))
        });
        match empty_line {
            Some((head, body)) => Self {
                head,
                body: Some(body),
            },
            None => Self {
                head: bytes,
                body: None,
            },
        }
    }

    pub(crate) fn head(&self) -> &'a [u8] {
        self.head
    }

    pub(crate) fn body(&self) -> Option<&'a [u8]> {
        self.body
    }

    /// The lines before the empty line, without their ends. The last line may be incomplete.
    fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let lines = self.head.split(|byte| *byte == b'\n');
        lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }

    pub(crate) fn first_line(&self) -> &'a [u8] {
        self.lines().next().unwrap_or_default()
    }

    /// Whether the first line, which must be complete, is the line of an HTTP request.
    pub(crate) fn is_http(&self) -> bool {
        let line = self.first_line();
        line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
    }

    /// Whether the first line is complete.
    pub(crate) fn has_first_line(&self) -> bool {
        self.body.is_some() || self.head.contains(&b'\n')
    }

    /// The values of the headers with this name.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.lines().filter_map(move |line| {
            let colon = memchr::memchr(b':', line)?;
            let (found, value) = line.split_at(colon);
            found
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| value[1..].trim_ascii())
        })
    }

    /// Whether there is a header with this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    pub(crate) fn content_length(&self) -> Result<Option<usize>, BadLength> {
        let mut values = self.values("content-length");
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(value).ok().and_then(|n| n.parse().ok());
        match number.filter(|_| is_number && values.next().is_none()) {
            None => Err(BadLength),
            length => Ok(length),
        }
    }

    /// The text after `identifier=` in the first line, or else in the header `X-Realplexor`. Other headers are not searched:
    /// a Referer or a cookie may contain the same word.
    pub(crate) fn identifier(&self) -> Option<&'a [u8]> {
        let header = || self.values("x-realplexor").find_map(identifier::find);
        identifier::find(self.first_line()).or_else(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request<'_> {
        Request::new(text.as_bytes())
    }

    #[test]
    fn the_body_begins_after_the_first_empty_line() {
        for (text, head, body) in [
            ("A\r\nB\r\n\r\nC\n\nD", "A\r\nB\r", Some("C\n\nD")),
            ("A\n\r\nC", "A", Some("C")),
            ("A\n\n", "A", Some("")),
            ("A\r\nB\r\n", "A\r\nB\r\n", None),
            ("", "", None),
        ] {
            let request = request(text);
            assert_eq!(request.head(), head.as_bytes(), "{text:?}");
            assert_eq!(request.body(), body.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn the_identifier_is_in_the_first_line_or_in_its_own_header() {
        for (head, value) in [
            (
                "GET /?identifier=a HTTP/1.1\nX-Realplexor: identifier=b",
                Some("a HTTP/1.1"),
            ),
            (
                "POST / HTTP/1.1\r\nx-realplexor:identifier=b\r\nA: b",
                Some("b"),
            ),
            ("X-Realplexor: identifier=a,b", Some("a,b")),
            (
                "POST / HTTP/1.1\nReferer: http://h/?identifier=x\nCookie: identifier=y",
                None,
            ),
            (
                "POST / HTTP/1.1\n Referer: identifier=x\nX-Realplexor: none",
                None,
            ),
        ] {
            let text = format!("{head}\n\n");
            assert_eq!(
                request(&text).identifier(),
                value.map(str::as_bytes),
                "{head}"
            );
        }
    }

    #[test]
    fn a_length_is_given_once_in_digits() {
        let length = |text: &str| request(text).content_length();
        assert_eq!(length("A\ncontent-length:  7 \r\n\r\n"), Ok(Some(7)));
        assert_eq!(length("A\nB: c\n\nContent-Length: 7"), Ok(None));
        for value in [
            "",
            "-1",
            "+7",
            "7 7",
            "99999999999999999999",
            "7\nContent-Length: 7",
        ] {
            assert_eq!(
                length(&format!("A\nContent-Length: {value}\n\n")),
                Err(BadLength)
            );
        }
    }

    #[test]
    fn http_is_known_by_the_end_of_the_first_line() {
        assert!(request("GET / HTTP/1.1\r\n").is_http());
        assert!(request("POST / HTTP/1.0\n\n").is_http());
        assert!(!request("X-Realplexor: identifier=a\r\n\r\n").is_http());
        assert!(!request("").has_first_line() && !request("GET / HTTP/1.1").has_first_line());
        assert!(request("A\n").has_first_line() && request("\n").has_first_line());
    }
}

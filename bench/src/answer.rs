//! Reads an HTTP response from a buffer, as far as the bench needs it.

/// One HTTP response at the start of a buffer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// Length of the response in bytes, with its head.
    pub(crate) length: usize,
    /// The header lines, without the status line.
    fields: &'a str,
}

impl<'a> Answer<'a> {
    /// Parses the response. `None`: the response is not complete yet.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?;
        let (status, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = status
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("{status:?}"))?;
        let mut answer = Self {
            status,
            body: &[],
            length: end + 4,
            fields,
        };
        let length = match answer.field("content-length") {
            Some(length) => length.parse().map_err(|_| format!("length {length:?}"))?,
            None if matches!(status, 204 | 304) => 0,
            None => return Err(format!("an answer without content-length: {head:?}")),
        };
        let Some(body) = bytes.get(answer.length..answer.length + length) else {
            return Ok(None);
        };
        answer.body = body;
        answer.length += length;
        Ok(Some(answer))
    }

    pub(crate) fn field(&self, name: &str) -> Option<&'a str> {
        let fields = self.fields.split("\r\n");
        let mut fields = fields.filter_map(|field| field.split_once(':'));
        let field = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\ncontent-length:2\r\n\r\nhiHTTP";

    #[test]
    fn takes_one_answer_from_what_follows_it() {
        let answer = Answer::read(WHOLE).unwrap().unwrap();
        assert_eq!((answer.status, answer.body), (200, &b"hi"[..]));
        assert_eq!(answer.field("etag"), Some("\"1\""));
        assert_eq!(&WHOLE[answer.length..], b"HTTP");
    }

    #[test]
    fn waits_for_the_rest() {
        for length in 0..WHOLE.len() - b"HTTP".len() {
            assert!(Answer::read(&WHOLE[..length]).unwrap().is_none());
        }
    }

    #[test]
    fn knows_which_answers_have_no_body() {
        let bytes = b"HTTP/1.1 304 Not Modified\r\nETag: 0\r\n\r\n";
        assert_eq!(Answer::read(bytes).unwrap().unwrap().length, bytes.len());
        assert!(Answer::read(b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\n").is_err());
        assert!(Answer::read(b"SSH-2.0\r\n\r\n").is_err());
    }
}

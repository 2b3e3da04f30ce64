//! A small HTTP/1.1 client: it reads one response after the other, and streams.

use std::io::{self, BufRead, ErrorKind, Read};

/// Why a connection cannot be used any more.
#[derive(Debug)]
pub enum Trouble {
    /// The connection ended, was cut, or was not accepted.
    Lost(io::Error),
    /// The server refused the request with this status and body.
    Refused(u16, String),
    /// The received bytes break the rules of their format.
    Nonsense(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Maximum length in bytes of a response head, and of one line of it.
const LONGEST: u64 = 64 << 10;

#[derive(Debug)]
pub struct Head {
    pub status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    /// # Errors
    /// When the connection ends before the head does, or when the bytes are no response head.
    pub fn read(reader: &mut impl BufRead) -> Result<Self, Trouble> {
        let mut reader = reader.take(LONGEST);
        let first = line(&mut reader)?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| Trouble::Nonsense(format!("instead of an answer: {first:?}")))?;
        let mut fields = Vec::new();
        loop {
            let line = line(&mut reader)?;
            if line.is_empty() {
                return Ok(Self { status, fields });
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| Trouble::Nonsense(format!("in a head: {line:?}")))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The first header field of this name. `name` is in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the server closes the connection after this response.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.field("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads one line and removes its line end.
pub(crate) fn line(reader: &mut impl BufRead) -> Result<String, Trouble> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(Trouble::Lost(ErrorKind::UnexpectedEof.into()));
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// The body that follows a head.
#[derive(Debug)]
pub struct Body<'a, R> {
    reader: &'a mut R,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Length(u64),
    /// Bytes that are left of the current chunk. `None`: the last chunk was read.
    Chunked(Option<u64>),
    /// The body ends with the connection.
    Rest,
}

impl<'a, R: BufRead> Body<'a, R> {
    /// # Errors
    /// When the head contradicts itself.
    pub fn new(head: &Head, reader: &'a mut R) -> Result<Self, Trouble> {
        let chunked = head
            .field("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = head.field("content-length").map(str::parse).transpose();
        let length = length.map_err(|_| Trouble::Nonsense("a content-length".into()))?;
        let form = match length {
            _ if chunked => Form::Chunked(Some(0)),
            Some(length) => Form::Length(length),
            None if matches!(head.status, 101 | 204 | 304) => Form::Length(0),
            None => Form::Rest,
        };
        Ok(Self { reader, form })
    }

    /// Reads the whole body as text.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub fn text(mut self) -> Result<String, Trouble> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| Trouble::Nonsense("a body that is no text".into()))
    }

    /// Reads the length of the next chunk. `None`: that was the last chunk.
    fn chunk(&mut self) -> io::Result<Option<u64>> {
        let told = |trouble| match trouble {
            Trouble::Lost(error) => error,
            _ => ErrorKind::InvalidData.into(),
        };
        let text = line(self.reader).map_err(told)?;
        let length = text.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(length, 16);
        let length = length.map_err(|_| io::Error::new(ErrorKind::InvalidData, "a chunk"))?;
        if length > 0 {
            return Ok(Some(length));
        }
        while !line(self.reader).map_err(told)?.is_empty() {}
        Ok(None)
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Form::Chunked(Some(0)) = self.form {
            self.form = Form::Chunked(self.chunk()?);
        }
        let left = match &mut self.form {
            Form::Length(0) | Form::Chunked(None) => return Ok(0),
            Form::Rest => return self.reader.read(buffer),
            Form::Length(left) | Form::Chunked(Some(left)) => left,
        };
        let wanted = buffer
            .len()
            .min(usize::try_from(*left).unwrap_or(usize::MAX));
        let read = self.reader.read(&mut buffer[..wanted])?;
        if read == 0 && wanted > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        let ended = matches!(self.form, Form::Chunked(Some(0))) && read > 0;
        if ended {
            let mut end = [0; 2];
            self.reader.read_exact(&mut end)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn read(text: &str) -> Result<(u16, String, String), Trouble> {
        let mut reader = BufReader::with_capacity(3, text.as_bytes());
        let head = Head::read(&mut reader)?;
        let body = Body::new(&head, &mut reader)?.text()?;
        let mut rest = String::new();
        reader.read_to_string(&mut rest)?;
        Ok((head.status, body, rest))
    }

    #[test]
    fn bodies_of_all_forms_end_where_they_end() {
        let expected = (200, "hello".to_owned(), "HTTP".to_owned());
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP";
        assert_eq!(read(length).unwrap(), expected);
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\nHTTP";
        assert_eq!(read(chunks).unwrap(), expected);
        let rest = read("HTTP/1.1 200 OK\r\n\r\nhelloHTTP").unwrap();
        assert_eq!(rest, (200, "helloHTTP".to_owned(), String::new()));
        assert_eq!(read("HTTP/1.1 304 Not\r\n\r\n").unwrap().0, 304);
    }

    #[test]
    fn what_is_cut_is_not_taken_for_whole() {
        let whole =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        for end in 0..whole.len() {
            let cut = read(&whole[..end]);
            assert!(
                matches!(cut, Err(Trouble::Lost(_))),
                "cut at {end}: {cut:?}"
            );
        }
        assert!(matches!(read("SSH-2.0\r\n\r\n"), Err(Trouble::Nonsense(_))));
    }
}

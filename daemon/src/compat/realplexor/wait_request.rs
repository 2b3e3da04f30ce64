//! What a client asks for on the WAIT line.

use super::{
    identifier::{self, Item},
    request::Request,
};

/// The longest request in bytes. The original server takes 5 KiB, but its clients send no cursors before they have got
/// blocks.
pub(crate) const MAX_BYTES: usize = 16 << 10;

/// A complete request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WaitRequest<'a> {
    /// Listens to these ids. There is at least one.
    Listen(Vec<Item<'a>>),
    /// The loader page for an iframe.
    Iframe,
    /// The script for pages.
    Script,
}

/// Why a request cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(
        "there is no identifier=ID,… in the URL, in a header X-Realplexor, or at the start of the body"
    )]
    NoIdentifier,
    #[error("identifier= names no id; ids consist of A-Z a-z 0-9 _")]
    NoId,
    #[error("the request has more than {MAX_BYTES} bytes")]
    TooLong,
}

impl<'a> WaitRequest<'a> {
    /// Reads a request. `has_ended`: nothing follows these bytes. `Ok(None)`: more must come.
    ///
    /// # Errors
    /// Says what is wrong with the request.
    pub(crate) fn read(bytes: &'a [u8], has_ended: bool) -> Result<Option<Self>, RequestError> {
        match value(bytes, has_ended)? {
            Some(value) => Self::of(identifier::items(value).collect()).map(Some),
            None if bytes.len() > MAX_BYTES => Err(RequestError::TooLong),
            None if has_ended => Err(RequestError::NoIdentifier),
            None => Ok(None),
        }
    }

    fn of(items: Vec<Item<'a>>) -> Result<Self, RequestError> {
        match items.first().map(|item| item.id) {
            None => Err(RequestError::NoId),
            Some("IFRAME") => Ok(Self::Iframe),
            Some("SCRIPT") => Ok(Self::Script),
            Some(_) => Ok(Self::Listen(items)),
        }
    }
}

/// The value of `identifier=`, with at least one byte after its list, or at the end of the input.
fn value(bytes: &[u8], has_ended: bool) -> Result<Option<&[u8]>, RequestError> {
    let request = Request::new(bytes);
    if !request.has_first_line() && !has_ended {
        return Ok(None);
    }
    let is_http = request.is_http();
    let Some(body) = request.body() else {
        return Ok(match (is_http, has_ended) {
            (_, true) => request.identifier(),
            // The headers say whether an HTTP request may be served, so its head must be complete.
            (true, false) => None,
            // Only the first line is known to be complete.
            (false, false) => identifier::find(request.first_line()),
        });
    };
    if let Some(value) = request.identifier() {
        return Ok(Some(value));
    }
    let length = request.content_length().ok().flatten();
    if is_http && length.is_none() && !request.first_line().starts_with(b"POST ") {
        return Err(RequestError::NoIdentifier); // the request has no body
    }
    let is_whole = has_ended || length.is_some_and(|length| length <= body.len());
    let body = &body[..length.unwrap_or(body.len()).min(body.len())];
    match identifier::at_start(body) {
        Some(value) if is_whole || identifier::list_length(value) < value.len() => Ok(Some(value)),
        None if is_whole || !identifier::may_start(body) => Err(RequestError::NoIdentifier),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<&str> {
        match WaitRequest::read(text.as_bytes(), false) {
            Ok(Some(WaitRequest::Listen(items))) => items.iter().map(|item| item.id).collect(),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn the_ids_are_in_the_url_or_at_the_start_of_the_body() {
        assert_eq!(
            ids("GET /?identifier=12.5:abc,def&ncrnd=1300000000123 HTTP/1.1\r\nHost: h\r\n\r\n"),
            ["abc", "def"]
        );
        let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 17\r\n\r\nidentifier=0:abc\n";
        assert_eq!(ids(post), ["abc"]);
        let without_length = "POST / HTTP/1.1\n\nidentifier=0:abc\n";
        assert_eq!(ids(without_length), ["abc"]);
        assert_eq!(ids("identifier=abc\n"), ["abc"]);
        let header = "A: b\nX-Realplexor: identifier=a";
        assert_eq!(WaitRequest::read(header.as_bytes(), false), Ok(None));
        assert_eq!(
            ids("POST / HTTP/1.1\nContent-Length: 14\n\nidentifier=abcdef\n"),
            ["abc"]
        );
        for post in [post, without_length] {
            for length in 0..post.len() - 1 {
                let read = WaitRequest::read(&post.as_bytes()[..length], false);
                assert_eq!(read, Ok(None), "{}", &post[..length]);
            }
        }
    }

    #[test]
    fn other_headers_are_not_searched() {
        let head = "Referer: http://h/?identifier=x\r\nCookie: identifier=y\r\n\r\n";
        let get = format!("GET /?identifier=0:a-b,0:abc HTTP/1.1\r\n{head}");
        assert_eq!(ids(&get), ["a"]);
        let none = format!("GET / HTTP/1.1\r\n{head}");
        let read = WaitRequest::read(none.as_bytes(), false);
        assert_eq!(read, Err(RequestError::NoIdentifier));
    }

    #[test]
    fn two_words_ask_for_the_pages() {
        let read = |id: &str| {
            let text = format!("GET /?identifier={id}&HOST=h HTTP/1.1\r\n\r\n");
            let read = WaitRequest::read(text.as_bytes(), false).unwrap().unwrap();
            (read == WaitRequest::Iframe, read == WaitRequest::Script)
        };
        assert_eq!(read("IFRAME"), (true, false));
        assert_eq!(read("SCRIPT"), (false, true));
        assert_eq!(read("iframe"), (false, false));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        use RequestError as E;
        let read = |text: &str, has_ended| {
            let read = WaitRequest::read(text.as_bytes(), has_ended);
            read.map(|request| request.is_some())
        };
        assert_eq!(
            read("GET /?identifier=,,- HTTP/1.1\n\n", false),
            Err(E::NoId)
        );
        assert_eq!(read("GET / HTTP/1.1\n", true), Err(E::NoIdentifier));
        assert_eq!(
            read("POST / HTTP/1.1\nContent-Length: 3\n\nabc", false),
            Err(E::NoIdentifier)
        );
        let long = "GET / HTTP/1.1\nA: ".to_owned() + &"a".repeat(MAX_BYTES);
        assert_eq!(read(&long, false), Err(E::TooLong));
    }
}

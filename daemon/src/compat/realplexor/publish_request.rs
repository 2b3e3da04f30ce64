//! What a publisher asks for on the IN line.

use super::{
    command::Command,
    identifier::{self, Item, Login},
    request::{BadLength, Request},
};

/// The longest request in bytes. The original server drops requests over 200 KB, but takes somewhat longer ones that come
/// in one piece.
pub(crate) const MAX_BYTES: usize = 256 << 10;

/// A complete request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PublishRequest<'a> {
    pub(crate) login: Option<Login<'a>>,
    pub(crate) action: Action<'a>,
    /// Whether the publisher has sent an HTTP request, and so expects an answer.
    pub(crate) is_http: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    Publish {
        items: Vec<Item<'a>>,
        body: &'a [u8],
    },
    Command(Command<'a>),
    /// The input has ended before the empty line, and is ignored.
    Nothing,
}

/// Why a request cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the header Content-Length is not one number")]
    Length,
    #[error("Transfer-Encoding is not supported; send Content-Length")]
    Encoding,
    #[error("the body is shorter than Content-Length says")]
    Short,
    #[error("there is no identifier=ID,… in the first line or in a header X-Realplexor")]
    NoIdentifier,
    #[error("web pages may not publish here")]
    Page,
    #[error("the request has more than {MAX_BYTES} bytes")]
    TooLong,
}

impl From<BadLength> for RequestError {
    fn from(_: BadLength) -> Self {
        Self::Length
    }
}

impl<'a> PublishRequest<'a> {
    /// Reads a request. `has_ended`: nothing follows these bytes. `Ok(None)`: more must come.
    ///
    /// # Errors
    /// Says what is wrong with the request.
    pub(crate) fn read(bytes: &'a [u8], has_ended: bool) -> Result<Option<Self>, RequestError> {
        let request = Request::new(bytes);
        let Some(action) = action(&request, has_ended)? else {
            return match bytes.len() > MAX_BYTES {
                true => Err(RequestError::TooLong),
                false => Ok(None),
            };
        };
        let (login, _) = identifier::split_login(request.identifier().unwrap_or_default());
        Ok(Some(Self {
            login,
            action,
            is_http: request.has_first_line() && request.is_http(),
        }))
    }
}

fn action<'a>(request: &Request<'a>, has_ended: bool) -> Result<Option<Action<'a>>, RequestError> {
    let Some(body) = request.body() else {
        let command = || line_command(request.head());
        let at_end = || command().map_or(Action::Nothing, Action::Command);
        return Ok(has_ended.then(at_end));
    };
    if let Some(command) = line_command(request.head()) {
        return Ok(Some(Action::Command(command)));
    }
    // A browser lets every page send such a request to this machine. It adds one of these headers, which publishers do not
    // send.
    if request.has("origin") || request.has("sec-fetch-site") {
        return Err(RequestError::Page);
    }
    if request.has("transfer-encoding") {
        return Err(RequestError::Encoding);
    }
    let body = match request.content_length()? {
        Some(length) if length <= body.len() => &body[..length],
        Some(_) if has_ended => return Err(RequestError::Short),
        None if has_ended => body,
        // An empty line ends a command, too.
        None if Request::new(body).body().is_some() && body_command(body).is_some() => body,
        _ => return Ok(None),
    };
    if let Some(command) = body_command(body) {
        return Ok(Some(Action::Command(command)));
    }
    let value = request.identifier().ok_or(RequestError::NoIdentifier)?;
    let (_, list) = identifier::split_login(value);
    let items = identifier::items(list).collect();
    Ok(Some(Action::Publish { items, body }))
}

/// A command in the body, up to an empty line.
fn body_command(body: &[u8]) -> Option<Command<'_>> {
    Command::parse(Request::new(body).head())
}

/// A command without an HTTP request: the only line before the empty line.
fn line_command(head: &[u8]) -> Option<Command<'_>> {
    let line = head.trim_ascii_end();
    Command::parse(line).filter(|_| !line.contains(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, has_ended: bool) -> Result<Option<PublishRequest<'_>>, RequestError> {
        PublishRequest::read(text.as_bytes(), has_ended)
    }

    /// The action of a complete request, which is incomplete with any byte less.
    fn action_of(text: &str) -> Action<'_> {
        for length in 0..text.len() {
            assert_eq!(
                read(&text[..length], false),
                Ok(None),
                "{:?}",
                &text[..length]
            );
        }
        read(text, false).unwrap().expect("it is complete").action
    }

    #[test]
    fn a_body_is_taken_at_its_length_or_at_the_end_of_the_input() {
        let head = "POST / HTTP/1.1\r\nHost: h\r\nX-Realplexor: identifier=abc,12.5:def,*u1\r\n";
        let by_length = format!("{head}Content-Length: 7\r\n\r\n\"hello\"");
        let Action::Publish { items, body } = action_of(&by_length) else {
            panic!("a publish");
        };
        assert_eq!((items.len(), body), (3, &b"\"hello\""[..]));
        assert_eq!((items[1].cursor, items[2].is_limit), (Some("12.5"), true));
        let by_end = format!("{head}\r\n\"hello\"");
        assert_eq!(read(&by_end, false), Ok(None));
        let request = read(&by_end, true).unwrap().unwrap();
        assert_eq!(request.action, Action::Publish { items, body });
        assert!(request.is_http && request.login.is_none());
    }

    #[test]
    fn a_request_need_not_be_http() {
        let request = read("X-Realplexor: identifier=me:pw@abc\n\n1\n", true);
        let request = request.unwrap().unwrap();
        assert!(!request.is_http);
        assert_eq!(request.login.map(|login| login.name), Some("me"));
        assert!(matches!(
            request.action,
            Action::Publish { body: b"1\n", .. }
        ));
        for ignored in ["identifier=abc", "identifier=abc\r\n", ""] {
            let request = read(ignored, true).unwrap().unwrap();
            assert_eq!(request.action, Action::Nothing);
        }
    }

    #[test]
    fn commands_stand_at_the_start_or_after_the_empty_line() {
        let online = |prefixes| Action::Command(Command::Online(prefixes));
        assert_eq!(action_of("ONLINE onl\r\n\r\n"), online(vec!["onl"]));
        assert_eq!(
            action_of("A: b\r\n\r\nonline a_ b_\n\n"),
            online(vec!["a_", "b_"])
        );
        let http =
            "POST / HTTP/1.1\r\nContent-Length: 7\r\nX-Realplexor: identifier=\r\n\r\nonline\n";
        assert_eq!(action_of(http), online(vec![]));
        for (text, action) in [
            ("ONLINE onl", online(vec!["onl"])),
            (
                "X-Realplexor: identifier=a\n\nonline x\n",
                online(vec!["x"]),
            ),
            ("\r\nONLINE onl", Action::Nothing),
            ("ONLINE onl\r\nA: b", Action::Nothing),
            ("A: b\n\nonline x\n\nwatch y", online(vec!["x"])),
        ] {
            assert_eq!(
                read(text, true).unwrap().unwrap().action,
                action,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        use RequestError as E;
        for (text, error) in [
            ("A: b\n\n1", E::NoIdentifier),
            (
                "POST /?identifier=a HTTP/1.1\nContent-Length: 2\n\n1",
                E::Short,
            ),
            ("identifier=a\nContent-Length: x\n\n1", E::Length),
            ("identifier=a\nTransfer-Encoding: chunked\n\n1", E::Encoding),
            ("identifier=a\nOrigin: null\n\n1", E::Page),
            (
                "identifier=a\nSec-Fetch-Site: cross-site\n\nonline\n",
                E::Page,
            ),
        ] {
            assert_eq!(read(text, true), Err(error), "{text:?}");
        }
        let long = |length: usize| "identifier=a\n\n".to_owned() + &"1".repeat(length);
        assert!(read(&long(210_000), true).unwrap().is_some());
        assert_eq!(read(&long(MAX_BYTES), false), Err(E::TooLong));
    }
}

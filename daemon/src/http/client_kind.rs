//! Gives refusals a form that the client understands.

use bytes::Bytes;
use httparse::Header;
use hyper::Method;

use super::{
    cors::{Cors, Origins},
    encode,
    h1::framing::without_line_ends,
    refusal::Refusal,
    request::Request,
    site::Site,
};

impl Refusal {
    /// Gives the refusal the form for the client whose request begins with `input`. The head may be incomplete or malformed. The
    /// page that sent the request may read the reason.
    pub(crate) fn asked_by(self, site: &Site, input: &[u8]) -> Self {
        let mut lines = without_line_ends(input).split(|&byte| byte == b'\n');
        let first = lines.next().and_then(|line| str::from_utf8(line).ok());
        let lines = lines.take_while(|line| !line.trim_ascii().is_empty());
        let headers: Vec<_> = lines.filter_map(header).collect();
        let request = begun(first.unwrap_or_default(), &headers);
        let cors = site.origins.of_request(&request);
        let client = site.routes.client_kind(&request);
        self.for_client(client, request.method == Method::HEAD, cors)
    }

    /// Gives the refusal the form for the client that sent this request. hyper writes the answer.
    pub(crate) fn to(self, site: &Site, request: &Request<'_>) -> Self {
        let client = site.routes.client_kind(request);
        self.for_client(client, request.method == Method::HEAD, Cors::None)
    }

    /// The whole answer for a client whose request is not served. The connection closes after it.
    pub(crate) fn into_bytes(self, origins: &Origins) -> Bytes {
        let (cors, is_head) = (self.cors, self.is_head);
        encode::last(&self.into_answer(), is_head, cors, origins).into()
    }
}

/// What is known of a request from its first line, which may be incomplete, and from the headers.
fn begun<'a>(first: &'a str, headers: &'a [Header<'a>]) -> Request<'a> {
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default();
    let url = words.next().unwrap_or_default();
    let url = url.split_once("://").map_or(url, |(_, rest)| {
        rest.find('/').map_or("", |path| &rest[path..])
    });
    // No client needs a special refusal for a method that cannot be read, nor for POST.
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::POST);
    Request::new(method, url, headers)
}

fn header(line: &[u8]) -> Option<Header<'_>> {
    let at = line.iter().position(|&byte| byte == b':')?;
    Some(Header {
        name: str::from_utf8(&line[..at]).ok()?,
        value: line[at + 1..].trim_ascii(),
    })
}

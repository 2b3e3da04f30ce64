//! The interface of an endpoint of another server's protocol.

pub(crate) use super::paths::{PAGE_METHODS, UrlPath};
use crate::{
    access::Caller,
    http::{
        refusal::{ClientKind, Refusal},
        request::Request,
        route::{Content, Route},
    },
    hub::Hub,
};

/// An endpoint of another server's protocol.
pub(crate) trait Endpoint: Send + Sync {
    /// The methods that the endpoint has at this path, as a list for the header `Allow`. Other methods are refused, and
    /// `OPTIONS` is answered for the endpoint. `None`: the endpoint is not at this path.
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str>;

    /// Decides how to answer a request with one of these methods. A request whose method is `GET`, `HEAD` or `OPTIONS` has no
    /// body.
    fn route(&self, caller: &Caller<'_>, content: Content<'_>, hub: &Hub)
    -> Result<Route, Refusal>;

    /// The kind of client that sends this request, which may be incomplete or malformed.
    fn client_kind(&self, _request: &Request<'_>) -> ClientKind {
        ClientKind::Other
    }
}

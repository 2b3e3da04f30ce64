//! What an endpoint of another server's protocol provides.

use crate::{
    access::Caller,
    http::{
        query::Query,
        refusal::{ClientKind, Refusal},
        route::Route,
    },
    hub::Hub,
};

/// An endpoint of another server's protocol, which `GET` and `HEAD` requests may ask.
pub(crate) trait Endpoint: Send + Sync {
    /// Whether the endpoint is at this path, which is decoded.
    fn serves(&self, path: &str) -> bool;

    /// Finds what to do about a request for the endpoint.
    fn route(&self, caller: &Caller<'_>, hub: &Hub) -> Result<Route, Refusal>;

    /// The kind of client that sends a request with this query.
    fn client_kind(&self, _query: &Query<'_>) -> ClientKind {
        ClientKind::Other
    }
}

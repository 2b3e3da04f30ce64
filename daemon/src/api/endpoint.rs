//! The interface of an endpoint of another server's protocol.

use crate::{
    access::Caller,
    http::{
        query::Query,
        refusal::{ClientKind, Refusal},
        route::Route,
    },
    hub::Hub,
};

/// An endpoint of another server's protocol. It answers `GET` and `HEAD` requests.
pub(crate) trait Endpoint: Send + Sync {
    /// Whether the endpoint is at this decoded path.
    fn serves(&self, path: &str) -> bool;

    /// Decides how to answer a request for the endpoint.
    fn route(&self, caller: &Caller<'_>, hub: &Hub) -> Result<Route, Refusal>;

    /// The kind of client that sends a request with this query.
    fn client_kind(&self, _query: &Query<'_>) -> ClientKind {
        ClientKind::Other
    }
}

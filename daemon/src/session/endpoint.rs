//! `GET /session`: the sessions of our own clients.

use crate::{
    access::{Caller, permission::Credentials},
    api::{
        channel::no_websocket,
        endpoint::{Endpoint, PAGE_METHODS, UrlPath},
    },
    http::{
        refusal::Refusal,
        route::{Content, Route, Upgrade},
        upgrade,
    },
    hub::Hub,
    transport::websocket::PROTOCOL,
};

use super::{comet::Comet, websocket::open_session};

/// The endpoint at `/session`.
pub(crate) struct SessionEndpoint;

impl Endpoint for SessionEndpoint {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        path.is("/session").then_some(PAGE_METHODS)
    }

    fn route(
        &self,
        caller: &Caller<'_>,
        _content: Content<'_>,
        _hub: &Hub,
    ) -> Result<Route, Refusal> {
        let credentials = Credentials::of(caller)?;
        let handshake = upgrade::check(caller.request, PROTOCOL)
            .map_err(|error| no_websocket(caller.request, error))?;
        let open = open_session(credentials, Comet);
        Ok(Route::Upgrade(Upgrade { handshake, open }))
    }
}

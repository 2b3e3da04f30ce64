//! Pusher Channels, protocol 7: pages with pusher-js or Laravel Echo over a WebSocket at `/app/KEY`, and applications with
//! Pusher's server libraries over HTTP at `/apps/ID/…`. Source: Pusher's documentation, "Channels", sections "WebSocket
//! protocol" and "HTTP API".

pub(crate) mod api;
pub(crate) mod app;
pub(crate) mod channel;
pub(crate) mod events;
mod frames;
mod page;
pub(crate) mod request;
pub(crate) mod signature;

use std::{sync::Arc, time::Duration};

use ring::rand::{self, SystemRandom};

use crate::{
    access::{Caller, permission::Credentials},
    api::{
        channel::no_websocket,
        endpoint::{Endpoint, PAGE_METHODS, UrlPath},
    },
    config::PusherConfig,
    http::{
        refusal::Refusal,
        route::{Content, Route, Upgrade},
        upgrade,
    },
    hub::Hub,
    session::websocket::open_session,
};
use api::{ApiRequest, Call};
use app::App;
use page::{Page, RefusedPage};

/// The subprotocol of the WebSocket. pusher-js offers none.
const SUBPROTOCOL: &str = "pusher-channels-protocol";

/// The oldest and the newest protocol that pages may ask for.
const PROTOCOLS: std::ops::RangeInclusive<u32> = 5..=7;

/// The endpoint.
pub(super) struct Pusher {
    /// `/app/` and `/apps/` with what the setting `path` adds before them.
    page_path: String,
    api_path: String,
    activity_timeout: Duration,
    max_data: usize,
    apps: Vec<Arc<App>>,
}

impl Pusher {
    pub(super) fn new(config: &PusherConfig) -> Self {
        let path = config.path.trim_end_matches('/');
        Self {
            page_path: format!("{path}/app/"),
            api_path: format!("{path}/apps/"),
            activity_timeout: config.activity_timeout,
            max_data: config.max_data,
            apps: App::all(config).into_iter().map(Arc::new).collect(),
        }
    }

    /// Opens the connection of a page.
    fn open(&self, caller: &Caller<'_>, key: &str) -> Result<Route, Refusal> {
        let credentials = Credentials::of(caller)?;
        let handshake = upgrade::check(caller.request, SUBPROTOCOL)
            .map_err(|error| no_websocket(caller.request, error))?;
        let open = match self.page(caller, key) {
            Ok(page) => open_session(credentials, page),
            Err(refused) => open_session(credentials, refused),
        };
        Ok(Route::Upgrade(Upgrade { handshake, open }))
    }

    fn page(&self, caller: &Caller<'_>, key: &str) -> Result<Page, RefusedPage> {
        let refuse = |code, reason: &'static str| {
            let reason = reason.into();
            Err(RefusedPage { code, reason })
        };
        let Some(app) = self.apps.iter().find(|app| app.key == key) else {
            return refuse(4001, "no app has this key");
        };
        match caller.query.get("protocol").map(str::parse) {
            None => return refuse(4008, "the parameter protocol is missing"),
            Some(Ok(protocol)) if PROTOCOLS.contains(&protocol) => {}
            Some(_) => return refuse(4007, "protocols 5 to 7 are spoken here"),
        }
        Ok(Page::new(app.clone(), socket_id(), self.activity_timeout))
    }
}

/// A new socket id: two random numbers.
fn socket_id() -> String {
    let random: [u8; 8] = rand::generate(&SystemRandom::new())
        .expect("the system has random numbers")
        .expose();
    let [a, b, c, d, e, f, g, h] = random;
    let (first, second) = (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    );
    format!("{first}.{second}")
}

impl Endpoint for Pusher {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        if let Some(key) = path.after(&self.page_path) {
            return (!key.contains('/')).then_some(PAGE_METHODS);
        }
        let (_, call) = Call::parse(path.after(&self.api_path)?)?;
        Some(call.methods())
    }

    fn route(
        &self,
        caller: &Caller<'_>,
        content: Content<'_>,
        hub: &Hub,
    ) -> Result<Route, Refusal> {
        let path = UrlPath::new(caller.request.path);
        if let Some(key) = path.after(&self.page_path) {
            return self.open(caller, key);
        }
        let call = path.after(&self.api_path).and_then(Call::parse);
        let Some((id, call)) = call else {
            return Err(Refusal::bad("path", "the API has no such path"));
        };
        let Some(app) = self.apps.iter().find(|app| app.id == id) else {
            let error = api::ApiError::not_found(format!("no app has the id {id:?}"));
            return Ok(Route::Answer(error.into_answer()));
        };
        let request = ApiRequest::new(app, call, caller.request, self.max_data);
        Ok(request.route(content, caller.site, hub))
    }
}

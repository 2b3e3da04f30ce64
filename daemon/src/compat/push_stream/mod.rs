//! The HTTP interface of nginx-push-stream-module, at paths of the operator's choice: publishing, subscribing in five modes, and
//! statistics. The defaults of the paths and of the templates are those that the script pushstream.js needs.
//!
//! An error has no body. The header `X-Nginx-PushStream-Explain` has the reason.

mod info;
pub(crate) mod path;
mod publisher;
mod publishing;
mod render;
mod start;
mod subscriber;
pub(crate) mod template;
mod transports;

use hyper::{
    StatusCode,
    header::{HeaderName, HeaderValue},
};

use crate::{
    access::Caller,
    api::endpoint::{Endpoint, PAGE_METHODS, UrlPath},
    config::PushStreamConfig,
    http::{
        answer::Answer,
        refusal::{ClientKind, Reason, Refusal},
        request::Request,
        route::{Content, Route},
    },
    hub::Hub,
};
use path::PathError;
use subscriber::{Mode, Subscribers};

/// The methods of the publisher's path, without and with the right to delete channels.
const PUBLISHER_METHODS: &str = "GET, POST, PUT, OPTIONS";
const ADMIN_METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS";

/// The header with the reason of an error.
const EXPLAIN: HeaderName = HeaderName::from_static("x-nginx-pushstream-explain");

pub(super) struct PushStream {
    places: Vec<(PlacePath, Place)>,
    subscribers: Subscribers,
    /// Whether `DELETE` at the publisher's path deletes channels.
    may_delete: bool,
}

/// A configured path.
struct PlacePath {
    path: String,
    /// The path and a slash: channels may follow.
    prefix: String,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Publisher,
    Subscriber(Mode),
    Statistics,
}

impl PushStream {
    pub(super) fn new(config: &PushStreamConfig) -> Self {
        info::uptime(); // starts to count
        let places = [
            (&config.publish, Place::Publisher),
            (&config.subscribe, Place::Subscriber(Mode::Streaming)),
            (&config.events, Place::Subscriber(Mode::EventSource)),
            (&config.long_poll, Place::Subscriber(Mode::LongPolling)),
            (&config.websocket, Place::Subscriber(Mode::WebSocket)),
            (&config.statistics, Place::Statistics),
        ];
        let places = places.into_iter().filter(|(path, _)| !path.is_empty());
        Self {
            places: places
                .map(|(path, place)| (PlacePath::new(path), place))
                .collect(),
            subscribers: Subscribers::new(config),
            may_delete: config.delete,
        }
    }

    /// The place at a path, and the channels that follow in the path, as they were sent.
    fn at<'a>(&self, path: &UrlPath<'a>) -> Option<(Place, &'a str)> {
        self.places.iter().find_map(|(place_path, place)| {
            let channels = match path.is(&place_path.path) {
                true => "",
                false => path.after(&place_path.prefix)?,
            };
            let has_path = matches!(place, Place::Subscriber(_));
            (has_path || channels.is_empty()).then_some((*place, channels))
        })
    }
}

impl PlacePath {
    fn new(path: &str) -> Self {
        let path = path.trim_end_matches('/');
        Self {
            path: path.to_owned(),
            prefix: format!("{path}/"),
        }
    }
}

impl Endpoint for PushStream {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        let (place, _) = self.at(path)?;
        Some(match place {
            Place::Publisher if self.may_delete => ADMIN_METHODS,
            Place::Publisher => PUBLISHER_METHODS,
            Place::Subscriber(_) | Place::Statistics => PAGE_METHODS,
        })
    }

    fn route(
        &self,
        caller: &Caller<'_>,
        content: Content<'_>,
        hub: &Hub,
    ) -> Result<Route, Refusal> {
        let (place, channels) = self
            .at(&UrlPath::new(caller.request.path))
            .ok_or_else(|| Refusal::new(Reason::NoSuchPath, "nothing is at this path"))?;
        let by_query = |name| caller.query.get(name).unwrap_or_default();
        match place {
            Place::Publisher => {
                let channels = by_query("id").as_bytes();
                publisher::route(caller, content, hub, channels)
            }
            Place::Statistics => info::statistics(caller, hub, by_query("id").as_bytes()),
            Place::Subscriber(mode) => {
                let path = percent_encoding::percent_decode_str(channels).collect::<Vec<u8>>();
                let channels = match path.is_empty() {
                    true => by_query("channels").as_bytes(),
                    false => &path,
                };
                self.subscribers.route(caller, hub, mode, channels)
            }
        }
    }

    fn client_kind(&self, _request: &Request<'_>) -> ClientKind {
        ClientKind::OtherProtocol(explain)
    }
}

/// An answer without a body. The header has the reason.
fn explain(status: StatusCode, reason: &str) -> Answer {
    let plain = |c: char| matches!(c, ' '..='~');
    let reason: String = reason
        .chars()
        .map(|c| if plain(c) { c } else { '?' })
        .collect();
    let reason = HeaderValue::from_str(&reason).expect("visible ASCII");
    Answer::empty(status).with(EXPLAIN, reason)
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        match error {
            PathError::NoChannel => Self::bad("channel", error),
            PathError::Pattern | PathError::TooMany => Self::forbidden(error.to_string()),
        }
    }
}

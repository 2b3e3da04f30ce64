//! NovComet's `comet.php`: a channel has one value, the time of its last publish, and a poll returns the values that
//! have grown. Here the value is the last message's id, as seconds with six decimals, so that two publishes
//! within a second are two changes. Every answer is a 200 with JSON, because the old client stops polling for ever after any
//! other answer.

pub(crate) mod poll;

use std::slice;

use hyper::Method;

use crate::{
    access::Caller,
    api::{
        channel::hold,
        endpoint::{Endpoint, PAGE_METHODS, UrlPath},
        publish::Publish,
    },
    config::CompatConfig,
    http::{
        answer::Answer,
        query::Query,
        refusal::{ClientKind, Refusal},
        request::Request,
        route::{Content, Route},
    },
    hub::Hub,
};
use poll::NovCometRequest;

/// The page's publish has failed.
const FALSE: &str = "false";

/// Nothing has changed.
const NOTHING: &str = "{\"s\":0}";

pub(super) struct NovComet {
    path: String,
}

impl NovComet {
    pub(super) fn new(config: &CompatConfig) -> Self {
        let path = config.novcomet.clone();
        Self { path }
    }
}

impl Endpoint for NovComet {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        path.is(&self.path).then_some(PAGE_METHODS)
    }

    fn route(&self, caller: &Caller<'_>, _: Content<'_>, hub: &Hub) -> Result<Route, Refusal> {
        Ok(match NovCometRequest::parse(caller.query.pairs()) {
            NovCometRequest::Publish(channel) => {
                let may = |channel: &_| caller.may_publish(slice::from_ref(channel)).is_ok();
                let is_get = caller.request.method == Method::GET;
                let publish = channel.filter(may).filter(|_| is_get).map(Publish::to);
                let published =
                    publish.map(|it| it.publish(caller.site, b"", |_| Answer::json("true")));
                match published {
                    Some(Ok(route)) => route,
                    _ => Route::Answer(Answer::json(FALSE)),
                }
            }
            NovCometRequest::Subscribe(mut subscribed) => {
                // Channels that may not be read are left out, like invalid ids. For the old page such channels never change.
                let right = caller.keep_readable(&mut subscribed);
                match poll::poll(hub, subscribed, right.oldest) {
                    Ok(body) => Route::Answer(Answer::json(body)),
                    Err(mut subscription) => {
                        subscription.expires = right.expires;
                        hold(hub, caller.request, subscription)
                    }
                }
            }
        })
    }

    fn client_kind(&self, request: &Request<'_>) -> ClientKind {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return ClientKind::Other;
        }
        ClientKind::Always200(match NovCometRequest::parse(Query::of(request).pairs()) {
            NovCometRequest::Publish(_) => FALSE,
            NovCometRequest::Subscribe(_) => NOTHING,
        })
    }
}

//! Comet's own HTTP interface: finds what is at a path and checks the right to use it. The endpoints of other servers'
//! protocols are passed in.

pub(crate) mod channel;
pub(crate) mod endpoint;
pub(crate) mod entity_tag;
mod figures;
pub(crate) mod media;
mod options;
pub(crate) mod pages;
pub(crate) mod parameters;
mod paths;
mod presence;
pub(crate) mod publish;

use std::{any::Any, sync::Arc};

use comet_proto::ChannelName;
use hyper::{Method, StatusCode};

use crate::{
    access::{Caller, Rights, hosts},
    http::{
        answer::Answer,
        query::Query,
        refusal::{ClientKind, Reason, Refusal},
        request::Request,
        route::{Asked, Content, Route, Routes},
        site::Site,
    },
};
use endpoint::Endpoint;
pub(crate) use pages::Demo;
use paths::{PAGE_METHODS, Resource};

/// Everything that the daemon serves over HTTP with the present settings.
pub(crate) struct Api {
    rights: Arc<Rights>,
    /// With `--demo`: what the demo pages show about this daemon.
    demo: Option<Demo>,
    endpoints: Vec<Box<dyn Endpoint>>,
}

impl Api {
    pub(crate) fn new(
        rights: Arc<Rights>,
        demo: Option<Demo>,
        endpoints: Vec<Box<dyn Endpoint>>,
    ) -> Self {
        Self {
            rights,
            demo,
            endpoints,
        }
    }

    /// Routes a request whose path, method and body are right for this place.
    fn route_to(&self, place: Resource<'_>, asked: &Asked<'_>) -> Result<Route, Refusal> {
        let (site, hub, request) = (asked.site, asked.hub, asked.request);
        let caller = |query| Caller {
            rights: &self.rights,
            site,
            request,
            query,
        };
        Ok(Route::Answer(match place {
            Resource::Channels(names) => {
                let query = &parameters::query(request)?;
                return channel::route(&caller(query), asked.content, hub, names);
            }
            Resource::Endpoint(endpoint, _) => {
                return endpoint.route(&caller(&Query::of(request)), asked.content, hub);
            }
            Resource::Presence(name) => {
                let query = &parameters::query(request)?;
                return presence::members(&caller(query), name);
            }
            Resource::Health => Answer::new(StatusCode::OK, "text/plain", "ok\n"),
            Resource::Metrics => {
                let figures = figures::metrics(site, hub);
                Answer::new(StatusCode::OK, "text/plain; version=0.0.4", figures)
            }
            Resource::Page(path) => pages::page(self.demo.as_ref(), &path, request)
                .ok_or_else(|| self.not_found(&path))?,
        }))
    }

    fn not_found(&self, path: &str) -> Refusal {
        let path: String = path.chars().take(64).collect();
        let hint = match self.demo {
            Some(_) => "",
            None => "; comet serve --demo also serves pages to try it with",
        };
        let message = format!("nothing is at {path}; channels are at /ch/NAME{hint}");
        Refusal::new(Reason::NoSuchPath, message)
    }
}

/// The rights of channels by the settings of this site.
pub(crate) fn rights(site: &Site) -> &Rights {
    let routes: &dyn Any = &*site.routes;
    let api: &Api = routes
        .downcast_ref()
        .expect("every site of the daemon has an Api");
    &api.rights
}

impl Routes for Api {
    /// Checks the host and the limits, then the path, then the method, then the body. The health check is answered under any
    /// host name.
    fn route(&self, asked: &Asked<'_>) -> Result<Route, Refusal> {
        let request = asked.request;
        let place = Resource::at(self, request.path);
        if !matches!(place, Some(Resource::Health)) {
            hosts::is_meant(request, &asked.site.config.hosts)?;
        }
        check_limits(asked.site, request)?;
        let methods = place.as_ref().map_or(PAGE_METHODS, Resource::methods);
        if request.method != Method::OPTIONS {
            if place.is_none() {
                return Err(self.not_found(request.path));
            }
            check_method(request, methods)?;
        }
        let takes_body = !matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        match asked.content {
            Content::Unannounced if takes_body => return Err(no_length()),
            _ if takes_body => {}
            Content::Some => return Err(no_body(&request.method)),
            Content::Unknown => return Ok(Route::Look),
            Content::Empty | Content::Whole(_) | Content::Unannounced => {}
        }
        match place.filter(|_| request.method != Method::OPTIONS) {
            Some(place) => self.route_to(place, asked),
            None => {
                let answer = options::answer(&asked.site.origins, request, methods);
                Ok(Route::Answer(answer))
            }
        }
    }

    fn client_kind(&self, request: &Request<'_>) -> ClientKind {
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        match Resource::at(self, request.path) {
            Some(Resource::Channels(_)) if is_read => channel::client_kind(request),
            Some(Resource::Endpoint(endpoint, _)) => endpoint.client_kind(request),
            _ => ClientKind::Other,
        }
    }

    fn end(&self, before: &dyn Routes, channels: &[ChannelName], by_token: bool) -> bool {
        let before: Option<&Self> = (before as &dyn Any).downcast_ref();
        before.is_none_or(|before| self.rights.end(&before.rights, channels, by_token))
    }
}

fn check_limits(site: &Site, request: &Request<'_>) -> Result<(), Refusal> {
    let (config, url) = (&site.config, request.url_length());
    if url > config.max_url {
        let message = format!("URL of {url} bytes is over the limit of {}", config.max_url);
        return Err(Refusal::new(Reason::UrlTooLong, message));
    }
    let header = request.header_length();
    if header > config.max_header {
        let message = format!(
            "headers of {header} bytes are over the limit of {}",
            config.max_header
        );
        return Err(Refusal::new(Reason::HeadersTooLarge, message));
    }
    Ok(())
}

/// Refuses a method that is not among `methods`.
fn check_method(request: &Request<'_>, methods: &'static str) -> Result<(), Refusal> {
    let method = &request.method;
    let known = methods.as_bytes().split(|byte| *byte == b',');
    let mut known = known.map(<[u8]>::trim_ascii_start);
    if known.any(|known| known == method.as_str().as_bytes()) {
        return Ok(());
    }
    let message = format!("{method} is not for this path (allowed: {methods})");
    Err(Refusal::new(Reason::Method(methods), message))
}

fn no_body(method: &Method) -> Refusal {
    let message = format!("a request with the method {method} may not have a body");
    Refusal::bad("body", message)
}

fn no_length() -> Refusal {
    let message = "bytes follow a POST without Content-Length; a body needs its length, or Transfer-Encoding: chunked";
    Refusal::new(Reason::NoLength, message)
}

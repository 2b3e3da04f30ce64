//! The protocols of other servers, so that their clients work unmodified: endpoints at paths of the HTTP port, and ports of
//! their own.

pub(crate) mod comet_server;
pub(crate) mod cometql;
pub(crate) mod http_push;
pub(crate) mod memcached;
pub(crate) mod names;
mod nchan;
pub(crate) mod novcomet;
pub(crate) mod port;
pub(crate) mod push_stream;
pub(crate) mod pusher;
pub(crate) mod realplexor;
pub(crate) mod redis;
pub(crate) mod zeitoun;

use std::sync::Arc;

use crate::{api::endpoint::Endpoint, config::CompatConfig};
use comet_server::websocket::PageEndpoint;
use port::Port;

/// The endpoints, each with its settings.
pub(crate) fn endpoints(config: &CompatConfig) -> Vec<Box<dyn Endpoint>> {
    let mut endpoints: Vec<Box<dyn Endpoint>> = vec![
        Box::new(novcomet::NovComet::new(config)),
        Box::new(zeitoun::ZeitounChat::new(config)),
        Box::new(zeitoun::ZeitounClock::new(config)),
    ];
    if let Some(config) = &config.push_stream {
        endpoints.push(Box::new(push_stream::PushStream::new(config)));
    }
    if let Some(config) = &config.nchan {
        endpoints.push(Box::new(nchan::Nchan::new(config.clone())));
    }
    let pages = config.comet_server.as_ref().and_then(PageEndpoint::new);
    if let Some(pages) = pages {
        endpoints.push(Box::new(pages));
    }
    if let Some(config) = &config.pusher {
        endpoints.push(Box::new(pusher::Pusher::new(config)));
    }
    endpoints
}

/// The protocols that have a port of their own, each with its settings.
///
/// # Errors
/// A file that the settings name cannot be used.
pub(crate) fn ports(config: &CompatConfig) -> anyhow::Result<Vec<Arc<dyn Port>>> {
    let mut ports: Vec<Arc<dyn Port>> = Vec::new();
    if let Some(port) = config.comet_server.as_ref().and_then(cometql::CometQl::new) {
        ports.push(Arc::new(port));
    }
    if let Some(config) = &config.memcached {
        ports.push(Arc::new(memcached::Memcached::new(config)));
    }
    if let Some(config) = &config.realplexor {
        ports.extend(realplexor::ports(config)?);
    }
    if let Some(config) = &config.redis {
        ports.push(Arc::new(redis::Redis::new(config)));
    }
    Ok(ports)
}

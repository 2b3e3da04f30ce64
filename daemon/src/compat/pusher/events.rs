//! `POST /apps/ID/events` and `/batch_events`: the application publishes.

use comet_proto::{Attributes, ChannelNames, EventName};
use serde::Deserialize;

use super::{api::ApiError, app::App, channel::PusherChannel, frames::EXCLUDED};
use crate::{
    api,
    broker::{Receipt, SourceKind},
    http::site::Site,
    hub::NewMessage,
};

/// The most events of one batch.
const MAX_BATCH: usize = 10;

/// What an application publishes.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    name: String,
    /// Text, which is passed on unchanged.
    data: String,
    channels: Option<Vec<String>>,
    channel: Option<String>,
    /// The page that must not get the event.
    socket_id: Option<String>,
    /// What the application wants to know about the channels.
    pub(crate) info: Option<String>,
}

/// An event that may be published.
pub(crate) struct CheckedEvent {
    channels: ChannelNames,
    name: EventName,
    data: String,
    attributes: Option<Box<Attributes>>,
}

/// Reads the body of `/events`.
pub(crate) fn parse_event(body: &[u8]) -> Result<Event, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad(format!("body: {error}")))
}

/// Reads the body of `/batch_events`.
pub(crate) fn parse_batch(body: &[u8]) -> Result<Vec<Event>, ApiError> {
    #[derive(Deserialize)]
    struct Batch {
        batch: Vec<Event>,
    }
    let Batch { batch } =
        serde_json::from_slice(body).map_err(|error| ApiError::bad(format!("body: {error}")))?;
    match batch.len() {
        1..=MAX_BATCH => Ok(batch),
        count => Err(ApiError::bad(format!(
            "a batch of {count} events is not allowed: 1 to {MAX_BATCH}"
        ))),
    }
}

impl Event {
    /// The channels, as the application names them.
    pub(crate) fn channel_names(&self) -> Vec<&str> {
        let names = self.channels.iter().flatten().chain(&self.channel);
        names.map(String::as_str).collect()
    }

    /// Checks the event and the right to publish it.
    pub(crate) fn check(
        &self,
        app: &App,
        site: &Site,
        max_data: usize,
    ) -> Result<CheckedEvent, ApiError> {
        let names = self.channel_names();
        if names.is_empty() {
            return Err(ApiError::bad("an event needs channel or channels"));
        }
        if self.data.len() > max_data {
            let length = self.data.len();
            return Err(ApiError::too_large(format!(
                "data of {length} bytes is over the limit of {max_data}; set max_data under [compat.pusher]"
            )));
        }
        if ["pusher:", "pusher_internal:"]
            .iter()
            .any(|prefix| self.name.starts_with(prefix))
        {
            return Err(ApiError::bad(
                "the name of an event may not begin with pusher: or pusher_internal:",
            ));
        }
        let mut channels = Vec::new();
        for name in names {
            let channel = PusherChannel::parse(app, name)
                .map_err(ApiError::bad)?
                .channel;
            let may_publish = api::rights(site).check_publish_signed(&channel);
            may_publish.map_err(|refusal| ApiError::forbidden(refusal.message()))?;
            channels.push(channel);
        }
        let excluded: Vec<_> = self.socket_id.iter().map(|id| (EXCLUDED, id)).collect();
        Ok(CheckedEvent {
            channels: ChannelNames::parse(channels.iter().map(|name| name.as_str()))
                .map_err(ApiError::bad)?,
            name: EventName::parse(&self.name).map_err(ApiError::bad)?,
            data: self.data.clone(),
            attributes: Attributes::parse(&excluded).map_err(ApiError::bad)?,
        })
    }
}

impl CheckedEvent {
    /// Publishes the event.
    pub(crate) fn publish(self, site: &Site) -> Result<Receipt, ApiError> {
        let receipt = site.broker.publish(
            SourceKind::Client,
            NewMessage {
                channels: self.channels,
                name: self.name,
                data: self.data.as_bytes().into(),
                attributes: self.attributes,
                key: None,
            },
        );
        if let Some(reason) = receipt.refusal() {
            return Err(ApiError::not_kept(reason));
        }
        site.metrics.published_http.add(1);
        Ok(receipt)
    }
}

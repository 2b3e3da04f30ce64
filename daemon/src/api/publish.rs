//! Publishes messages that clients send over HTTP.

use std::io::Write;

use bytes::Bytes;
use comet_proto::{Attributes, ChannelName, ChannelNames, EventName};
use hyper::StatusCode;

use super::parameters;
use crate::{
    access::Caller,
    broker::SourceKind,
    http::{
        answer::Answer,
        refusal::Refusal,
        route::{Content, Route},
        site::Site,
    },
    hub::{NewMessage, Publisher, PublisherKey},
};

/// A message before it is published, without its data.
pub(crate) struct Publish {
    channels: ChannelNames,
    name: EventName,
    attributes: Option<Box<Attributes>>,
    key: Option<String>,
    /// The publisher to which the key belongs.
    publisher: Publisher,
}

impl Publish {
    /// An unlabelled message without a key.
    pub(crate) fn to(channel: ChannelName) -> Self {
        Self {
            channels: channel.into(),
            name: EventName::default(),
            attributes: None,
            key: None,
            publisher: Publisher::Http(0),
        }
    }

    /// The message that a request for `/ch/NAMES` publishes. Checks the right to publish.
    fn of(caller: &Caller<'_>, names: &str) -> Result<Self, Refusal> {
        let channels = parameters::channel_names(names)?;
        let publisher = caller.may_publish(&channels)?;
        Ok(Self {
            channels,
            name: parameters::event_name(caller.query)?,
            attributes: parameters::attributes(caller.query)?,
            key: parameters::idempotency_key(caller.request)?,
            publisher,
        })
    }

    /// Publishes the message with its data. `answer` turns the message's id into the answer.
    pub(crate) fn publish(
        self,
        site: &Site,
        data: &[u8],
        answer: fn(u64) -> Answer,
    ) -> Result<Route, Refusal> {
        let key = self.key.as_deref().map(|key| PublisherKey {
            publisher: self.publisher,
            key,
        });
        let message = NewMessage {
            channels: self.channels,
            name: self.name,
            data: data.into(),
            attributes: self.attributes,
            key,
        };
        let receipt = site.broker.publish(SourceKind::Client, message);
        if let Some(reason) = receipt.refusal() {
            return Err(Refusal::not_kept(reason));
        }
        site.metrics.published_http.add(1);
        Ok(Route::Published(receipt, answer))
    }
}

/// Routes a `POST` to `/ch/NAMES`.
pub(super) fn route(
    caller: &Caller<'_>,
    content: Content<'_>,
    names: &str,
) -> Result<Route, Refusal> {
    let publish = Publish::of(caller, names)?;
    let data = match content {
        Content::Empty => &[],
        Content::Whole(data) => data,
        Content::Some | Content::Unknown | Content::Unannounced => {
            return Ok(Route::Body(Box::new(move |site, data| {
                // The daemon may have begun to stop while the body was read.
                match site.is_stopping() {
                    true => Err(Refusal::stopping()),
                    false => publish.publish(site, data, created),
                }
            })));
        }
    };
    publish.publish(caller.site, data, created)
}

fn created(id: u64) -> Answer {
    // One allocation of the right size: a String would be allocated larger, and its Bytes would need another one.
    let mut body = [0; 40];
    let mut rest = &mut body[..];
    let _ = writeln!(rest, "{{\"id\":{id}}}"); // the largest id has 20 digits
    let left = rest.len();
    let body = Bytes::copy_from_slice(&body[..body.len() - left]);
    Answer::new(StatusCode::CREATED, "application/json", body)
}

//! Publishes messages that clients send over HTTP.

use comet_proto::{Attributes, ChannelNames, EventName};
use hyper::StatusCode;

use super::parameters;
use crate::{
    access::Caller,
    broker::{Receipt, SourceKind},
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
    pub(crate) name: EventName,
    pub(crate) attributes: Option<Box<Attributes>>,
    key: Option<String>,
    /// The publisher to which the key belongs.
    publisher: Publisher,
}

impl Publish {
    /// An unlabelled message without attributes and key.
    pub(crate) fn to(channels: impl Into<ChannelNames>) -> Self {
        Self {
            channels: channels.into(),
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

    /// Publishes the message with its data. When the message is kept, `answer` turns its id into the answer.
    pub(crate) fn publish(
        self,
        site: &Site,
        data: &[u8],
        answer: impl FnOnce(u64) -> Answer + 'static,
    ) -> Result<Route, Refusal> {
        let receipt = self.send(site, data)?;
        Ok(Route::Published(receipt, Box::new(answer)))
    }

    /// Publishes the message with its data.
    pub(crate) fn send(self, site: &Site, data: &[u8]) -> Result<Receipt, Refusal> {
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
        Ok(receipt)
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
            return Ok(Route::Body(Box::new(move |site, _, data| {
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
    let mut digits = itoa::Buffer::new();
    let body = ["{\"id\":", digits.format(id), "}\n"].concat();
    Answer::new(StatusCode::CREATED, "application/json", body)
}

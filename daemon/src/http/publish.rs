//! Publishes messages that were sent by HTTP, and answers when they are kept.

use bytes::Bytes;
use comet_proto::{Attributes, ChannelName, ChannelNames, EventName};
use hyper::{Response, StatusCode, header};

use super::{answer::Refusal, site::Site};
use crate::{
    broker::{NotKept, Receipt, SourceKind},
    hub::{NewMessage, Publisher, PublisherKey},
};

/// A message that is to be published, without its data.
pub(crate) struct Publish {
    pub(crate) channels: ChannelNames,
    pub(crate) name: EventName,
    pub(crate) attributes: Option<Box<Attributes>>,
    pub(crate) key: Option<String>,
    /// The publisher that the key belongs to.
    pub(crate) publisher: Publisher,
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
}

/// Refuses to publish while the daemon stops. Subscribers may have had their last answer by then, so that the message
/// would reach nobody.
pub(crate) fn refuse_while_stopping(site: &Site) -> Result<(), Refusal> {
    if !site.drain.stop.is_cancelled() {
        return Ok(());
    }
    let message = "the daemon is stopping; publish again when it is back";
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message);
    Err(refusal.with(header::RETRY_AFTER, "1"))
}

/// Publishes the message with its data. The caller acknowledges the message when its receipt says that it is kept.
pub(crate) fn publish_data(site: &Site, publish: Publish, data: &[u8]) -> Result<Receipt, Refusal> {
    let receipt = site.broker.publish(
        SourceKind::Client,
        NewMessage {
            channels: publish.channels,
            name: publish.name,
            data: data.into(),
            attributes: publish.attributes,
            key: publish.key.as_deref().map(|key| PublisherKey {
                publisher: publish.publisher,
                key,
            }),
        },
    );
    if let Some(reason) = receipt.refusal() {
        return Err(not_kept(reason));
    }
    site.metrics.published_http.add(1);
    Ok(receipt)
}

/// Waits until the message is kept, and returns `answer`, or the refusal when the message cannot be kept.
pub(super) async fn when_kept(receipt: Receipt, answer: Response<Bytes>) -> Response<Bytes> {
    match receipt.outcome().await {
        Ok(_) => answer,
        Err(reason) => not_kept(&reason).into_answer(),
    }
}

/// The answer to the publisher of a message that is not kept.
pub(super) fn not_kept(reason: &NotKept) -> Refusal {
    Refusal::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "store",
        reason.to_string(),
    )
}

/// The body of the answer to a publish.
pub(super) fn acknowledgement(id: u64) -> String {
    format!("{{\"id\":{id}}}\n")
}

//! Publishes what came by HTTP, and answers when the message is kept.

use bytes::Bytes;
use comet_proto::{ChannelName, EventName};
use hyper::{Response, StatusCode, header};

use super::{answer::Refusal, site::Site};
use crate::{
    hub::{Hub, NewMessage, Publisher, PublisherKey},
    store::StoreError,
};

/// A message that is to be published, without its data.
pub(crate) struct Publish {
    pub(crate) channel: ChannelName,
    pub(crate) name: EventName,
    pub(crate) key: Option<String>,
    /// The publisher that the key belongs to.
    pub(crate) publisher: Publisher,
}

impl Publish {
    /// An unlabelled message without a key.
    pub(crate) fn to(channel: ChannelName) -> Self {
        Self {
            channel,
            name: EventName::default(),
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

/// Refuses to publish while the log cannot be written, where the configuration says so.
pub(crate) fn refuse_while_store_fails(hub: &Hub) -> Result<(), Refusal> {
    hub.admits().map_err(|error| {
        let message = format!("messages are refused while they cannot be kept: {error}");
        Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "store", message)
    })
}

/// Publishes the message with its data and returns its id. The caller acknowledges it only when it is
/// [kept](Hub::kept).
pub(crate) fn publish_data(site: &Site, hub: &Hub, publish: Publish, data: &[u8]) -> u64 {
    site.metrics.published_http.add(1);
    hub.publish(NewMessage {
        channel: &publish.channel,
        name: publish.name,
        data: data.into(),
        key: publish.key.as_deref().map(|key| PublisherKey {
            publisher: publish.publisher,
            key,
        }),
    })
}

/// Waits until the message with this id is kept, and returns `answer`, or the refusal when the message cannot be kept.
pub(super) async fn when_kept(hub: &Hub, id: u64, answer: Response<Bytes>) -> Response<Bytes> {
    match hub.kept(id).await {
        Ok(()) => answer,
        Err(error) => not_kept(&error).into_answer(),
    }
}

/// The answer to the publisher of a message that was published but is not kept.
pub(super) fn not_kept(error: &StoreError) -> Refusal {
    let message = format!("it may reach subscribers, but it is not kept: {error}");
    Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "store", message)
}

/// The body of the answer to a publish.
pub(super) fn receipt(id: u64) -> String {
    format!("{{\"id\":{id}}}\n")
}

//! The interface between HTTP and the content that is served over HTTP: for each request, HTTP asks [`Routes`] what to do.

use std::{any::Any, rc::Rc};

use comet_proto::ChannelName;

use super::{
    Http,
    answer::Answer,
    refusal::{ClientKind, Refusal},
    request::Request,
    site::Site,
};
use crate::{
    broker::Receipt,
    connection::{Conn, Protocol},
    hub::Hub,
    transport::{Subscription, websocket::Handshake},
};

/// Finds what is at a path, and checks the right to use it.
pub(crate) trait Routes: Any + Send + Sync {
    /// Finds what to do about a request. This function may be called several times for the same request, until the request
    /// publishes a message or gets a subscription. So it must have no other effects.
    fn route(&self, asked: &Asked<'_>) -> Result<Route, Refusal>;

    /// The kind of client that sends such a request. The request may be incomplete or malformed.
    fn client_kind(&self, request: &Request<'_>) -> ClientKind;

    /// Whether new settings end a subscription that began under the settings of `before`. `by_token`: the subscription
    /// began with a token.
    fn end(&self, before: &dyn Routes, channels: &[ChannelName], by_token: bool) -> bool;
}

/// A request, and the parts of the daemon that the answer depends on.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) content: Content<'a>,
    pub(crate) site: &'a Site,
    pub(crate) hub: &'a Hub,
}

/// What is known of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// No body, or an empty one.
    Empty,
    /// The whole body.
    Whole(&'a [u8]),
    /// There is a body, which was not read.
    Some,
    /// The body may be empty: its first bytes, or its end, are still to be read.
    Unknown,
    /// Bytes follow a head that announces no body.
    Unannounced,
}

/// What to do about a request.
pub(crate) enum Route {
    Answer(Answer),
    /// The first bytes of the body must be read before the answer: the content is [`Content::Unknown`].
    Look,
    /// The whole body must be read, within the limits. This function gets the body and says what to do then.
    Body(BodyRoute),
    /// A poll or a stream.
    Hold(Subscription),
    /// The answer 101, and another protocol on the connection from then on.
    Upgrade(Upgrade),
    /// A message was published. When the message is kept, the function turns the message's id into the answer.
    Published(Receipt, PublishedAnswer),
}

/// A request that ends HTTP on its connection.
pub(crate) struct Upgrade {
    pub(crate) handshake: Box<Handshake>,
    /// Makes the protocol that is spoken after the answer.
    pub(crate) open: OpenProtocol,
}

pub(crate) type OpenProtocol = Box<dyn FnOnce(&Rc<Http>, &Rc<Conn>) -> Box<dyn Protocol>>;

pub(crate) type BodyRoute = Box<dyn FnOnce(&Site, &Hub, &[u8]) -> Result<Route, Refusal>>;

/// A box of a function that captures nothing needs no memory.
pub(crate) type PublishedAnswer = Box<dyn FnOnce(u64) -> Answer>;

/// Waits until the message is kept, and returns the answer, or the refusal when the message cannot be kept.
pub(super) async fn when_kept(receipt: Receipt, answer: PublishedAnswer) -> Answer {
    match receipt.outcome().await {
        Ok(id) => answer(id),
        Err(reason) => Refusal::not_kept(&reason).into_answer(),
    }
}

//! The ways to publish, and the outcome of one publish.

mod files;
mod library;
mod post;
mod socket;

pub use files::Files;
pub use library::Library;
pub use post::Post;
pub use socket::Socket;

/// The outcome of a publish, as far as the publisher knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server accepted the message. Some servers return its id.
    Taken(Option<u64>),
    /// The message was sent, and its fate is unknown.
    Unknown,
    /// The server refused the message for this reason.
    Refused(String),
    /// The server could not be reached, and the message was not sent.
    Away,
}

/// Publishes one message at a time.
pub trait Publish: Send {
    /// Publishes a message. The same `key` again means the same message again.
    fn publish(&mut self, channel: &str, data: &str, key: &str) -> Outcome;

    /// Whether a message with an unknown fate may be published again with the same key and is still delivered once.
    fn has_keys(&self) -> bool;
}

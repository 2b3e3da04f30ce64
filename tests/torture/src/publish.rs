//! The ways to publish, and what each says about a message.

mod files;
mod library;
mod post;
mod socket;

pub use files::Files;
pub use library::Library;
pub use post::Post;
pub use socket::Socket;

/// What became of a message, as far as its publisher knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server took it; some servers say under which id.
    Taken(Option<u64>),
    /// It was sent, and nobody knows.
    Unknown,
    /// The server does not take it, and says why.
    Refused(String),
    /// Nobody was there: it was not sent.
    Away,
}

/// Publishes one message at a time.
pub trait Publish: Send {
    /// The same `key` again is the same message again.
    fn publish(&mut self, channel: &str, data: &str, key: &str) -> Outcome;

    /// Whether a message that nobody knows of may be published again, with its key, and is still published once.
    fn has_keys(&self) -> bool;
}

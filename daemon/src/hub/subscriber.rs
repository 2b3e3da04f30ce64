//! Subscribers of one worker thread, by channel. A subscriber is a set of channels and a cursor, never a queue:
//! when a channel has a new message, each of its subscribers is called once and reads the shared history.
//!
//! All parts belong to one thread and need no lock. A busy channel is delivered in slices, so that other channels are served in
//! between.

mod audience;
mod delivery;
mod lists;
mod marks;
mod positions;
mod shared_backlog;
mod unread;

pub use audience::Audience;
pub use delivery::{AfterDelivery, Feed, Subscriber};
pub use lists::SubscriberKey;
pub use shared_backlog::SharedBacklog;

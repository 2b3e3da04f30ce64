//! Names and formats that all parts of Comet share: [`ChannelName`], [`Cursor`], [`Attributes`], [`Message`] and the
//! lines of the Unix socket. This crate has no I/O and no clock. A value that is parsed here is never checked again.

mod attributes;
mod channel;
mod cursor;
mod event_name;
pub mod line;
mod message;
mod pace;

pub use attributes::{Attributes, AttributesError};
pub use channel::{ChannelName, ChannelNameError, ChannelNames, ChannelNamesError, MAX_CHANNELS};
pub use cursor::{Cursor, CursorError, Since};
pub use event_name::{EventName, EventNameError};
pub use message::{JsonPieces, Message};
pub use pace::Pace;

//! Names and formats that every part of Comet shares: [`ChannelName`], [`Cursor`], [`Message`] and the
//! lines of the Unix socket. No I/O, no clock; what is parsed here once is never checked again.

mod channel;
mod cursor;
mod event_name;
pub mod line;
mod message;
mod pace;

pub use channel::{ChannelName, ChannelNameError, ChannelNames, ChannelNamesError, MAX_CHANNELS};
pub use cursor::{Cursor, CursorError, Since};
pub use event_name::{EventName, EventNameError};
pub use message::{JsonPieces, Message};
pub use pace::Pace;

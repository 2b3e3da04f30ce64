//! Turns the records of the log into bytes and back (`docs/log-format.md`). This module has no I/O: `replay` reads files.

mod body;
mod fields;
mod frame;
mod kinds;
mod message;

pub(super) use frame::HEADER;
pub use frame::{NoRecord, read};
pub use kinds::Record;
pub use message::MessageRecord;

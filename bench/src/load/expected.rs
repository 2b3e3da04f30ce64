//! What each connection of the load client expects: the server, the channel and the next message.

use std::{net::SocketAddr, rc::Rc};

use crate::{dialect::Cursor, kind::Kind};

/// The server and channel that are polled.
pub(super) struct PollTarget {
    pub(super) kind: Kind,
    pub(super) addr: SocketAddr,
    pub(super) channel: String,
}

/// The message that all connections shall get, or the last one that they got.
#[derive(Default)]
pub(super) struct ExpectedMessage {
    /// Number of this message. It grows by one for each message.
    pub(super) number: u64,
    pub(super) data: String,
    /// The last checked response that carries this message.
    pub(super) checked: Option<CheckedResponse>,
}

pub(super) struct CheckedResponse {
    pub(super) bytes: Vec<u8>,
    /// The cursor before and after the checked response. The response is right only for a connection with the cursor
    /// `before`.
    pub(super) before: Option<Rc<Cursor>>,
    pub(super) after: Option<Rc<Cursor>>,
}

//! The answer 101, after which the connection speaks another protocol.

use std::rc::Rc;

use bytes::Bytes;

use super::writer::switching_protocols;
use crate::{
    connection::{Conn, Input, Protocol, Step, Then},
    hub::subscriber::Feed,
    transport::websocket::Handshake,
    worker::Due,
};

/// Writes the answer 101, and then becomes the other protocol.
pub(super) struct Switching {
    /// Empty after the answer is written.
    answer: Bytes,
    /// `None` after the change.
    protocol: Option<Box<dyn Protocol>>,
}

impl Switching {
    pub(super) fn new(handshake: &Handshake, protocol: Box<dyn Protocol>) -> Self {
        Self {
            answer: switching_protocols(handshake).into(),
            protocol: Some(protocol),
        }
    }
}

impl Protocol for Switching {
    fn input(&mut self, _: &Rc<Conn>, _: &mut Input<'_>) -> Step {
        let answer = std::mem::take(&mut self.answer);
        if !answer.is_empty() {
            return Step::Write(answer, Then::Again);
        }
        self.protocol.take().map_or(Step::Close, Step::Become)
    }

    /// The other protocol reads new messages when it begins.
    fn news(&mut self, conn: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        Step::Wait(conn.due())
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        Step::Close
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        Step::Close
    }

    fn changed(&mut self, conn: &Conn) -> Option<Due> {
        self.protocol.as_mut()?.changed(conn)
    }
}

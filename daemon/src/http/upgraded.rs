//! A WebSocket that carries one subscription to the client. The client's frames are checked and answered as the protocol
//! requires, and their content is ignored.

use std::{io::ErrorKind, rc::Rc};

use super::{
    Http,
    hold::{HeldSubscription, HoldStep},
};
use crate::{
    connection::{Conn, Input, Protocol, Step, Then},
    hub::subscriber::Feed,
    transport::websocket::{ClientFrames, Handshake},
    worker::Due,
};

/// A WebSocket with its subscription.
pub(super) struct Upgraded {
    http: Rc<Http>,
    /// `None` after the subscription has ended.
    held: Option<HeldSubscription>,
    /// `None` after the 101 is written.
    handshake: Option<Box<Handshake>>,
    frames: ClientFrames,
}

impl Upgraded {
    /// A subscription whose request asked for a WebSocket. The answer 101 must still be written.
    pub(super) fn new(http: Rc<Http>, held: HeldSubscription, handshake: Box<Handshake>) -> Self {
        Self {
            http,
            held: Some(held),
            handshake: Some(handshake),
            frames: ClientFrames::default(),
        }
    }

    fn with(&mut self, f: impl FnOnce(&mut HeldSubscription, &Http) -> HoldStep) -> Step {
        let Some(held) = &mut self.held else {
            return Step::End;
        };
        match f(held, &self.http) {
            HoldStep::Wait(due) => Step::Wait(due),
            HoldStep::Piece(piece, then) => Step::Write(piece, then),
            HoldStep::Answer(bytes, _) | HoldStep::LastAnswer(bytes, _) | HoldStep::End(bytes) => {
                self.release();
                Step::Write(bytes, Then::End)
            }
            HoldStep::Broken => Step::Close,
        }
    }

    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            held.release(&self.http);
        }
    }

    /// Reads the client's next frames. `None`: there are none.
    fn read_frames(&mut self, input: &mut Input<'_>) -> Option<Step> {
        match input.read() {
            Ok(1..) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
            Ok(0) => return Some(self.with(|held, http| held.half_closed(http))),
            Err(_) => return Some(Step::Close),
        }
        let mut answer = Vec::new();
        let goes_on = self.frames.answer(&input.take(), &mut answer);
        let then = if goes_on { Then::Again } else { Then::End };
        Some(Step::Write(answer.into(), then))
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.release();
    }
}

impl Protocol for Upgraded {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        if let Some(handshake) = self.handshake.take() {
            if !input.bytes().is_empty() {
                return Step::End; // the client may not send frames before our 101
            }
            return self.with(|held, http| {
                HoldStep::Piece(held.open(http, Some(&handshake)), Then::Again)
            });
        }
        if let Some(step) = self.read_frames(input) {
            return step;
        }
        self.with(|held, http| held.go_on(http, conn))
    }

    fn news(&mut self, conn: &Rc<Conn>, feed: &mut Feed<'_>) -> Step {
        self.with(|held, http| held.news(http, conn, feed))
    }

    fn time(&mut self, conn: &Rc<Conn>) -> Step {
        self.with(|held, http| held.time(http, conn))
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        self.with(|held, http| HoldStep::End(held.farewell(http)))
    }

    fn changed(&mut self, conn: &Conn) -> Option<Due> {
        self.held.as_mut()?.changed(&self.http, conn)
    }
}

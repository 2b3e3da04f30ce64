//! One connection of the load client: its last request, what it has received, and the check of each response.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    rc::Rc,
};

use anyhow::{Result, bail};

use super::expected::{CheckedResponse, ExpectedMessage, PollTarget};
use crate::{
    answer::Answer,
    dialect::{self, Cursor, PolledMessage, Received},
    message::{Fault, Stamp, judge},
};

pub(super) const CLOSED: &str = "a connection was closed";

pub(super) struct PollConnection {
    stream: TcpStream,
    /// A request is under way.
    pub(super) waiting: bool,
    pub(super) closed: bool,
    /// Number of the last expected message that arrived.
    pub(super) number: u64,
    /// Number of the last message of this series, as the message itself states it.
    seen: u64,
    /// The cursor, or `None` before the first response. Most connections share the same one.
    cursor: Option<Rc<Cursor>>,
    /// The beginning of a response that arrived in pieces.
    partial: Vec<u8>,
}

pub(super) enum Outcome {
    /// The expected message arrived.
    Got,
    Nothing,
    /// The poll ended without the expected message.
    Again,
    /// The server closed the connection after a response, which is allowed.
    Closed,
    Fault(Fault, String),
}

/// A fault and the text that describes it.
type FaultText = (Fault, String);

impl PollConnection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            waiting: false,
            closed: false,
            number: 0,
            seen: 0,
            cursor: None,
            partial: Vec::new(),
        }
    }

    pub(super) fn replace(&mut self, stream: TcpStream) {
        self.stream = stream;
        (self.waiting, self.closed) = (false, false);
        self.partial = Vec::new();
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn poll(&mut self, target: &PollTarget, request: &mut Vec<u8>) -> Result<()> {
        target.request(self.cursor.as_deref(), request);
        // The write is complete, because the socket's send buffer is empty.
        if (&self.stream).write(request)? < request.len() {
            bail!("a request was not taken at once");
        }
        self.waiting = true;
        Ok(())
    }

    /// Reads the bytes that have arrived and checks them.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        target: &PollTarget,
        due: &mut ExpectedMessage,
    ) -> Outcome {
        let read = match self.stream.read(buffer) {
            Ok(0) => return self.ended(CLOSED),
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Nothing,
            Err(error) => return self.ended(&error.to_string()),
        };
        if !self.waiting {
            return Outcome::Fault(Fault::Doubled, after(read));
        }
        if self.partial.is_empty() && self.same(read, due) {
            return Outcome::Got;
        }
        self.partial.extend_from_slice(read);
        let bytes = std::mem::take(&mut self.partial);
        match Answer::read(&bytes) {
            Ok(None) => {
                self.partial = bytes;
                Outcome::Nothing
            }
            Ok(Some(answer)) => self.answered(&answer, &bytes, target, due),
            Err(what) => Outcome::Fault(Fault::Failed, format!("not an answer: {what}")),
        }
    }

    fn ended(&mut self, why: &str) -> Outcome {
        self.closed = true;
        if !self.waiting {
            return Outcome::Closed;
        }
        Outcome::Fault(Fault::Failed, why.into())
    }

    /// Returns true if the bytes equal the last checked response, and if that response was right for the cursor of this
    /// connection.
    fn same(&mut self, read: &[u8], due: &ExpectedMessage) -> bool {
        let Some(checked) = &due.checked else {
            return false;
        };
        if checked.bytes != read || checked.before != self.cursor || self.number == due.number {
            return false;
        }
        self.cursor.clone_from(&checked.after);
        self.got(due);
        true
    }

    fn got(&mut self, due: &ExpectedMessage) {
        self.waiting = false;
        self.number = due.number;
        self.seen = Stamp::read(&due.data).map_or(0, |stamp| stamp.number);
    }

    fn answered(
        &mut self,
        answer: &Answer<'_>,
        bytes: &[u8],
        target: &PollTarget,
        due: &mut ExpectedMessage,
    ) -> Outcome {
        self.waiting = false;
        let received = match dialect::received(target.kind, answer) {
            Ok(received) => received,
            Err(what) => return Outcome::Fault(Fault::Failed, what),
        };
        let (got, wrong) = self.check(&received, &target.channel, due);
        let before = self.cursor.clone();
        if let Some(cursor) = received.cursor {
            self.cursor = Some(Rc::new(cursor));
        }
        if got {
            self.got(due);
        }
        let more = &bytes[answer.length..];
        let more = (!more.is_empty()).then(|| (Fault::Doubled, after(more)));
        if let Some((fault, text)) = wrong.or(more) {
            return Outcome::Fault(fault, text);
        }
        if !got {
            return Outcome::Again;
        }
        due.checked = Some(CheckedResponse {
            bytes: bytes.into(),
            before,
            after: self.cursor.clone(),
        });
        Outcome::Got
    }

    /// Returns whether the response has the expected message, and the first fault in it.
    fn check(
        &self,
        received: &Received,
        channel: &str,
        due: &ExpectedMessage,
    ) -> (bool, Option<FaultText>) {
        let mut last = match self.cursor.as_deref() {
            Some(Cursor::Id(id)) => *id,
            _ => 0,
        };
        let (mut seen, mut wrong) = (self.number == due.number, None);
        let lacked = !seen;
        for message in &received.messages {
            match self.judge(message, channel, due, (seen, &mut last)) {
                Ok(right) => seen |= right,
                Err(what) => wrong = wrong.or(Some(what)),
            }
        }
        match &received.cursor {
            Some(Cursor::Id(cursor)) if *cursor < last => {
                let text = format!("the cursor {cursor} would read {last} again");
                wrong = wrong.or(Some((Fault::Doubled, text)));
            }
            _ => {}
        }
        (lacked && seen, wrong)
    }

    /// Returns true if this is the expected message and its number is above `seen`.
    fn judge(
        &self,
        message: &PolledMessage,
        channel: &str,
        due: &ExpectedMessage,
        (seen, last): (bool, &mut u64),
    ) -> Result<bool, FaultText> {
        if let Some(other) = message.channel.as_ref().filter(|&name| name != channel) {
            return Err((Fault::Foreign, format!("a message of {other:?}")));
        }
        if let Some(id) = message.id {
            if id <= *last {
                return Err((Fault::Reordered, format!("{id} after {last}")));
            }
            *last = id;
        }
        let verdict = match judge(&message.data, &due.data, self.seen) {
            Ok(true) if seen => Err(Fault::Doubled),
            verdict => verdict,
        };
        verdict.map_err(|fault| {
            let text = format!("{:?} where {:?} was due", message.data, due.data);
            (fault, text)
        })
    }
}

fn after(bytes: &[u8]) -> String {
    format!("{:?} after the answer", String::from_utf8_lossy(bytes))
}

//! One connection of the load client: what it asked, what it has seen, and whether what comes is right.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    rc::Rc,
};

use anyhow::{Result, bail};

use super::{Checked, Due, Target};
use crate::{
    answer::Answer,
    dialect::{self, Cursor, Message, Received},
    message::{Fault, Stamp, judge},
};

pub(super) const CLOSED: &str = "a connection was closed";

pub(super) struct Connection {
    stream: TcpStream,
    /// A request is out.
    pub(super) waiting: bool,
    pub(super) closed: bool,
    /// Of the last message that was due, and came.
    pub(super) number: u64,
    /// By its own account.
    seen: u64,
    /// `None` before the first answer. Mostly the same for all.
    cursor: Option<Rc<Cursor>>,
    /// The start of an answer that came in pieces.
    partial: Vec<u8>,
}

pub(super) enum Outcome {
    /// What was due.
    Got,
    Nothing,
    /// The poll has ended without it.
    Again,
    /// After an answer, which a server may do.
    Closed,
    Fault(Fault, String),
}

/// What, and how it was seen.
type Wrong = (Fault, String);

impl Connection {
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

    pub(super) fn poll(&mut self, target: &Target, request: &mut Vec<u8>) -> Result<()> {
        target.request(self.cursor.as_deref(), request);
        // It fits: the socket's buffer is empty.
        if (&self.stream).write(request)? < request.len() {
            bail!("a request was not taken at once");
        }
        self.waiting = true;
        Ok(())
    }

    /// Reads what is there.
    pub(super) fn receive(&mut self, buffer: &mut [u8], target: &Target, due: &mut Due) -> Outcome {
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

    /// True: it is the answer that was checked last, and was right for one that had seen as much as this.
    fn same(&mut self, read: &[u8], due: &Due) -> bool {
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

    fn got(&mut self, due: &Due) {
        self.waiting = false;
        self.number = due.number;
        self.seen = Stamp::read(&due.data).map_or(0, |stamp| stamp.number);
    }

    fn answered(
        &mut self,
        answer: &Answer<'_>,
        bytes: &[u8],
        target: &Target,
        due: &mut Due,
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
        due.checked = Some(Checked {
            bytes: bytes.into(),
            before,
            after: self.cursor.clone(),
        });
        Outcome::Got
    }

    /// Whether what was due is in it, and what else is.
    fn check(&self, received: &Received, channel: &str, due: &Due) -> (bool, Option<Wrong>) {
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

    /// True: it is the one that was due, and has not been `seen` yet.
    fn judge(
        &self,
        message: &Message,
        channel: &str,
        due: &Due,
        (seen, last): (bool, &mut u64),
    ) -> Result<bool, Wrong> {
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

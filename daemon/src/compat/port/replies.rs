//! Replies to a client's commands, in order. The reply to a publish is written when its message is kept.

use std::{borrow::Cow, mem};

use crate::{
    broker::{NotKept, Receipt},
    connection::{Step, Then},
};

/// The replies to the commands of one read.
pub(crate) struct Replies {
    pub(crate) out: Vec<u8>,
    pending: Vec<PendingReply>,
    /// Writes an error of the protocol.
    write_error: fn(&str, &mut Vec<u8>),
}

/// The reply to a publish that may not be kept yet.
struct PendingReply {
    /// The position of the reply in the output.
    place: usize,
    receipt: Receipt,
    /// The reply, if the message is kept.
    kept: Cow<'static, [u8]>,
}

impl Replies {
    pub(crate) fn new(write_error: fn(&str, &mut Vec<u8>)) -> Self {
        Self {
            out: Vec::new(),
            pending: Vec::new(),
            write_error,
        }
    }

    pub(crate) fn error(&mut self, reason: &str) {
        (self.write_error)(reason, &mut self.out);
    }

    /// Adds the reply `kept` to a publish. If the message cannot be kept, the reply is an error instead.
    pub(crate) fn published(&mut self, receipt: Receipt, kept: impl Into<Cow<'static, [u8]>>) {
        self.pending.push(PendingReply {
            place: self.out.len(),
            receipt,
            kept: kept.into(),
        });
    }

    /// Whether so much is to be written that further commands should wait.
    pub(crate) fn is_long(&self) -> bool {
        const LONG: usize = 16 << 10;
        self.out.len() + self.pending.len() * 32 >= LONG
    }

    /// Waits until all messages are kept, and then writes all replies.
    pub(crate) fn into_step(mut self, then: Then) -> Step {
        if self.pending.is_empty() {
            return Step::Write(self.out.into(), then);
        }
        Step::Task(Box::pin(async move {
            self.settle().await;
            Step::Write(self.out.into(), then)
        }))
    }

    /// Writes each reply that is missing to its place.
    async fn settle(&mut self) {
        let others = mem::take(&mut self.out);
        let (mut copied, mut failure) = (0, None);
        for pending in self.pending.drain(..) {
            self.out.extend_from_slice(&others[copied..pending.place]);
            copied = pending.place;
            match outcome(&pending.receipt, &mut failure).await {
                Ok(()) => self.out.extend_from_slice(&pending.kept),
                Err(reason) => (self.write_error)(&reason.to_string(), &mut self.out),
            }
        }
        self.out.extend_from_slice(&others[copied..]);
    }
}

/// Waits for the outcome of a publish. One failed attempt to keep messages decides about all that were published before it.
async fn outcome(receipt: &Receipt, failure: &mut Option<NotKept>) -> Result<(), NotKept> {
    if let Some(outcome) = receipt.now() {
        return outcome.map(drop);
    }
    if let Some(reason) = failure {
        return Err(reason.clone());
    }
    let outcome = receipt.outcome().await.map(drop);
    *failure = outcome.as_ref().err().cloned();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{SourceKind, tests::Fixture},
        store::{Durability, OnError, fake::Fault},
    };

    #[tokio::test]
    async fn each_reply_is_written_to_its_place() {
        let f = Fixture::new(Durability::Process, OnError::Deliver);
        let mut replies = Replies::new(|reason, out| {
            out.extend_from_slice(&reason.as_bytes()[..6]);
            out.push(b' ');
        });
        replies.out.extend_from_slice(b"a ");
        replies.published(f.publish(SourceKind::Client, None), b"b ".as_slice());
        replies.out.extend_from_slice(b"c ");
        replies.settle().await;
        assert_eq!(replies.out, b"a b c ");
        f.disk.fail(Fault::Broken, 0, usize::MAX);
        replies.published(f.publish(SourceKind::Client, None), b"d ".as_slice());
        replies.settle().await;
        assert_eq!(replies.out, b"a b c it may ");
    }
}

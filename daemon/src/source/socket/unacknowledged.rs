//! Acknowledgements that a connection's output still lacks, because their messages may not be kept yet.

use std::mem;

use comet_proto::line::{self, ErrorCode, Reference};

use crate::broker::Receipt;

/// About the size in bytes of one acknowledgement.
const LINE: usize = 34;

/// The receipts of published messages, oldest first, each with its position in the output.
#[derive(Default)]
pub(super) struct Unacknowledged {
    receipts: Vec<Acknowledgement>,
}

struct Acknowledgement {
    /// Its position in the output.
    place: usize,
    receipt: Receipt,
    // In a box, because few requests have a reference.
    reference: Option<Box<Reference>>,
}

impl Unacknowledged {
    /// Adds the receipt of a message. Its acknowledgement belongs after the present bytes of `output`.
    pub(super) fn push(&mut self, receipt: Receipt, reference: Option<Reference>, output: &[u8]) {
        self.receipts.push(Acknowledgement {
            place: output.len(),
            receipt,
            reference: reference.map(Box::new),
        });
    }

    /// About the number of bytes that the acknowledgements will have.
    pub(super) fn bytes(&self) -> usize {
        self.receipts.len() * LINE
    }

    /// Whether there are receipts, and [`Unacknowledged::write`] needs no waiting.
    pub(super) fn can_be_written_now(&self) -> bool {
        // With `process` this question writes all messages to the log. With `disk` a new message is not synced yet.
        let last = self.receipts.last();
        last.is_some_and(|last| last.receipt.now().is_some())
    }

    /// Waits for all outcomes, and writes each acknowledgement or refusal to its place in the output.
    pub(super) async fn write(&mut self, output: &mut Vec<u8>) {
        if self.receipts.is_empty() {
            return;
        }
        let others = mem::take(output);
        output.reserve(others.len() + self.bytes());
        let (mut copied, mut failure) = (0, None);
        for Acknowledgement {
            place,
            receipt,
            reference,
        } in self.receipts.drain(..)
        {
            output.extend_from_slice(&others[copied..place]);
            copied = place;
            let start = output.len();
            let outcome = match (receipt.now(), &failure) {
                (Some(outcome), _) => outcome,
                // One attempt to keep messages decides about all that were published before it.
                (None, Some(reason)) => Err(Clone::clone(reason)),
                (None, None) => {
                    let outcome = receipt.outcome().await;
                    failure = outcome.as_ref().err().cloned();
                    outcome
                }
            };
            match outcome {
                Ok(id) => line::write_receipt(id, output),
                Err(reason) => line::write_error(&ErrorCode::Store, &reason.to_string(), output),
            }
            if let Some(reference) = reference {
                reference.insert(start, output);
            }
        }
        output.extend_from_slice(&others[copied..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{SourceKind, tests::Fixture},
        store::{Durability, OnError, fake::Fault},
    };

    /// The lines of an output, with the ids replaced.
    fn kinds(output: &[u8]) -> Vec<&str> {
        let lines = str::from_utf8(output).unwrap().lines();
        lines
            .map(|line| match line {
                line if line.contains("\"id\"") => "kept",
                line if line.contains("\"store\"") => "not kept",
                line => line,
            })
            .collect()
    }

    async fn written(f: &Fixture, keys: &[Option<&str>]) -> (Unacknowledged, Vec<u8>) {
        let (mut unacknowledged, mut output) = (Unacknowledged::default(), Vec::new());
        for key in keys {
            output.extend_from_slice(b"other\n");
            unacknowledged.push(f.publish(SourceKind::Client, *key), None, &output);
        }
        output.extend_from_slice(b"end\n");
        unacknowledged.write(&mut output).await;
        (unacknowledged, output)
    }

    #[tokio::test]
    async fn each_outcome_is_written_to_its_place() {
        let f = Fixture::new(Durability::Process, OnError::Refuse);
        let (rest, output) = written(&f, &[None, None]).await;
        assert_eq!(kinds(&output), ["other", "kept", "other", "kept", "end"]);
        assert_eq!(rest.bytes(), 0);
        f.disk.fail(Fault::Broken, 0, usize::MAX);
        let (_, output) = written(&f, &[None, None]).await;
        let failed = ["other", "not kept", "other", "not kept", "end"];
        assert_eq!(kinds(&output), failed);
    }

    #[tokio::test]
    async fn a_repeated_message_at_the_end_does_not_hide_that_others_are_not_kept() {
        let f = Fixture::new(Durability::Process, OnError::Deliver);
        written(&f, &[Some("key")]).await;
        f.disk.fail(Fault::Broken, 0, usize::MAX);
        let (_, output) = written(&f, &[None, Some("key")]).await;
        let expected = ["other", "not kept", "other", "kept", "end"];
        assert_eq!(kinds(&output), expected);
    }

    #[tokio::test]
    async fn one_failed_attempt_decides_about_all_messages_before_it() {
        let f = Fixture::new(Durability::Disk, OnError::Deliver);
        let keeping = f.hub.start_log_threads().unwrap();
        f.disk.fail(Fault::Broken, 0, usize::MAX);
        let (_, output) = written(&f, &[None, None]).await;
        let failed = ["other", "not kept", "other", "not kept", "end"];
        assert_eq!(kinds(&output), failed);
        f.disk.heal();
        keeping.stop().unwrap();
    }
}

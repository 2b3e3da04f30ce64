//! `MULTI` and `EXEC`. Some clients send every pipeline as a transaction.

use std::borrow::Cow;

use super::{RedisClient, reply};
use crate::{compat::port::Replies, connection::memory::Hold};

/// The most commands of a transaction, and the most bytes of their words together.
const MAX_COMMANDS: usize = 1024;
const MAX_BYTES: usize = 2 << 20;

/// The commands since `MULTI`.
#[derive(Default)]
pub(super) struct Transaction {
    commands: Vec<Vec<Cow<'static, [u8]>>>,
    bytes: usize,
    memory: Hold,
    /// A command could not be added, so `EXEC` must not run the others.
    has_failed: bool,
}

impl Transaction {
    /// Adds a command. Returns false if there is no room.
    fn add(&mut self, words: &[Cow<'_, [u8]>]) -> bool {
        let bytes: usize = words.iter().map(|word| word.len()).sum();
        if self.commands.len() >= MAX_COMMANDS || self.bytes + bytes > MAX_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.memory.grow_to(self.bytes);
        let words = words.iter().map(|word| Cow::Owned(word.to_vec()));
        self.commands.push(words.collect());
        true
    }
}

impl RedisClient {
    pub(super) fn transaction_command(&mut self, name: &str, replies: &mut Replies) {
        let out = &mut replies.out;
        match (name, self.transaction.take()) {
            ("MULTI", None) => {
                self.transaction = Some(Box::default());
                reply::simple("OK", out);
            }
            ("MULTI", nested) => {
                self.transaction = nested;
                reply::error("ERR MULTI calls can not be nested", out);
            }
            ("EXEC", Some(transaction)) if transaction.has_failed => {
                reply::error(
                    "EXECABORT Transaction discarded because of previous errors.",
                    out,
                );
            }
            ("EXEC", Some(transaction)) => {
                reply::array(transaction.commands.len(), out);
                for words in transaction.commands {
                    let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
                    self.run_one(&name, &words[1..], replies);
                }
            }
            ("DISCARD", Some(_)) => reply::simple("OK", out),
            (name, None) => reply::error(&format!("ERR {name} without MULTI"), out),
            (_, Some(_)) => {}
        }
    }

    /// Keeps a command until `EXEC`.
    pub(super) fn queue(&mut self, name: &str, words: &[Cow<'_, [u8]>], replies: &mut Replies) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let refusal = match name {
            "SUBSCRIBE" | "PSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" => {
                "ERR subscribing is not allowed in a transaction"
            }
            _ if transaction.add(words) => return reply::simple("QUEUED", &mut replies.out),
            _ => "ERR the transaction is too long: at most 1024 commands and 2 MiB",
        };
        transaction.has_failed = true;
        reply::error(refusal, &mut replies.out);
    }
}

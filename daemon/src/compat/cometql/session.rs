//! The commands of a client that has shown the key.

use std::{rc::Rc, sync::Arc};

use super::{
    SharedState,
    error::SqlError,
    error_packet,
    execute::{Executor, Outcome},
    grammar::MAX_QUERY,
    login::{Login, NONCE, auth_switch, check_database},
    packet::{Received, packet},
    reply::Reply,
};
use crate::{
    compat::port::{CommandOutcome, Commands, PortClient, Replies},
    connection::Conn,
    hub::NewMessage,
};

/// Longest payload of a packet: a query, and its command's byte.
const MAX_PACKET: usize = MAX_QUERY + 1;

/// A client's commands, by their first byte.
mod command {
    pub(super) const QUIT: u8 = 0x01;
    pub(super) const INIT_DB: u8 = 0x02;
    pub(super) const QUERY: u8 = 0x03;
    pub(super) const FIELD_LIST: u8 = 0x04;
    pub(super) const PING: u8 = 0x0e;
    pub(super) const CHANGE_USER: u8 = 0x11;
    pub(super) const STMT_PREPARE: u8 = 0x16;
    pub(super) const STMT_CLOSE: u8 = 0x19;
    pub(super) const RESET_CONNECTION: u8 = 0x1f;
}

/// A client that has logged in.
pub(super) struct Session {
    client: PortClient,
    shared: Arc<SharedState>,
    /// The number of the site, as the client has named it.
    site: String,
    nonce: [u8; NONCE],
    connection: u32,
    /// A client that logs in again, and must show the key again.
    changing: Option<Login>,
    /// The client has opened a transaction. This changes nothing but what the client sees.
    in_transaction: bool,
}

impl Session {
    pub(super) fn new(
        client: PortClient,
        shared: Arc<SharedState>,
        site: String,
        nonce: [u8; NONCE],
        connection: u32,
    ) -> Self {
        Self {
            client,
            shared,
            site,
            nonce,
            connection,
            changing: None,
            in_transaction: false,
        }
    }

    fn write(&self, replies: &mut Replies, sequence: u8, reply: &Reply) {
        let packets = reply.packets(sequence, self.in_transaction);
        replies.out.extend_from_slice(&packets);
    }

    /// Handles one packet. Returns false if the connection ends.
    fn handle(&mut self, sequence: u8, payload: &[u8], replies: &mut Replies) -> bool {
        if let Some(login) = self.changing.take() {
            return self.log_in_again(&login.with_answer(payload), sequence, replies);
        }
        let Some((&command, argument)) = payload.split_first() else {
            self.write(replies, sequence, &Reply::Error(SqlError::Command(0)));
            return true;
        };
        let reply = match command {
            command::QUIT => return false,
            command::STMT_CLOSE => return true, // MySQL sends no reply to this command
            command::QUERY => {
                self.query(sequence, argument, replies);
                return true;
            }
            command::CHANGE_USER => match Login::parse_change(argument) {
                Ok(login) => {
                    self.changing = Some(login);
                    let ask = packet(sequence.wrapping_add(1), &auth_switch(&self.nonce));
                    replies.out.extend_from_slice(&ask);
                    return true;
                }
                Err(error) => Reply::Error(error),
            },
            command::INIT_DB => check_database(argument).map(|()| Reply::OK).into(),
            command::FIELD_LIST => Reply::NoFields,
            command::PING => Reply::OK,
            command::RESET_CONNECTION => {
                self.in_transaction = false;
                Reply::OK
            }
            command::STMT_PREPARE => Reply::Error(SqlError::Prepare),
            other => Reply::Error(SqlError::Command(other)),
        };
        self.write(replies, sequence, &reply);
        true
    }

    fn log_in_again(&mut self, login: &Login, sequence: u8, replies: &mut Replies) -> bool {
        let checked = login.check(&self.shared.key, &self.nonce);
        let is_good = checked.is_ok();
        match checked {
            Ok(site) => {
                self.site = site;
                self.write(replies, sequence, &Reply::OK);
            }
            Err(error) => {
                self.write(replies, sequence, &Reply::Error(error));
                // Whoever is logged in knows the key, so there is no answer to delay.
            }
        }
        is_good
    }

    fn query(&mut self, sequence: u8, query: &[u8], replies: &mut Replies) {
        let context = &self.client.context;
        let site = context.site();
        if site.is_stopping() {
            return self.write(replies, sequence, &Reply::Error(SqlError::Shutdown));
        }
        let publish = |new: NewMessage<'_>| {
            let published = self.client.publish(true, new);
            published.map_err(|refusal| SqlError::Internal(refusal.to_string()))
        };
        let executor = Executor {
            hub: context.audience.hub(),
            broker: &*site.broker,
            publish: &publish,
            site: &self.site,
            connection: self.connection,
        };
        let Outcome {
            reply,
            receipt,
            transaction,
        } = executor.execute(query);
        self.in_transaction = transaction.unwrap_or(self.in_transaction);
        let packets = reply.packets(sequence, self.in_transaction);
        match receipt {
            Some(receipt) => replies.published(receipt, packets),
            None => replies.out.extend_from_slice(&packets),
        }
    }
}

impl Commands for Session {
    fn run(&mut self, _: &Rc<Conn>, bytes: &[u8], replies: &mut Replies) -> CommandOutcome {
        match Received::parse(bytes, MAX_PACKET) {
            Received::Incomplete => CommandOutcome::Incomplete,
            Received::TooLong { sequence, length } => {
                self.write(replies, sequence, &Reply::Error(SqlError::TooLong("Data")));
                length.map_or(CommandOutcome::End, CommandOutcome::Done)
            }
            Received::Packet {
                sequence,
                payload,
                length,
            } => match self.handle(sequence, payload, replies) {
                true => CommandOutcome::Done(length),
                false => CommandOutcome::End,
            },
        }
    }

    /// Used for the reply to a command that could not be kept. Clients number the packet of a command with 0.
    fn write_error(reason: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&error_packet(0, SqlError::Internal(reason.to_owned())));
    }

    fn client(&self) -> &PortClient {
        &self.client
    }

    fn needs_key(&self) -> bool {
        self.changing.is_some()
    }
}

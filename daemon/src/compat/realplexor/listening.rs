//! A client on the WAIT line that listens to ids, until it gets blocks.

use std::{collections::BTreeMap, io::ErrorKind, rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use comet_proto::ChannelName;

use super::{
    Realplexor, block,
    decimal::{self, Decimal},
    identifier::Item,
    selection::{Reply, Selection},
};
use crate::{
    compat::port::PortClient,
    connection::{Conn, Input, Protocol, Step, Then, due_in, memory},
    hub::{Backlog, READ_BYTES, Reader, subscriber::Feed},
    transport::{Channels, Form},
    worker::Due,
};

/// None of the ids that a client has asked for may be read.
pub(super) struct NothingReadable;

/// A client that waits for blocks. It uses little memory, because there are many.
pub(super) struct Listening {
    client: PortClient,
    shared: Arc<Realplexor>,
    /// The ids in the order of their names.
    reader: Reader<Channels>,
    /// For each id the cursor after which the client listens.
    after: Box<[Decimal]>,
    /// No cursor of the client is later than the messages so far. So the client gets every later message, unless its
    /// publisher has chosen a cursor or limits.
    is_plain: bool,
    is_local: bool,
    /// Whether the head of the reply was written.
    has_begun: bool,
}

impl Listening {
    /// A client that begins to listen with its first call as a protocol.
    pub(super) fn new(
        client: PortClient,
        shared: &Arc<Realplexor>,
        is_local: bool,
        items: &[Item<'_>],
    ) -> Result<Self, NothingReadable> {
        let ids = items.iter().filter_map(|item| {
            let id = ChannelName::parse(item.id).ok()?; // no publisher can use an id that is too long
            Some((id, item.cursor.and_then(Decimal::parse)))
        });
        let mut ids: BTreeMap<ChannelName, Option<Decimal>> = ids.collect();
        ids.retain(|id, _| may_read(&client, is_local, id));
        if ids.is_empty() {
            return Err(NothingReadable);
        }
        let (mut names, after): (Vec<_>, Vec<_>) = ids.into_iter().unzip();
        let audience = &client.context.audience;
        audience.share_names(&mut names);
        let reader = Reader::new(audience.hub(), names.into(), None).postponing_gaps(true);
        let now = Decimal::Micros(reader.cursor().0);
        let after: Box<[_]> = after
            .into_iter()
            .map(|cursor| cursor.unwrap_or_else(|| now.clone()))
            .collect();
        memory::add_channels(reader.channels());
        client.context.site().metrics.subscribers.add(1);
        shared.online.enter(reader.channels(), Instant::now());
        Ok(Self {
            shared: shared.clone(),
            is_plain: after.iter().all(|after| *after <= now),
            client,
            reader,
            after,
            is_local,
            has_begun: false,
        })
    }

    fn selection(&self) -> Selection<'_> {
        Selection {
            ids: self.reader.channels(),
            after: &self.after,
        }
    }

    /// Sends what the client has not seen, or lets the client wait.
    fn begin(&mut self, conn: &Rc<Conn>) -> Step {
        self.has_begun = true;
        let mut reply = head(self.reader.cursor().0);
        let audience = self.client.context.audience.clone();
        let mut blocks = self.selection().reply_from(audience.hub());
        // What was published after the cursor of the reader is read by the loop, so that nothing is missed in between.
        while blocks.is_none() {
            match self.reader.join(&audience, conn, READ_BYTES) {
                None => {
                    let due = due_in(conn, self.shared.wait);
                    return Step::Write(reply.into(), Then::Wait(due));
                }
                Some(backlog) => blocks = self.select(&backlog),
            }
        }
        let count = blocks.as_ref().map_or(0, |blocks| blocks.count);
        reply.extend(blocks.map_or_else(Vec::new, |blocks| blocks.bytes));
        self.end_with(memory::keep(reply), count)
    }

    /// The blocks of a backlog that the client gets.
    fn select(&self, backlog: &Backlog) -> Option<Reply> {
        self.selection().reply(&backlog.messages)
    }

    /// Sends the blocks of a backlog, if the client gets some of them.
    fn answer(&self, conn: &Conn, backlog: &Backlog) -> Step {
        match self.select(backlog) {
            Some(Reply { bytes, count }) => self.end_with(memory::keep(bytes), count),
            None => Step::Wait(conn.due()),
        }
    }

    /// Sends the rest of the reply, with this number of blocks.
    fn end_with(&self, bytes: Bytes, count: usize) -> Step {
        let metrics = &self.client.context.site().metrics;
        metrics.delivered.add(count as u64);
        Step::Write(bytes, Then::End)
    }

    /// Whether the client may still read all its ids.
    fn may_read(&self) -> bool {
        let mut ids = self.reader.channels().iter();
        ids.all(|id| may_read(&self.client, self.is_local, id))
    }

    /// Sends the rest of what has come, and ends the reply.
    fn end(&mut self) -> Step {
        let backlog = self.reader.read_rest(self.client.context.audience.hub());
        match self.select(&backlog) {
            Some(Reply { bytes, count }) => self.end_with(memory::keep(bytes), count),
            None => Step::End,
        }
    }
}

impl Protocol for Listening {
    fn input(&mut self, conn: &Rc<Conn>, _: &mut Input<'_>) -> Step {
        if !self.has_begun {
            return self.begin(conn);
        }
        // Bytes that a waiting client sends stay unread. Its end is the end of the connection.
        if conn.has_unread() {
            match conn.peek(&mut [0]) {
                Ok(1..) if !conn.has_ended() => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Step::Close,
            }
        }
        // Messages that came while the head was written have not been delivered.
        let hub = self.client.context.audience.hub().clone();
        match self.reader.read(&hub, READ_BYTES) {
            Some(backlog) => self.answer(conn, &backlog),
            None => Step::Wait(conn.due()),
        }
    }

    fn news(&mut self, conn: &Rc<Conn>, feed: &mut Feed<'_>) -> Step {
        let Some(shared) = self.reader.read_shared(feed) else {
            return Step::Wait(conn.due());
        };
        let backlog = shared.backlog();
        let is_special = |backlog: &Backlog| {
            let mut messages = backlog.messages.iter();
            messages.any(|message| block::is_special(message))
        };
        match self.is_plain && !is_special(backlog) {
            true => {
                let reply = shared.form(Form::Realplexor as u32, plain_reply);
                self.end_with(reply, backlog.messages.len())
            }
            false => self.answer(conn, backlog),
        }
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        match self.may_read() {
            true => self.end(),
            false => Step::End,
        }
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        self.end()
    }

    fn changed(&mut self, _: &Conn) -> Option<Due> {
        (!self.may_read()).then_some(Due::NOW)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let context = &self.client.context;
        context.site().metrics.subscribers.sub(1);
        memory::sub_channels(self.reader.channels());
        self.reader.leave(&context.audience);
        self.shared
            .online
            .leave(self.reader.channels(), Instant::now());
    }
}

/// On an address that other machines can reach, ids are read only if a rule of their channel allows this.
fn may_read(client: &PortClient, is_local: bool, id: &ChannelName) -> bool {
    match is_local {
        true => client.may_read(false, id),
        false => client.context.rights().has_public_rule(id),
    }
}

/// The blocks for every client that gets all messages of the backlog.
fn plain_reply(backlog: &Backlog) -> Bytes {
    let messages = backlog.messages.iter();
    let blocks = messages.map(|message| (&**message, message.visible(&backlog.readable)));
    let mut reply = Vec::new();
    block::write_all(blocks, &mut reply);
    memory::keep(reply)
}

/// The head of the reply to a waiting client, and the first line of the body. The cursor stands for everything so far. A
/// loader uses it for ids without a cursor, so that nothing is lost between two requests.
fn head(cursor: u64) -> Vec<u8> {
    let cursor = decimal::seconds(cursor);
    format!(
        "HTTP/1.1 200 OK\r\n\
         Connection: close\r\n\
         Cache-Control: no-store, no-cache, must-revalidate\r\n\
         Expires: Mon, 26 Jul 1997 05:00:00 GMT\r\n\
         Content-Type: text/javascript; charset=utf-8\r\n\
         X-Realplexor-Cursor: {cursor}\r\n\r\n \r\n"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cursors are in a block of their own, 16 bytes for each id.
    #[test]
    fn a_waiting_client_is_small() {
        assert!(size_of::<Listening>() <= 128, "{}", size_of::<Listening>());
        assert_eq!(size_of::<Decimal>(), 16);
    }
}

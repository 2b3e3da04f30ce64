//! The WAIT line: clients that wait for blocks of their ids.

use std::{
    collections::BTreeMap, io::ErrorKind, net::SocketAddr, rc::Rc, sync::Arc, time::Instant,
};

use bytes::Bytes;
use comet_proto::ChannelName;

use super::{
    NO_MEMORY, REQUEST_TIME, Realplexor, block,
    decimal::{self, Decimal},
    identifier::Item,
    pages,
    request::Request,
    request_buffer::{NoMemory, RequestBuffer},
    selection::{Reply, Selection},
    wait_request::WaitRequest,
};
use crate::{
    access::hosts,
    compat::port::{Port, PortClient, PortContext, PortDoor},
    config::PortLimits,
    connection::{Conn, Input, Protocol, Step, Then, due_in, memory},
    hub::{Backlog, READ_BYTES, Reader, subscriber::Feed},
    transport::{Channels, Form},
    worker::{Door, Due},
};

const NAME: &str = "realplexor_wait";

/// The port of waiting clients.
pub(crate) struct WaitPort {
    pub(crate) listen: SocketAddr,
    pub(crate) shared: Arc<Realplexor>,
}

impl Port for WaitPort {
    fn name(&self) -> &'static str {
        NAME
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn door(&self, context: &Rc<PortContext>) -> Box<dyn Door<Conn>> {
        let limits = PortLimits {
            max_connections: usize::MAX, // the limits of all browsers count
            idle: REQUEST_TIME,
        };
        let (shared, is_local) = (
            self.shared.clone(),
            self.listen.ip().to_canonical().is_loopback(),
        );
        let refusal = |reason: &str| refusal(BUSY, reason).to_vec();
        Box::new(PortDoor::new(
            NAME,
            context,
            limits,
            refusal,
            move |client| {
                Box::new(Asking {
                    client: Some(client),
                    shared: shared.clone(),
                    is_local,
                    request: RequestBuffer::default(),
                })
            },
        ))
    }
}

/// A client that sends its request.
struct Asking {
    /// `None` after the client has begun to listen.
    client: Option<PortClient>,
    shared: Arc<Realplexor>,
    /// Whether only this machine can reach the port.
    is_local: bool,
    request: RequestBuffer,
}

impl Protocol for Asking {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        loop {
            if let Some(step) = self.serve() {
                return step;
            }
            match self.request.read(conn, input) {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(NoMemory) => return refuse(BUSY, NO_MEMORY),
            }
        }
    }

    fn news(&mut self, conn: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        Step::Wait(conn.due()) // the client has not subscribed
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        Step::Close
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        Step::End
    }
}

impl Asking {
    /// Serves the request, if it is complete.
    fn serve(&mut self) -> Option<Step> {
        let request = match WaitRequest::read(&self.request.bytes, self.request.has_ended) {
            Ok(request) => request?,
            Err(error) => return Some(refuse(BAD, &error.to_string())),
        };
        let client = self.client.take()?;
        if let Err(step) = check_host(&Request::new(&self.request.bytes), &client) {
            return Some(step);
        }
        Some(match request {
            WaitRequest::Iframe => {
                let page = pages::loader(&Request::new(&self.request.bytes));
                Step::Write(page, Then::End)
            }
            WaitRequest::Script => Step::Write(pages::script(), Then::End),
            WaitRequest::Listen(items) => {
                let listening = Listening::new(client, &self.shared, self.is_local, &items);
                listening.map_or_else(|step| step, |listening| Step::Become(Box::new(listening)))
            }
        })
    }
}

/// Checks that an HTTP request names this server, as `access/hosts` explains.
fn check_host(request: &Request<'_>, client: &PortClient) -> Result<(), Step> {
    let host = request.values("host").next().filter(|_| request.is_http());
    let Some(host) = host.map(String::from_utf8_lossy) else {
        return Ok(());
    };
    match hosts::is_ours(&host, &client.context.site().config.hosts) {
        true => Ok(()),
        false => {
            let text = "this server has another name; hosts under [http] lists its names";
            Err(refuse("421 Misdirected Request", text))
        }
    }
}

/// A client that waits for blocks. It uses little memory, because there are many.
struct Listening {
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
    fn new(
        client: PortClient,
        shared: &Arc<Realplexor>,
        is_local: bool,
        items: &[Item<'_>],
    ) -> Result<Self, Step> {
        let ids = items.iter().filter_map(|item| {
            let id = ChannelName::parse(item.id).ok()?; // no publisher can use an id that is too long
            Some((id, item.cursor.and_then(Decimal::parse)))
        });
        let mut ids: BTreeMap<ChannelName, Option<Decimal>> = ids.collect();
        ids.retain(|id, _| may_read(&client, is_local, id));
        if ids.is_empty() {
            let text = "none of these ids may be read here; read under [[channel]] decides this";
            return Err(refuse("403 Forbidden", text));
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

const BAD: &str = "400 Bad Request";
const BUSY: &str = "503 Service Unavailable";

fn refuse(status: &str, text: &str) -> Step {
    Step::Write(refusal(status, text).into(), Then::End)
}

fn refusal(status: &str, text: &str) -> Vec<u8> {
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
    )
    .into()
}

//! The IN line: publishers, who send one block or one command on each connection.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use comet_proto::ChannelNames;

use super::{
    NO_MEMORY, REQUEST_TIME, Realplexor, block,
    command::{self, Command},
    identifier::{Item, Login},
    json,
    publish_request::{Action, PublishRequest},
    request_buffer::{NoMemory, RequestBuffer},
};
use crate::{
    broker::{NotKept, Receipt},
    compat::port::{Port, PortClient, PortContext, PortDoor, PublishRefusal},
    config::PortLimits,
    connection::{Conn, Input, Protocol, Step, Then},
    hub::{NewMessage, subscriber::Feed},
    worker::Door,
};

const NAME: &str = "realplexor_in";

/// The most connections at a time. A publisher connects for a moment only.
const MAX_CONNECTIONS: usize = 1024;

/// The port of publishers.
pub(crate) struct InPort {
    pub(crate) listen: SocketAddr,
    pub(crate) shared: Arc<Realplexor>,
}

impl Port for InPort {
    fn name(&self) -> &'static str {
        NAME
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn door(&self, context: &Rc<PortContext>) -> Box<dyn Door<Conn>> {
        let limits = PortLimits {
            max_connections: MAX_CONNECTIONS,
            idle: REQUEST_TIME,
        };
        let shared = self.shared.clone();
        let refusal = |reason: &str| response(BUSY, reason).to_vec();
        Box::new(PortDoor::new(
            NAME,
            context,
            limits,
            refusal,
            move |client| {
                Box::new(Publisher {
                    client,
                    shared: shared.clone(),
                    request: RequestBuffer::default(),
                })
            },
        ))
    }
}

/// A connected publisher.
struct Publisher {
    client: PortClient,
    shared: Arc<Realplexor>,
    request: RequestBuffer,
}

/// What the publisher is told. Without HTTP, success is told by closing the connection.
struct Outcome {
    status: &'static str,
    text: String,
}

const OK: &str = "200 OK";
const BAD: &str = "400 Bad Request";
/// Spelled as in the original server, because scripts may search for this text.
const DENIED: &str = "403 Access Deined";
const TIMEOUT: &str = "408 Request Timeout";
const BUSY: &str = "503 Service Unavailable";

impl Protocol for Publisher {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        loop {
            match PublishRequest::read(&self.request.bytes, self.request.has_ended) {
                Ok(Some(request)) => return self.serve(&request),
                Ok(None) => {}
                Err(error) => return Outcome::error(BAD, error).into_step(true),
            }
            match self.request.read(conn, input) {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(NoMemory) => return Outcome::error(BUSY, NO_MEMORY).into_step(true),
            }
        }
    }

    fn news(&mut self, conn: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        Step::Wait(conn.due()) // a publisher has not subscribed
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        let text = format!(
            "the request was not complete after {} s",
            REQUEST_TIME.as_secs()
        );
        Outcome::error(TIMEOUT, text).into_step(true)
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        Outcome::error(BUSY, PublishRefusal::Stopping).into_step(true)
    }
}

impl Publisher {
    fn serve(&self, request: &PublishRequest<'_>) -> Step {
        let logins = &self.shared.logins;
        match (logins.check_known(request.login), request.login) {
            (Some(Ok(())), _) => self.act(request),
            (Some(Err(refusal)), _) => Outcome::error(DENIED, refusal).into_step(true),
            (None, None) => Step::Close, // a publisher without a login is always known
            (None, Some(Login { name, password })) => {
                let (logins, name) = (logins.clone(), name.to_owned());
                let password = password.to_vec();
                Step::Task(Box::pin(async move {
                    match logins.check(name, password).await {
                        Ok(()) => Step::Write(Bytes::new(), Then::Again), // now the login is known
                        Err(refusal) => Outcome::error(DENIED, refusal).into_step(true),
                    }
                }))
            }
        }
    }

    fn act(&self, request: &PublishRequest<'_>) -> Step {
        let login = request.login.map(|login| login.name);
        match &request.action {
            Action::Nothing => Step::End,
            Action::Command(command) => match self.run(login, command) {
                Some(text) => Outcome { status: OK, text }.into_step(true),
                None => Step::End,
            },
            Action::Publish { items, body } => match self.publish(login, items, body) {
                Ok(Some(receipt)) => self.acknowledge(receipt, request.is_http),
                Ok(None) => Outcome::ok().into_step(request.is_http),
                Err(outcome) => outcome.into_step(true),
            },
        }
    }

    /// The answer to a command. `None`: the publisher may not use the command.
    fn run(&self, login: Option<&str>, command: &Command<'_>) -> Option<String> {
        let (online, now) = (&self.shared.online, Instant::now());
        Some(match command {
            Command::Online(prefixes) => online.list(&command::shown(login, prefixes.clone()), now),
            Command::Watch { cursor, prefixes } => {
                online.events(cursor, &command::shown(login, prefixes.clone()), now)
            }
            Command::Stats if login.is_some() => return None,
            Command::Stats => {
                let (ids, connections, events) = online.sizes(now);
                let hub = self.client.context.audience.hub().status();
                format!(
                    "[wait]\nids {ids}\nconnections {connections}\nevents {events}\n\n[history]\nchannels {}\nmessages {}\nbytes {}\n",
                    hub.channels, hub.messages, hub.bytes
                )
            }
        })
    }

    /// Publishes a block. `None`: none of its ids belongs to the publisher.
    fn publish(
        &self,
        login: Option<&str>,
        items: &[Item<'_>],
        body: &[u8],
    ) -> Result<Option<Receipt>, Outcome> {
        let data = json::check(body).map_err(|error| {
            let text = format!("the body is not one JSON value, as json_encode makes it: {error}");
            Outcome::error(BAD, text)
        })?;
        let is_own = |id| login.is_none_or(|login| command::is_own(login, id));
        let items = items.iter().filter(|item| item.is_limit || is_own(item.id));
        let items: Vec<Item<'_>> = items.copied().collect();
        let targets = items.iter().filter(|item| !item.is_limit);
        let mut targets = targets.map(|item| item.id).peekable();
        if targets.peek().is_none() {
            return Ok(None);
        }
        let bad =
            |error: &dyn std::fmt::Display| Outcome::error(BAD, format!("identifier: {error}"));
        let message = NewMessage {
            channels: ChannelNames::parse(targets).map_err(|error| bad(&error))?,
            name: Default::default(),
            data: data.as_bytes().into(),
            attributes: block::attributes(&items).map_err(|error| bad(&error))?,
            key: None,
        };
        // A login is the key of this port.
        let published = self.client.publish(login.is_some(), message);
        published
            .map(Some)
            .map_err(|refusal| Outcome::refused(&refusal))
    }

    /// Answers when the message is kept.
    fn acknowledge(&self, receipt: Receipt, is_http: bool) -> Step {
        let site = self.client.context.site();
        if site.broker.acknowledges_at_once()
            && let Some(outcome) = receipt.now()
        {
            return Outcome::of(outcome).into_step(is_http);
        }
        Step::Task(Box::pin(async move {
            let outcome = receipt.outcome().await;
            Outcome::of(outcome).into_step(is_http)
        }))
    }
}

impl Outcome {
    fn ok() -> Self {
        let (status, text) = (OK, String::new());
        Self { status, text }
    }

    fn error(status: &'static str, error: impl ToString) -> Self {
        let text = error.to_string() + "\n";
        Self { status, text }
    }

    fn of(outcome: Result<u64, NotKept>) -> Self {
        match outcome {
            Ok(_) => Self::ok(),
            Err(error) => Self::error(BUSY, error),
        }
    }

    fn refused(refusal: &PublishRefusal) -> Self {
        let status = match refusal {
            PublishRefusal::Closed(_) => DENIED,
            PublishRefusal::Stopping | PublishRefusal::NotKept(_) => BUSY,
        };
        Self::error(status, refusal)
    }

    /// `is_told`: the publisher gets an answer also in case of success.
    fn into_step(self, is_told: bool) -> Step {
        match self.status == OK && !is_told {
            true => Step::End,
            false => Step::Write(response(self.status, &self.text), Then::End),
        }
    }
}

/// An answer, as the original server writes it.
fn response(status: &str, text: &str) -> Bytes {
    let length = text.len();
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    );
    (head + text).into()
}

//! The WAIT line: clients that wait for blocks of their ids.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use super::{
    NO_MEMORY, REQUEST_TIME, Realplexor,
    listening::{Listening, NothingReadable},
    pages,
    request::Request,
    request_buffer::{NoMemory, RequestBuffer},
    wait_request::WaitRequest,
};
use crate::{
    access::hosts,
    compat::port::{Port, PortClient, PortContext, PortDoor},
    config::PortLimits,
    connection::{Conn, Input, Protocol, Step, Then},
    hub::subscriber::Feed,
    worker::Door,
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
                match Listening::new(client, &self.shared, self.is_local, &items) {
                    Ok(listening) => Step::Become(Box::new(listening)),
                    Err(NothingReadable) => refuse("403 Forbidden", NOTHING_READABLE),
                }
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

const NOTHING_READABLE: &str =
    "none of these ids may be read here; read under [[channel]] decides this";

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

//! Lets HTTP clients in, as many as the limits allow.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    rc::Rc,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    Http,
    h1::{
        Http1,
        refusing::{Refused, Refusing},
    },
    site::Site,
};
use crate::{
    connection::{Conn, Worker, memory},
    log_limit::LogLimit,
    worker::{Address, Door, OPEN},
};

/// Connections of one thread that are over a limit, but whose requests are read, so that each gets an answer that its
/// client understands. Further connections get an answer that depends on the bytes that have arrived already.
const MOST_REFUSED: usize = 32;

/// How long a client may take to send the head of a request that will be refused.
const REFUSE_TIME: Duration = Duration::from_secs(2);

/// The door of one thread, with its warnings about limits.
pub(super) struct HttpDoor {
    http: Rc<Http>,
    /// The limit that was logged last. Clients can reach a limit and leave it again at will, so the number of log lines
    /// is limited.
    warned: Cell<Warned>,
    lines: RefCell<LogLimit>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Warned {
    #[default]
    Nothing,
    Limit,
    Memory,
}

impl Door<Conn> for HttpDoor {
    fn open(&self, mut stream: TcpStream, peer: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        let site = self.http.site();
        let refused = match self.room(&site).and_then(|()| enter(&site, peer)) {
            Ok(peer) => {
                return worker.add(stream, peer, |stream, place| {
                    let protocol = Box::new(Http1::new(self.http.clone()));
                    let due = worker.timers.after(site.config.idle);
                    Conn::new(worker, stream, place, true, protocol, due)
                });
            }
            Err(refused) => refused,
        };
        if self.http.refused.get() < MOST_REFUSED {
            return worker.add(stream, None, |stream, place| {
                let protocol = Box::new(Refusing::new(self.http.clone(), refused));
                let due = worker.timers.after(REFUSE_TIME);
                Conn::new(worker, stream, place, false, protocol, due)
            });
        }
        // The answer depends on what has arrived of the request. Do not wait for more; then close.
        let mut input = [0; 2048];
        let read = stream.read(&mut input).unwrap_or(0);
        let refusal = refused.refusal(&site).asked_by(&site, &input[..read]);
        let _ = stream.write(&refusal.into_bytes(&site.origins));
        Ok(())
    }
}

impl HttpDoor {
    pub(super) fn new(http: Rc<Http>) -> Self {
        let (warned, lines) = Default::default();
        Self {
            http,
            warned,
            lines,
        }
    }

    /// Whether there is room for one more.
    fn room(&self, site: &Site) -> Result<(), Refused> {
        let (open, max) = (site.metrics.http_connections.get(), site.max_connections);
        let (taken, bytes) = (memory::taken(&site.metrics), site.ceiling.bytes());
        let (what, refused) = if open >= max {
            (Warned::Limit, Refused::Connections)
        } else if taken >= site.ceiling.near() {
            (Warned::Memory, Refused::Memory)
        } else {
            // Warn again only when there was room for a while, not each time that a connection replaces another.
            if open < max - max / 10 && taken < bytes - bytes / 5 {
                self.warned.set(Warned::Nothing);
            }
            return Ok(());
        };
        site.metrics.http_refused.add(1);
        if self.is_news(what) {
            match what {
                Warned::Memory => warn!(
                    "connections take {taken} of the {bytes} bytes that http.max_memory lets them; others are refused with 503"
                ),
                _ => warn!(
                    "{max} connections are open, which is the limit; others are refused with 503"
                ),
            }
        }
        Err(refused)
    }

    fn is_news(&self, what: Warned) -> bool {
        let is_new = self.warned.replace(what) != what;
        is_new && self.lines.borrow_mut().is_due(Instant::now())
    }
}

/// Counts the connection for its client's address, if connections are counted by address.
fn enter(site: &Site, peer: IpAddr) -> Result<Option<Address>, Refused> {
    let (Some(max), Some(peer)) = (site.config.max_per_address, Address::of(peer)) else {
        return Ok(None);
    };
    if OPEN.enter(peer, max) {
        return Ok(Some(peer));
    }
    site.metrics.http_refused_by_address.add(1);
    Err(Refused::Address)
}

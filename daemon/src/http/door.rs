//! Accepts or refuses HTTP clients, according to the limits.

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

/// Number of refused connections of one thread whose requests are read, so that each client gets an answer that it
/// understands. Further refused connections get an answer that depends only on the bytes that have already arrived.
const MOST_REFUSED: usize = 32;

/// Time limit for the head of a request that will be refused.
const REFUSE_TIME: Duration = Duration::from_secs(2);

/// The door of one thread, with its warnings about limits.
pub(super) struct HttpDoor {
    http: Rc<Http>,
    /// The limit that was logged last. The number of log lines is limited, because clients can reach a limit again and again.
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
        // The answer depends on the part of the request that has already arrived. The connection closes after the answer.
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

    /// Whether there is room for one more connection.
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
                    "connections use {taken} of the {bytes} bytes that http.max_memory allows; new connections are refused with 503"
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

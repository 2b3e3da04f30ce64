//! The load client: many long-polls on one thread. Every response is checked.
//!
//! A waiting poll needs one descriptor and a few words of memory, and all polls share one buffer. The client has to be
//! far cheaper than the servers. So a response with exactly the bytes of the last checked response counts as right.
//! Only other responses are parsed.
//!
//! The first fault of the project's own servers ends the run. Faults of other servers are counted.

mod connect;
mod connection;
mod expected;
mod rush;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use connect::PATIENCE;
pub(crate) use connect::{StormResult, bound};
use connection::{Outcome, PollConnection};
use expected::{ExpectedMessage, PollTarget};

use crate::{
    dialect::{self, Cursor},
    kind::Kind,
    message::{Fault, Faults},
    wait::wait,
};

/// Connections to one server that all poll the same channel.
pub(crate) struct Load {
    target: PollTarget,
    epoll: Epoll,
    connections: Vec<PollConnection>,
    buffer: Box<[u8]>,
    patience: Duration,
    /// True: the first fault ends the run.
    strict: bool,
    due: ExpectedMessage,
    faults: Faults,
}

impl Load {
    /// Opens the connections, without a request.
    pub(crate) fn connect(
        kind: Kind,
        addr: SocketAddr,
        channel: &str,
        count: usize,
    ) -> Result<Self> {
        let mut load = Self::new(kind, addr, channel, count)?;
        for i in 0..count {
            let stream =
                connect::blocking(addr).with_context(|| format!("connection {i} of {count}"))?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
            load.epoll.add(stream.as_fd(), event)?;
            load.connections.push(PollConnection::new(stream));
        }
        Ok(load)
    }

    fn new(kind: Kind, addr: SocketAddr, channel: &str, count: usize) -> Result<Self> {
        Ok(Self {
            target: PollTarget {
                kind,
                addr,
                channel: channel.into(),
            },
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::with_capacity(count),
            buffer: vec![0; 64 << 10].into(),
            patience: PATIENCE,
            strict: kind.is_ours(),
            due: ExpectedMessage::default(),
            faults: Faults::default(),
        })
    }

    /// Sends a poll on every connection that has no request under way. Each poll uses the connection's own cursor.
    pub(crate) fn poll(&mut self) -> Result<()> {
        self.quiet()?;
        let mut request = Vec::new();
        for (i, connection) in self.connections.iter_mut().enumerate() {
            if !connection.waiting {
                connection.poll(&self.target, &mut request)?;
            }
            self.target.pace(i);
        }
        Ok(())
    }

    /// Waits until every connection has got the message with this data and no other message. Returns the time at which
    /// the last byte of the last response was read.
    pub(crate) fn collect(&mut self, data: &str) -> Result<Instant> {
        self.due = ExpectedMessage {
            number: self.due.number + 1,
            data: data.into(),
            checked: None,
        };
        let mut missing = self.connections.len();
        let mut last = Instant::now();
        let mut events = vec![EpollEvent::empty(); 1024];
        while missing > 0 {
            let patience = EpollTimeout::try_from(self.patience).unwrap_or(EpollTimeout::MAX);
            let ready = wait(&self.epoll, &mut events, patience)?;
            for event in &events[..ready] {
                if self.handle(event.data() as usize)? {
                    missing -= 1;
                    last = Instant::now();
                }
            }
            if ready == 0 || last.elapsed() > self.patience {
                let text = format!(
                    "{missing} of {} did not get {data:?}",
                    self.connections.len()
                );
                self.fault(Fault::Lost, missing as u64, &text)?;
                break;
            }
        }
        Ok(last)
    }

    /// Checks that nothing more arrives, because everything was read.
    pub(crate) fn quiet(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        // Bounds the loop: a server that refuses every poll must not keep it busy for ever.
        let mut left = self.connections.len() + events.len();
        loop {
            let ready = wait(&self.epoll, &mut events, EpollTimeout::ZERO)?;
            if ready == 0 || left < ready {
                return Ok(());
            }
            left -= ready;
            for event in &events[..ready] {
                self.handle(event.data() as usize)?;
            }
        }
    }

    /// Repeats polls that ended with the server's time-out, until `stop` becomes readable or is closed.
    pub(crate) fn hold(&mut self, stop: BorrowedFd<'_>) -> Result<()> {
        const STOP: u64 = u64::MAX;
        self.epoll
            .add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let mut events = vec![EpollEvent::empty(); 1024];
        loop {
            let ready = wait(&self.epoll, &mut events, EpollTimeout::NONE)?;
            for event in &events[..ready] {
                if event.data() == STOP {
                    return Ok(());
                }
                self.handle(event.data() as usize)?;
            }
        }
    }

    /// The faults counted so far. There are never any of the project's own servers.
    pub(crate) fn faults(&self) -> Faults {
        self.faults
    }

    /// Reads from one connection. Returns true if the connection got the expected message.
    fn handle(&mut self, i: usize) -> Result<bool> {
        let connection = &mut self.connections[i];
        let before = connection.number;
        match connection.receive(&mut self.buffer, &self.target, &mut self.due) {
            Outcome::Got => return Ok(true),
            Outcome::Nothing => {}
            Outcome::Again => connection.poll(&self.target, &mut Vec::new())?,
            Outcome::Closed => self.reconnect(i, connection::CLOSED)?,
            Outcome::Fault(fault, text) => self.recover(i, fault, &text)?,
        }
        Ok(self.connections[i].number > before)
    }

    /// Counts a fault and continues on this connection as a client would.
    fn recover(&mut self, i: usize, fault: Fault, text: &str) -> Result<()> {
        self.fault(fault, 1, text)?;
        let connection = &mut self.connections[i];
        if connection.closed {
            return self.reconnect(i, text);
        }
        let lacks = connection.number < self.due.number;
        if lacks && !connection.waiting {
            connection.poll(&self.target, &mut Vec::new())?;
        }
        Ok(())
    }

    /// Reconnects, for servers that sometimes close a connection. Polls again if the connection still lacks its
    /// message.
    fn reconnect(&mut self, i: usize, text: &str) -> Result<()> {
        if self.strict {
            bail!("{text}");
        }
        let stream = connect::blocking(self.target.addr)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
        self.epoll.add(stream.as_fd(), event)?;
        let connection = &mut self.connections[i];
        connection.replace(stream);
        if connection.number < self.due.number {
            connection.poll(&self.target, &mut Vec::new())?;
        }
        Ok(())
    }

    fn fault(&mut self, fault: Fault, times: u64, text: &str) -> Result<()> {
        if self.strict {
            bail!("{fault}: {text}");
        }
        self.faults.count(fault, times);
        Ok(())
    }
}

impl PollTarget {
    fn request(&self, cursor: Option<&Cursor>, request: &mut Vec<u8>) {
        request.clear();
        dialect::poll(self.kind, self.addr, &self.channel, cursor, request);
    }

    /// Slows down polls to Pushpin. Pushpin asks its origin about each poll, which takes 2 ms of CPU, and refuses some
    /// of many simultaneous polls.
    fn pace(&self, i: usize) {
        if self.kind == Kind::Pushpin && i % 25 == 24 {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

//! The load client for streams: many of them on one thread, every message checked. It must cost far less than any
//! server: one read takes what has come, in a buffer that all share, and nothing is allocated for a message.

mod chunked;
mod connection;
mod event;
mod message;
mod order;
mod pump;
mod reader;
mod sse;
mod target;
#[cfg(test)]
mod tests;
mod websocket;

pub(crate) use order::Tally;
pub(crate) use pump::{Pump, Steady};
pub(crate) use target::{Target, Transport};

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use connection::{Connection, Run};
use order::Order;

/// No message in so long, and what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Streams of one channel of one server.
pub(crate) struct Streams {
    target: Target,
    epoll: Epoll,
    connections: Vec<Connection>,
    buffer: Box<[u8]>,
    run: Run,
    patience: Duration,
}

/// Clients that never read. They stay connected until they are dropped.
pub(crate) struct Stuck {
    _connections: Vec<Connection>,
}

impl Streams {
    /// Returns when all have got their heads. Nothing is expected then.
    pub(crate) fn open(target: &Target, count: usize) -> Result<Self> {
        Self::connect(target, count, None)
    }

    /// With the least room for what they do not read.
    pub(crate) fn stuck(target: &Target, count: usize) -> Result<Stuck> {
        let streams = Self::connect(target, count, Some(1))?;
        Ok(Stuck {
            _connections: streams.connections,
        })
    }

    fn connect(target: &Target, count: usize, room: Option<usize>) -> Result<Self> {
        let mut streams = Self {
            target: target.clone(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::with_capacity(count),
            buffer: vec![0; 128 << 10].into(),
            run: Run::new(0, 0, 0),
            patience: PATIENCE,
        };
        let request = target.request();
        let mut heads = 0;
        while heads < count {
            if streams.connections.len() < count.min(heads + target.at_once) {
                streams.add(&request, room)?;
            } else if streams.turn(PATIENCE)? == 0 {
                bail!(
                    "{} of {count} streams did not begin",
                    streams.connections.len() - heads
                );
            }
            let begun = |connection: &&Connection| connection.reader.has_head();
            heads += streams.connections[heads..]
                .iter()
                .take_while(begun)
                .count();
        }
        let nothing = streams.run.tally.check();
        nothing.context("before anything was published")?;
        Ok(streams)
    }

    fn add(&mut self, request: &str, room: Option<usize>) -> Result<()> {
        let number = self.connections.len();
        let connection = Connection::ask(&self.target, request, room)
            .with_context(|| format!("stream {number}"))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(&connection.stream, event)?;
        self.connections.push(connection);
        Ok(())
    }

    /// From here on each connection has to get `messages` of a new run, and nothing else. Returns its number.
    pub(crate) fn expect(&mut self, messages: u32) -> u32 {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let mut open = 0;
        for connection in &mut self.connections {
            connection.order = Order::default();
            open += usize::from(connection.open);
        }
        let latency = self.run.latency.take();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.run = Run::new(number, messages, if messages > 0 { open } else { 0 });
        self.run.latency = latency;
        number
    }

    /// From here on the time that each delivery takes is noted.
    pub(crate) fn note_latency(&mut self) -> Result<()> {
        // A microsecond to a minute, to a thousandth.
        self.run.latency = Some(Histogram::new_with_bounds(1000, 60_000_000_000, 3)?);
        Ok(())
    }

    /// What was noted, in nanoseconds; from here on nothing is.
    pub(crate) fn latency(&mut self) -> Option<Histogram<u64>> {
        self.run.latency.take()
    }

    /// Reads until every connection has what is expected, or no message comes any more.
    pub(crate) fn collect(&mut self) -> Result<Tally> {
        self.run.tally.last = Instant::now();
        while self.run.missing > 0 {
            let patience = self.patience.saturating_sub(self.run.tally.last.elapsed());
            if patience.is_zero() || self.turn(patience)? == 0 {
                break;
            }
        }
        // What nobody waits for any more, and is there already.
        while self.turn(Duration::ZERO)? > 0 {}
        let mut tally = self.run.tally;
        let lost = |connection: &Connection| connection.order.lost(self.run.messages);
        tally.faults.lost = self.connections.iter().map(lost).sum();
        Ok(tally)
    }

    /// Has another thread publish a run of so many messages, of which it is told the number, and reads them here.
    pub(crate) fn receive<T: Send>(
        &mut self,
        messages: u32,
        publish: impl FnOnce(u32) -> Result<T> + Send,
    ) -> Result<(Tally, T)> {
        let run = self.expect(messages);
        thread::scope(|scope| {
            let publisher = scope.spawn(move || publish(run));
            let tally = self.collect();
            let published = publisher.join().ok();
            let published = published.context("the publishing thread panicked")?;
            Ok((tally?, published.context("publishing")?))
        })
    }

    /// Reads once from each connection on which something came. Returns on how many, after `wait` at most.
    fn turn(&mut self, wait: Duration) -> Result<usize> {
        let mut events = [EpollEvent::empty(); 256];
        // Rounded up: not to turn on the spot.
        let wait = wait + Duration::from_micros(999 * u64::from(!wait.is_zero()));
        let wait = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX);
        let ready = match self.epoll.wait(&mut events, wait) {
            Err(Errno::EINTR) => 0,
            ready => ready?,
        };
        for event in &events[..ready] {
            self.read(event.data() as usize)?;
        }
        Ok(ready)
    }

    fn read(&mut self, number: usize) -> Result<()> {
        let connection = &mut self.connections[number];
        let goes_on = connection.receive(&mut self.buffer, &self.target, &mut self.run)?;
        if !goes_on {
            self.epoll.delete(&connection.stream)?;
            if !connection.reader.has_head() {
                bail!("closed instead of a stream");
            }
            connection.open = false;
            self.run.tally.faults.failed += 1;
            if !connection.order.complete(self.run.messages) {
                self.run.missing -= 1;
            }
        }
        Ok(())
    }
}

//! The load client for streams: many streams on one thread. Every message is checked.
//!
//! The client must cost far less than any server. So one read takes all that has arrived, all streams share one buffer,
//! and no memory is allocated for a message.

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

use connection::{Run, StreamConnection};
use order::Order;

/// A message that has not arrived after this time without any message counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Streams of one channel of one server.
pub(crate) struct Streams {
    target: Target,
    epoll: Epoll,
    connections: Vec<StreamConnection>,
    buffer: Box<[u8]>,
    run: Run,
    patience: Duration,
}

/// Clients that never read. They stay connected until this value is dropped.
pub(crate) struct Stuck {
    _connections: Vec<StreamConnection>,
}

impl Streams {
    /// Opens the streams. Returns when every stream has got its response head. No message is expected then.
    pub(crate) fn open(target: &Target, count: usize) -> Result<Self> {
        Self::connect(target, count, None)
    }

    /// Opens streams that never read, with the smallest receive buffer.
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
        let mut heads = 0;
        while heads < count {
            if streams.connections.len() < count.min(heads + target.at_once) {
                streams.add(room)?;
            } else if streams.turn(PATIENCE)? == 0 {
                bail!(
                    "{} of {count} streams did not begin",
                    streams.connections.len() - heads
                );
            }
            let begun = |connection: &&StreamConnection| connection.has_begun();
            heads += streams.connections[heads..]
                .iter()
                .take_while(begun)
                .count();
        }
        let nothing = streams.run.tally.check();
        nothing.context("before anything was published")?;
        Ok(streams)
    }

    fn add(&mut self, room: Option<usize>) -> Result<()> {
        let number = self.connections.len();
        let connection = StreamConnection::ask(&self.target, number, room)
            .with_context(|| format!("stream {number}"))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(&connection.stream, event)?;
        self.connections.push(connection);
        Ok(())
    }

    /// Begins a new run: from here on each connection has to get exactly `messages` messages of this run. Returns the
    /// run's number.
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

    /// Starts to record the time of each delivery.
    pub(crate) fn note_latency(&mut self) -> Result<()> {
        // From a microsecond to a minute, with a precision of a thousandth.
        self.run.latency = Some(Histogram::new_with_bounds(1000, 60_000_000_000, 3)?);
        Ok(())
    }

    /// Returns the recorded times in nanoseconds and stops recording.
    pub(crate) fn latency(&mut self) -> Option<Histogram<u64>> {
        self.run.latency.take()
    }

    /// Reads until every connection has all expected messages, or until no message arrives within the time-out.
    pub(crate) fn collect(&mut self) -> Result<Tally> {
        self.run.tally.last = Instant::now();
        while self.run.missing > 0 {
            let patience = self.patience.saturating_sub(self.run.tally.last.elapsed());
            if patience.is_zero() || self.turn(patience)? == 0 {
                break;
            }
        }
        // Reads what has arrived without being expected.
        while self.turn(Duration::ZERO)? > 0 {}
        let mut tally = self.run.tally;
        let lost = |connection: &StreamConnection| connection.order.lost(self.run.messages);
        tally.faults.lost = self.connections.iter().map(lost).sum();
        Ok(tally)
    }

    /// Lets another thread publish a run of this many messages, and reads the messages here. The thread gets the run's
    /// number.
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

    /// Waits at most `wait`, and reads once from each readable connection. Returns the number of readable connections.
    fn turn(&mut self, wait: Duration) -> Result<usize> {
        let mut events = [EpollEvent::empty(); 256];
        // Rounded up, so that a short wait does not become a busy loop.
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
            if !connection.has_begun() {
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

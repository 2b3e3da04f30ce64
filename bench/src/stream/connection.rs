//! One stream, and the run that is checked on it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use nix::sys::socket::{setsockopt, sockopt::TcpMaxSeg};

use super::{
    event::Event,
    message,
    order::{Order, Tally},
    reader::Reader,
    target::{Content, Target},
    websocket,
};
use crate::load;

pub(super) struct StreamConnection {
    pub(super) stream: TcpStream,
    pub(super) reader: Reader,
    pub(super) order: Order,
    pub(super) open: bool,
    /// What is sent when the response head has come.
    subscribe: Option<Vec<u8>>,
    /// A message must come before the stream has begun: the answer to `subscribe`.
    is_subscribing: bool,
}

/// What is expected in the current run, and what has arrived.
pub(super) struct Run {
    pub(super) number: u32,
    pub(super) messages: u32,
    pub(super) tally: Tally,
    /// Open connections that have not got all messages yet.
    pub(super) missing: usize,
    /// Nanoseconds from the publish to the read, for each delivery.
    pub(super) latency: Option<Histogram<u64>>,
}

fn connect(addr: SocketAddr, room: Option<usize>) -> Result<TcpStream> {
    /// Segment size as over Ethernet. With loopback's 64 KiB the kernel would accept megabytes from the server for each
    /// client.
    const SEGMENT: u32 = 1460;
    let socket = load::bound()?;
    if let Some(room) = room {
        // The buffer is set before the connect, because the window that is offered to the server depends on it.
        socket.set_recv_buffer_size(room)?;
        setsockopt(&socket, TcpMaxSeg, &SEGMENT)?;
    }
    socket.connect(&addr.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Run {
    pub(super) fn new(number: u32, messages: u32, missing: usize) -> Self {
        Self {
            number,
            messages,
            tally: Tally::new(),
            missing,
            latency: None,
        }
    }

    fn take(&mut self, content: &Content, order: &mut Order, now: u64) {
        match content {
            Content::Message(message) if message.run == self.number => {
                if order.take(message.seq, self.messages, &mut self.tally) {
                    self.missing -= 1;
                }
                if let Some(latency) = &mut self.latency {
                    latency.saturating_record(now.saturating_sub(message.sent));
                }
            }
            Content::Message(_) | Content::Foreign => self.tally.faults.foreign += 1,
            Content::Gap => self.tally.faults.failed += 1,
        }
    }
}

impl StreamConnection {
    /// Connects and sends the request. `room` limits the receive buffer. Without it the system's default applies.
    pub(super) fn ask(target: &Target, number: usize, room: Option<usize>) -> Result<Self> {
        let (request, subscribe) = (target.request(number), target.subscribe(number));
        let mut stream = connect(target.addr, room)?;
        // The write is complete, because the socket's send buffer is empty.
        if stream.write(request.as_bytes())? < request.len() {
            bail!("a request was not taken at once");
        }
        Ok(Self {
            stream,
            reader: Reader::default(),
            order: Order::default(),
            open: true,
            is_subscribing: subscribe.is_some(),
            subscribe,
        })
    }

    /// Whether messages will arrive from now on.
    pub(super) fn has_begun(&self) -> bool {
        self.reader.has_head() && !self.is_subscribing
    }

    /// Reads once and checks what has arrived. Returns false if the stream has ended.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        target: &Target,
        run: &mut Run,
    ) -> Result<bool> {
        let kept = self.reader.restore(buffer)?;
        let end = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Ok(false),
            Ok(read) => kept + read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let (now, before) = (message::now(), run.tally.delivered);
        let (mut pongs, mut closed) = (Vec::new(), false);
        let (order, is_subscribing) = (&mut self.order, &mut self.is_subscribing);
        let each = &mut |event: Event<'_>| match event {
            Event::Message(data) if *is_subscribing && target.is_subscribed(data) => {
                *is_subscribing = false;
            }
            Event::Message(data) => run.take(&target.read(data), order, now),
            Event::Gap => run.take(&Content::Gap, order, now),
            Event::Ping(payload) => websocket::pong(payload, &mut pongs),
            Event::Close => closed = true,
        };
        let goes_on = self
            .reader
            .take(&mut buffer[..end], kept, target.transport, each)?;
        if run.tally.delivered > before {
            run.tally.last = Instant::now();
        }
        if self.reader.has_head()
            && let Some(subscribe) = self.subscribe.take()
        {
            self.stream.write_all(&subscribe)?;
        }
        if !pongs.is_empty() {
            self.stream.write_all(&pongs)?;
        }
        Ok(goes_on && !closed)
    }
}

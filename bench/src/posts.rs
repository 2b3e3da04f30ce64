//! Publishes over HTTP as fast as a server accepts it. Each connection is kept open and waits for the reply before it
//! publishes again.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    ops::Range,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{
    answer::Answer,
    dialect,
    kind::Kind,
    message::{Fault, Faults, Series},
    server::Server,
    wait::wait,
};

/// Time-out for a reply in milliseconds. After it the run ends.
const PATIENCE: u16 = 10_000;

pub(crate) struct Posts<'a> {
    server: &'a Server,
    epoll: Epoll,
    connections: Vec<PostConnection>,
    /// Prepared requests, one for each channel, sent in turns. Only the number in a request changes, so that the client
    /// costs less than a server.
    requests: Vec<Vec<u8>>,
    /// Position of the number in each request.
    numbers: Vec<Range<usize>>,
    sent: usize,
    /// The ids that Comet returned.
    ids: Vec<u64>,
    pub(crate) faults: Faults,
}

struct PostConnection {
    stream: TcpStream,
    partial: Vec<u8>,
}

impl<'a> Posts<'a> {
    /// Opens this many connections, to publish messages of `length` bytes to this many channels.
    pub(crate) fn connect(
        server: &'a Server,
        connections: usize,
        channels: usize,
        length: usize,
    ) -> Result<Self> {
        let (requests, numbers) = (0..channels)
            .map(|i| request(server, &format!("posts.{i}"), length))
            .collect::<Option<_>>()
            .context("a request has its message")?;
        let mut posts = Self {
            server,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::new(),
            requests,
            numbers,
            sent: 0,
            ids: Vec::new(),
            faults: Faults::default(),
        };
        for i in 0..connections {
            let stream = posts.stream(i)?;
            let partial = Vec::new();
            posts.connections.push(PostConnection { stream, partial });
        }
        Ok(posts)
    }

    fn stream(&self, i: usize) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.server.publish_addr())?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
        self.epoll.add(stream.as_fd(), event)?;
        Ok(stream)
    }

    /// Publishes `count` messages. Returns the time until the last one was confirmed.
    pub(crate) fn publish(&mut self, count: usize) -> Result<Duration> {
        let mut buffer = vec![0; 16 << 10];
        let mut events = vec![EpollEvent::empty(); self.connections.len()];
        self.ids.reserve(count);
        let start = Instant::now();
        let (first, mut confirmed) = (self.sent, 0);
        for i in 0..self.connections.len().min(count) {
            self.send(i)?;
        }
        while confirmed < count {
            let ready = wait(&self.epoll, &mut events, EpollTimeout::from(PATIENCE))?;
            if ready == 0 {
                bail!("{} publishes got no reply", self.sent - first - confirmed);
            }
            for event in &events[..ready] {
                let i = event.data() as usize;
                if self.confirmed(i, &mut buffer)? {
                    confirmed += 1;
                    if self.sent - first < count {
                        self.send(i)?;
                    }
                }
            }
        }
        let took = start.elapsed();
        self.are_different()?;
        Ok(took)
    }

    fn are_different(&mut self) -> Result<()> {
        self.ids.sort_unstable();
        match self.ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => bail!("the id {} was given twice", pair[0]),
            None => Ok(()),
        }
    }

    fn send(&mut self, i: usize) -> Result<()> {
        let channel = self.sent % self.requests.len();
        let request = &mut self.requests[channel];
        self.sent += 1;
        let mut left = self.sent;
        for digit in request[self.numbers[channel].clone()].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        // The write is complete, because the socket's send buffer is empty.
        if (&self.connections[i].stream).write(request)? < request.len() {
            bail!("a publish was not taken at once");
        }
        Ok(())
    }

    /// Reads and checks a reply. Returns true if the reply is complete.
    fn confirmed(&mut self, i: usize, buffer: &mut [u8]) -> Result<bool> {
        let connection = &mut self.connections[i];
        let read = match connection.stream.read(buffer) {
            Ok(0) => bail!("a connection was closed instead of a reply"),
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let joined;
        let bytes = match connection.partial.is_empty() {
            true => read,
            false => {
                connection.partial.extend_from_slice(read);
                joined = std::mem::take(&mut connection.partial);
                &joined
            }
        };
        let Some(answer) = Answer::read(bytes).map_err(anyhow::Error::msg)? else {
            connection.partial = bytes.into();
            return Ok(false);
        };
        if answer.length < bytes.len() {
            bail!("two replies to one publish");
        }
        let closes = answer.field("connection");
        let closes = closes.is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.check(&answer)?;
        if closes {
            self.connections[i].stream = self.stream(i)?;
        }
        Ok(true)
    }

    fn check(&mut self, answer: &Answer<'_>) -> Result<()> {
        let said = || String::from_utf8_lossy(answer.body).into_owned();
        if !matches!(self.server.kind, Kind::Comet | Kind::Floor) {
            if !(200..300).contains(&answer.status) {
                self.faults.count(Fault::Failed, 1);
            }
            return Ok(());
        }
        if answer.status != 201 {
            bail!("not published: {} {}", answer.status, said());
        }
        let id = dialect::published(answer.body);
        let id = id.with_context(|| format!("no id in {:?}", said()))?;
        self.ids.push(id);
        Ok(())
    }
}

/// Prepares a publish. Returns the request and the position of the digits of its number.
fn request(server: &Server, channel: &str, length: usize) -> Option<(Vec<u8>, Range<usize>)> {
    const NUMBER: &str = "000000000000";
    let data = Series::new(channel).numbered(NUMBER, length);
    let mut request = Vec::new();
    let addr = server.publish_addr();
    dialect::post(server.kind, addr, channel, &data, &mut request);
    let mut windows = request.windows(NUMBER.len());
    let at = windows.position(|window| window == NUMBER.as_bytes())?;
    Some((request, at..at + NUMBER.len()))
}

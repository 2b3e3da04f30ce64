//! The simplest possible server, as a lower bound: one thread, one epoll instance and a fixed response. It parses only
//! what it needs, keeps only the last message, and has no limits. The difference between this server and Comet is the
//! cost of Comet's own work.
//!
//! It accepts what the load client sends: polls and publishes over TCP, publishes over a Unix socket, and touches in a
//! directory.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use anyhow::{Context, Result};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    inotify::{AddWatchFlags, InitFlags, Inotify},
};
use socket2::{Domain, Socket, Type};

const STOP: u64 = 0;
const HTTP: u64 = 1;
const SOCKET: u64 = 2;
const FILES: u64 = 3;
use crate::wait::wait;

/// Tokens of connections in epoll. Polls begin at 4, and publishers begin far above them.
const CLIENTS: u64 = 4;
const PUBLISHERS: u64 = 1 << 32;

/// Faults that a test makes the server commit. The load client must notice each of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    #[cfg(test)]
    Lose,
    #[cfg(test)]
    Double,
    #[cfg(test)]
    Reorder,
    #[cfg(test)]
    Foreign,
    /// Sends a message of another run.
    #[cfg(test)]
    Other,
    /// Sends the previous response again.
    #[cfg(test)]
    Stale,
    /// Sends the same message a second time, later.
    #[cfg(test)]
    Again,
    #[cfg(test)]
    Refuse,
    #[cfg(test)]
    Close,
}

/// Serves until standard input ends.
pub(crate) fn main(dir: &Path, socket: &Path) -> Result<()> {
    let http = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let ready = format!("floor: listening on http://{},", http.local_addr()?);
    let floor = Floor::new(http, UnixListener::bind(socket)?, Some(dir), Flaw::None)?;
    println!("{ready}");
    floor.run(std::io::stdin().as_fd())
}

/// Opens a listener whose backlog has room for all clients at once.
pub(crate) fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

pub(crate) struct Floor {
    epoll: Epoll,
    http: TcpListener,
    socket: UnixListener,
    files: Option<Inotify>,
    /// The clients by number. A number is never used twice.
    clients: Vec<Option<TcpStream>>,
    publishers: Vec<Option<FloorPublisher>>,
    /// Waiting polls of each channel.
    parked: HashMap<Box<str>, Vec<usize>>,
    last_id: u64,
    flaw: Flaw,
    /// Index of the waiting poll that gets the flaw.
    pub(crate) victim: usize,
    #[cfg(test)]
    stale: Option<Vec<u8>>,
}

struct FloorPublisher {
    stream: UnixStream,
    /// The beginning of a line that is not complete yet.
    partial: Vec<u8>,
}

impl Floor {
    pub(crate) fn new(
        http: TcpListener,
        socket: UnixListener,
        dir: Option<&Path>,
        flaw: Flaw,
    ) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        http.set_nonblocking(true)?;
        epoll.add(&http, EpollEvent::new(EpollFlags::EPOLLIN, HTTP))?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        let files = match dir {
            Some(dir) => {
                let files = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
                files.add_watch(dir, AddWatchFlags::IN_ATTRIB)?;
                epoll.add(&files, EpollEvent::new(EpollFlags::EPOLLIN, FILES))?;
                Some(files)
            }
            None => None,
        };
        Ok(Self {
            epoll,
            http,
            socket,
            files,
            clients: Vec::new(),
            publishers: Vec::new(),
            parked: HashMap::new(),
            last_id: 1,
            flaw,
            victim: 0,
            #[cfg(test)]
            stale: None,
        })
    }

    /// Serves until `stop` becomes readable or is closed.
    pub(crate) fn run(mut self, stop: BorrowedFd<'_>) -> Result<()> {
        self.epoll
            .add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let mut events = vec![EpollEvent::empty(); 1024];
        let mut buffer = vec![0; 64 << 10];
        loop {
            let ready = wait(&self.epoll, &mut events, EpollTimeout::NONE)?;
            for event in &events[..ready] {
                match event.data() {
                    STOP => return Ok(()),
                    HTTP => self.accept_client()?,
                    SOCKET => self.accept_publisher()?,
                    FILES => self.touched()?,
                    number if number < PUBLISHERS => {
                        self.request((number - CLIENTS) as usize, &mut buffer)
                    }
                    number => self.lines((number - PUBLISHERS) as usize, &mut buffer)?,
                }
            }
        }
    }

    fn accept_client(&mut self) -> Result<()> {
        loop {
            match self.http.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let number = CLIENTS + self.clients.len() as u64;
                    self.epoll
                        .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
                    self.clients.push(Some(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn accept_publisher(&mut self) -> Result<()> {
        let (stream, _) = self.socket.accept()?;
        let number = PUBLISHERS + self.publishers.len() as u64;
        self.epoll
            .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
        let partial = Vec::new();
        self.publishers
            .push(Some(FloorPublisher { stream, partial }));
        Ok(())
    }

    /// Parks a poll, or publishes. Each request arrives complete, because the client sends it with one write.
    fn request(&mut self, number: usize, buffer: &mut [u8]) {
        let Some(mut stream) = self.clients[number].as_ref() else {
            return;
        };
        let read = stream.read(buffer).unwrap_or(0);
        if let Some((channel, data)) = post(&buffer[..read]) {
            let id = self.publish(channel, data);
            return self.write(number, &published(id));
        }
        let path = buffer[..read].strip_prefix(b"GET /ch/");
        let name = path.and_then(|path| path.split(|&byte| byte == b'?').next());
        match name.and_then(|name| str::from_utf8(name).ok()) {
            None => self.clients[number] = None,
            Some(name) => match self.parked.get_mut(name) {
                Some(parked) => parked.push(number),
                None => {
                    self.parked.insert(name.into(), vec![number]);
                }
            },
        }
    }

    /// Publishes each complete line, and sends all replies with one write.
    fn lines(&mut self, number: usize, buffer: &mut [u8]) -> Result<()> {
        let Some(mut publisher) = self.publishers[number].take() else {
            return Ok(());
        };
        let read = publisher.stream.read(buffer).unwrap_or(0);
        if read == 0 {
            return Ok(());
        }
        publisher.partial.extend_from_slice(&buffer[..read]);
        let end = publisher
            .partial
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |last| last + 1);
        let mut replies = Vec::new();
        for line in str::from_utf8(&publisher.partial[..end])?.lines() {
            let field = |name| line.split_once(name)?.1.split('"').next();
            let (channel, data) = (field("\"channel\":\""), field("\"data\":\""));
            let id = self.publish(channel.context("channel")?, data.context("data")?);
            writeln!(replies, "{{\"ok\":true,\"id\":{id}}}")?;
        }
        publisher.partial.drain(..end);
        publisher.stream.write_all(&replies)?;
        self.publishers[number] = Some(publisher);
        Ok(())
    }

    fn touched(&mut self) -> Result<()> {
        let events = self.files.as_ref().map(Inotify::read_events).transpose()?;
        for event in events.unwrap_or_default() {
            let name = event.name.as_ref().and_then(|name| name.to_str());
            if let Some(channel) = name.and_then(|name| name.strip_suffix(".comet")) {
                self.publish(channel, "");
            }
        }
        Ok(())
    }

    /// Writes the response to every waiting poll of the channel.
    fn publish(&mut self, channel: &str, data: &str) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let Some(parked) = self.parked.get_mut(channel) else {
            return id;
        };
        let waiting = std::mem::take(parked);
        let good = answer(id, &message(channel, id, data));
        let bad = match self.flaw {
            Flaw::None => None::<Vec<u8>>,
            #[cfg(test)]
            flaw => self.flawed(flaw, channel, id, data),
        };
        for (i, &number) in waiting.iter().enumerate() {
            // One poll gets the flaw. The others get the right response.
            let bytes = bad.as_ref().filter(|_| i == self.victim);
            self.write(number, bytes.unwrap_or(&good));
        }
        #[cfg(test)]
        self.afterwards(waiting.get(self.victim).copied(), good);
        id
    }

    #[cfg(test)]
    fn flawed(&self, flaw: Flaw, channel: &str, id: u64, data: &str) -> Option<Vec<u8>> {
        let message = |id| message(channel, id, data);
        let good = answer(id, &message(id));
        match flaw {
            Flaw::Lose => Some(Vec::new()),
            Flaw::Double => Some([&good[..], &good[..]].concat()),
            Flaw::Reorder => Some(answer(id, &(message(id) + "," + &message(id - 1)))),
            Flaw::Foreign => Some(answer(id, &message(id).replace(channel, "another"))),
            Flaw::Other => Some(answer(id, &message(id).replace(data, "1.1.news"))),
            Flaw::Stale => self.stale.clone(),
            Flaw::Refuse => Some(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".into()),
            Flaw::None | Flaw::Again | Flaw::Close => None,
        }
    }

    #[cfg(test)]
    fn afterwards(&mut self, victim: Option<usize>, good: Vec<u8>) {
        match (self.flaw, victim) {
            (Flaw::Again, Some(victim)) => self.write(victim, &good),
            (Flaw::Close, Some(victim)) => self.clients[victim] = None,
            _ => {}
        }
        self.stale = Some(good);
    }

    fn write(&self, number: usize, bytes: &[u8]) {
        // The client may have left already. A client that leaves now is removed when epoll reports its socket.
        if let Some(mut stream) = self.clients[number].as_ref() {
            let _ = stream.write(bytes);
        }
    }
}

/// Splits a publish into its channel and its data.
fn post(request: &[u8]) -> Option<(&str, &str)> {
    let request = str::from_utf8(request).ok()?.strip_prefix("POST /ch/")?;
    let (channel, rest) = request.split_once(' ')?;
    Some((channel, rest.split_once("\r\n\r\n")?.1))
}

fn published(id: u64) -> Vec<u8> {
    let body = format!("{{\"id\":{id}}}");
    format!(
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nCache-Control: no-store, no-transform\r\n\
         X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn message(channel: &str, id: u64, data: &str) -> String {
    format!("{{\"channel\":\"{channel}\",\"id\":{id},\"name\":\"\",\"data\":\"{data}\"}}")
}

/// Writes a response with the usual headers, so that this server and Comet write the same number of bytes.
fn answer(cursor: u64, messages: &str) -> Vec<u8> {
    let body = format!("{{\"cursor\":\"{cursor}\",\"gap\":false,\"messages\":[{messages}]}}");
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store, no-transform\r\n\
         X-Accel-Buffering: no\r\nETag: \"{cursor}\"\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

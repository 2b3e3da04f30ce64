//! The load client: many long-polls on one thread, each answer checked. What waits costs a descriptor and a few
//! words; all share one buffer.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use crate::answer::{self, Answer};

/// No answer in so long, and it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections from one source address: well below the ports that one has, of which some may still be in TIME_WAIT.
const PER_SOURCE: usize = 8000;

/// What a browser sends beside the request line and the host, as far as it matters here: its size.
const HEADERS: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: application/json, text/plain;q=0.9, */*;q=0.8\r\nAccept-Language: en-GB,en;q=0.8,de;q=0.5,fr;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.org/dashboard/orders/open\r\n\
    Cookie: session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=necessary\r\nDNT: 1\r\n\
    Connection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n\
    Priority: u=4\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n";

/// Connections to one server, which poll one channel.
pub(crate) struct Load {
    addr: SocketAddr,
    channel: String,
    epoll: Epoll,
    connections: Vec<Connection>,
    buffer: Box<[u8]>,
    patience: Duration,
}

struct Connection {
    stream: TcpStream,
    /// A request is out.
    waiting: bool,
    /// `None` before the first answer.
    cursor: Option<u64>,
    /// The start of an answer that came in pieces.
    partial: Vec<u8>,
}

impl Load {
    /// Connects, and asks nothing yet.
    pub(crate) fn connect(addr: SocketAddr, channel: &str, count: usize) -> Result<Self> {
        let mut load = Self {
            addr,
            channel: channel.into(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::with_capacity(count),
            buffer: vec![0; 64 << 10].into(),
            patience: PATIENCE,
        };
        for i in 0..count {
            let stream = connect(addr).with_context(|| format!("connection {i} of {count}"))?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
            load.epoll.add(stream.as_fd(), event)?;
            load.connections.push(Connection {
                stream,
                waiting: false,
                cursor: None,
                partial: Vec::new(),
            });
        }
        Ok(load)
    }

    /// A poll on every connection, each from the cursor it has.
    pub(crate) fn poll(&mut self) -> Result<()> {
        self.quiet()?;
        let mut request = String::new();
        for connection in &mut self.connections {
            request.clear();
            request += &format!("GET /ch/{}?wait=60", self.channel);
            if let Some(cursor) = connection.cursor {
                request += &format!("&since={cursor}");
            }
            request += &format!(" HTTP/1.1\r\nHost: {}\r\n{HEADERS}\r\n", self.addr);
            // It fits: the socket's buffer is empty.
            let sent = (&connection.stream).write(request.as_bytes())?;
            if sent < request.len() {
                bail!("a request was not taken at once");
            }
            connection.waiting = true;
        }
        Ok(())
    }

    /// Waits until every connection has got the message with this data and no other. Returns when the last byte of
    /// the last answer was read.
    pub(crate) fn collect(&mut self, data: &str) -> Result<Instant> {
        let mut missing = self.connections.len();
        let mut last = Instant::now();
        let mut events = vec![EpollEvent::empty(); 1024];
        while missing > 0 {
            let patience = EpollTimeout::try_from(self.patience).unwrap_or(EpollTimeout::MAX);
            let ready = self.epoll.wait(&mut events, patience)?;
            if ready == 0 {
                bail!(
                    "lost: {missing} of {} did not get {data:?}",
                    self.connections.len()
                );
            }
            for event in &events[..ready] {
                let connection = &mut self.connections[event.data() as usize];
                if connection.receive(&mut self.buffer, &self.channel, data)? {
                    missing -= 1;
                    last = Instant::now();
                }
            }
        }
        Ok(last)
    }

    /// Nothing may come: all was read.
    pub(crate) fn quiet(&self) -> Result<()> {
        let mut events = [EpollEvent::empty()];
        match self.epoll.wait(&mut events, EpollTimeout::ZERO)? {
            0 => Ok(()),
            _ => Err(anyhow!("a connection got more than was due, or was closed")),
        }
    }
}

impl Connection {
    /// Reads what is there. True: the answer is complete, and right.
    fn receive(&mut self, buffer: &mut [u8], channel: &str, data: &str) -> Result<bool> {
        let read = match self.stream.read(buffer) {
            Ok(0) => bail!("lost: a connection was closed"),
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !self.waiting {
            bail!(
                "doubled: {:?} after the answer",
                String::from_utf8_lossy(read)
            );
        }
        let joined;
        let bytes = if self.partial.is_empty() {
            read
        } else {
            self.partial.extend_from_slice(read);
            joined = std::mem::take(&mut self.partial);
            &joined
        };
        match answer::complete(bytes).map_err(|what| anyhow!("not an answer: {what}"))? {
            None => {
                self.partial = bytes.into();
                Ok(false)
            }
            Some((head, length)) if head + length < bytes.len() => {
                bail!(
                    "doubled: {:?} after the answer",
                    String::from_utf8_lossy(&bytes[head + length..])
                )
            }
            Some((head, _)) => {
                self.waiting = false;
                self.check(&bytes[head..], channel, data)?;
                Ok(true)
            }
        }
    }

    fn check(&mut self, body: &[u8], channel: &str, data: &str) -> Result<()> {
        let answer: Answer<'_> = serde_json::from_slice(body)
            .with_context(|| format!("{:?}", String::from_utf8_lossy(body)))?;
        let (cursor, last) = (answer.cursor.parse().context("cursor")?, self.cursor);
        if answer.gap {
            bail!("lost: a gap");
        }
        let [message] = &answer.messages[..] else {
            bail!(
                "{} messages where {data:?} was due: {:?}",
                answer.messages.len(),
                answer.messages
            );
        };
        if message.channel != channel {
            bail!("foreign: a message of {:?}", message.channel);
        }
        if last.is_some_and(|last| message.id <= last) {
            bail!("doubled or reordered: {} after {last:?}", message.id);
        }
        if message.data != data {
            bail!(
                "lost, doubled or reordered: {:?} where {data:?} was due",
                message.data
            );
        }
        if cursor < message.id {
            bail!("the cursor {cursor} would read {} again", message.id);
        }
        self.cursor = Some(cursor);
        Ok(())
    }
}

/// Source addresses are used in turn, over the whole run.
fn connect(addr: SocketAddr) -> Result<TcpStream> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let block = COUNT.fetch_add(1, Ordering::Relaxed) / PER_SOURCE % 250;
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, block as u8 + 1), 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.connect(&addr.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::net::{UnixListener, UnixStream},
        thread,
    };

    use super::*;
    use crate::{
        floor::{self, Fault, Floor},
        server,
    };

    /// Three messages to three polls of a server with this fault; what the client says about it.
    fn run(fault: Fault) -> Result<()> {
        // What is lost never comes: no need to wait long for it.
        let patience = if fault == Fault::Lose {
            Duration::from_millis(100)
        } else {
            PATIENCE
        };
        let root = tempfile::tempdir()?;
        let http = floor::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let (addr, path) = (http.local_addr()?, root.path().join("socket"));
        let socket = UnixListener::bind(&path)?;
        let (stop, stopped) = UnixStream::pair()?;
        let floor = Floor::new(http, socket, None, fault)?;
        thread::scope(|scope| {
            scope.spawn(move || floor.run(stopped.as_fd()).unwrap());
            let result = deliver(addr, &UnixStream::connect(&path)?, patience);
            drop(stop);
            result
        })
    }

    fn deliver(addr: SocketAddr, mut publisher: &UnixStream, patience: Duration) -> Result<()> {
        let mut replies = BufReader::new(publisher.try_clone()?);
        let mut load = Load::connect(addr, "news", 3)?;
        load.patience = patience;
        for i in 0..3 {
            load.poll()?;
            // The floor's one thread takes what came first first: once it has answered this, the polls are parked.
            for (channel, data) in [("nobody", "x"), ("news", &format!("m{i}"))] {
                publisher.write_all(server::line(channel, data).as_bytes())?;
                replies.read_line(&mut String::new())?;
            }
            load.collect(&format!("m{i}"))?;
        }
        load.quiet()
    }

    #[test]
    fn a_server_without_fault_passes() {
        run(Fault::None).unwrap();
    }

    #[test]
    fn every_fault_is_seen() {
        for (fault, word) in [
            (Fault::Lose, "lost"),
            (Fault::Double, "doubled"),
            (Fault::Reorder, "2 messages"),
            (Fault::Foreign, "foreign"),
            (Fault::Close, "closed"),
        ] {
            let error = run(fault).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

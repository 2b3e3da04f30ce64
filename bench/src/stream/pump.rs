//! Publishes to one channel with several messages under way, and checks that each is acknowledged.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::message::{self, StreamedMessage};
use crate::{answer::Answer, dialect, kind::Kind, publisher, server::Server};

/// Time-out for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(30);

/// A steady run stops when it is this far behind its rate.
const LATE: Duration = Duration::from_secs(2);

pub(crate) struct Pump {
    stream: Box<dyn Stream>,
    protocol: PublishProtocol,
    channel: String,
    /// Replies that were read. The last one may be incomplete.
    replies: Vec<u8>,
}

#[derive(Clone, Copy)]
enum PublishProtocol {
    /// Comet's socket: a JSON object a line in each direction.
    Lines,
    Http(Kind, SocketAddr),
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// Result of publishing at a steady rate.
pub(crate) struct Steady {
    /// Time from each publish to its acknowledgement.
    pub(crate) acknowledged: Vec<Duration>,
    /// Messages a second. The rate is lower than wanted if the server is slower.
    pub(crate) rate: f64,
    /// True if all messages were published. False if the server was far too slow.
    pub(crate) complete: bool,
}

impl Pump {
    /// Opens a publisher of the kind that the server's users have.
    pub(crate) fn new(server: &Server, channel: &str) -> Result<Self> {
        match server.kind {
            Kind::Comet | Kind::Floor => Self::lines(server.socket()?.stream, channel),
            kind => Self::http(kind, server.publish_addr(), channel),
        }
    }

    /// Publishes over the Unix socket.
    pub(super) fn lines(stream: UnixStream, channel: &str) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(
            Box::new(stream),
            PublishProtocol::Lines,
            channel,
        ))
    }

    /// Publishes over one HTTP connection. Requests on several connections would overtake each other.
    fn http(kind: Kind, addr: SocketAddr, channel: &str) -> Result<Self> {
        let stream = TcpStream::connect(addr).context("cannot connect to publish")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(
            Box::new(stream),
            PublishProtocol::Http(kind, addr),
            channel,
        ))
    }

    fn over(stream: Box<dyn Stream>, protocol: PublishProtocol, channel: &str) -> Self {
        Self {
            stream,
            protocol,
            channel: channel.into(),
            replies: Vec::new(),
        }
    }

    /// Publishes as fast as the server acknowledges, with at most `in_flight` messages under way. Returns when all are
    /// acknowledged.
    pub(crate) fn flood(&mut self, run: u32, messages: u32, in_flight: u32) -> Result<()> {
        let (mut sent, mut acknowledged, mut requests) = (0, 0, Vec::new());
        while acknowledged < messages {
            requests.clear();
            while sent < messages && sent - acknowledged < in_flight {
                self.request(run, sent, &mut requests);
                sent += 1;
            }
            self.stream.write_all(&requests)?;
            acknowledged += self.acknowledged()?;
        }
        Ok(())
    }

    /// Publishes one message after the other in intervals of `every`. If the server is slower, publishes as fast as it
    /// acknowledges, until the run is too late.
    pub(crate) fn steady(&mut self, run: u32, messages: u32, every: Duration) -> Result<Steady> {
        let (mut acknowledged, mut request) = (Vec::new(), Vec::new());
        let start = Instant::now();
        for seq in 0..messages {
            let due = start + every * seq;
            if due.elapsed() > LATE {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            request.clear();
            self.request(run, seq, &mut request);
            let sent = Instant::now();
            self.stream.write_all(&request)?;
            while self.acknowledged()? == 0 {}
            acknowledged.push(sent.elapsed());
        }
        // The last message gets its full interval, too.
        let published = acknowledged.len() as u32;
        let end = start + every * published;
        thread::sleep(end.saturating_duration_since(Instant::now()));
        Ok(Steady {
            acknowledged,
            rate: f64::from(published) / start.elapsed().as_secs_f64(),
            complete: published == messages,
        })
    }

    fn request(&self, run: u32, seq: u32, out: &mut Vec<u8>) {
        let sent = message::now();
        let data = StreamedMessage { run, seq, sent }.to_string();
        match self.protocol {
            PublishProtocol::Lines => {
                out.extend_from_slice(publisher::line(&self.channel, &data).as_bytes())
            }
            PublishProtocol::Http(kind, addr) => {
                dialect::post(kind, addr, &self.channel, &data, out)
            }
        }
    }

    /// Reads once. Returns how many publishes the replies acknowledge.
    fn acknowledged(&mut self) -> Result<u32> {
        let mut buffer = [0; 4096];
        let read = self
            .stream
            .read(&mut buffer)
            .context("a publish was not acknowledged")?;
        if read == 0 {
            bail!("the server closed the publisher's connection");
        }
        self.replies.extend_from_slice(&buffer[..read]);
        let (mut count, mut taken) = (0, 0);
        while let Some(length) = self.protocol.reply(&self.replies[taken..])? {
            count += 1;
            taken += length;
        }
        self.replies.drain(..taken);
        Ok(count)
    }
}

impl PublishProtocol {
    /// The length of the first reply. `None`: the reply is not complete.
    fn reply(self, bytes: &[u8]) -> Result<Option<usize>> {
        let (length, taken) = match self {
            Self::Lines => {
                let Some(end) = memchr::memchr(b'\n', bytes) else {
                    return Ok(None);
                };
                (end + 1, publisher::id(&bytes[..end]).is_some())
            }
            Self::Http(..) => {
                let Some(answer) = Answer::read(bytes).map_err(anyhow::Error::msg)? else {
                    return Ok(None);
                };
                (answer.length, (200..300).contains(&answer.status))
            }
        };
        if !taken {
            let reply = String::from_utf8_lossy(&bytes[..length]);
            bail!("not published: {reply:?}");
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const POST: PublishProtocol = PublishProtocol::Http(
        Kind::Nchan,
        SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)),
    );

    #[test]
    fn replies_are_counted_when_they_are_complete() {
        let line = b"{\"ok\":true,\"id\":17}\n";
        let post = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc";
        for (protocol, reply) in [(PublishProtocol::Lines, &line[..]), (POST, &post[..])] {
            let two = reply.repeat(2);
            assert_eq!(protocol.reply(&two).unwrap(), Some(reply.len()));
            for cut in 0..reply.len() {
                assert_eq!(protocol.reply(&reply[..cut]).unwrap(), None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_refusal_is_an_error() {
        let line = b"{\"ok\":false,\"error\":\"channel\"}\n";
        assert!(PublishProtocol::Lines.reply(line).is_err());
        let post = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert!(POST.reply(post).is_err());
        assert!(
            POST.reply(b"HTTP/1.1 200 OK\r\n\r\n").is_err(),
            "without length"
        );
    }
}

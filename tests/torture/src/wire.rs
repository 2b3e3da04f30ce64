//! A connection that this program may cut or read slowly, as the stage's settings say.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{random::Random, stage::Stage};

/// Interval in which a silent connection checks the stage.
const LOOK: Duration = Duration::from_millis(20);
/// Time-out for a connect and for sending a request.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    stage: Arc<Stage>,
    random: Random,
    cut: Option<Cut>,
    /// Bytes until the next pause of a slow reader.
    until_rest: usize,
    /// Time-out of a read.
    pub limit: Option<Duration>,
}

/// When a connection ends: after this many bytes, or at this time.
#[derive(Debug)]
struct Cut {
    bytes: usize,
    at: Instant,
}

impl Wire {
    /// # Errors
    /// When the address does not accept the connection.
    pub fn connect(addr: SocketAddr, stage: Arc<Stage>, mut random: Random) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        if stage.habits.slow {
            // Otherwise the kernel buffers megabytes for a client that does not read, and the server never notices the
            // slow client.
            socket.set_recv_buffer_size(4096)?;
        }
        socket.connect_timeout(&addr.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        // If nothing listens on a port of the kernel's client range, a client may connect to itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        random.number();
        Ok(Self {
            stream,
            stage,
            random,
            cut: None,
            until_rest: 0,
            limit: None,
        })
    }

    /// Sends a request. Where connections are cut, sometimes sends only a part of it.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.stage.cuts_now() && self.random.once_in(60) {
            let part = self.random.below(bytes.len() + 1);
            self.stream.write_all(&bytes[..part])?;
            return Err(self.cut_off());
        }
        self.stream.write_all(bytes)
    }

    /// Ends the connection as a lost client or a closed tab does.
    fn cut_off(&mut self) -> io::Error {
        self.stage.cuts.fetch_add(1, Relaxed);
        if self.random.once_in(2) {
            // With this option, closing the socket sends RST.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        } else {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        io::Error::new(ErrorKind::ConnectionAborted, "cut on purpose")
    }

    /// The number of bytes that may be read before this connection ends or pauses.
    fn allowance(&mut self, wanted: usize) -> io::Result<usize> {
        if !self.stage.cuts_now() {
            self.cut = None;
        } else if self.cut.is_none() {
            // Some connections end early, within the first response. Most last longer.
            let most = [200, 2_000, 60_000][self.random.below(3)];
            self.cut = Some(Cut {
                bytes: self.random.below(most),
                at: Instant::now() + self.random.millis(1, 1500),
            });
        }
        let mut wanted = wanted;
        if let Some(cut) = &self.cut {
            if cut.bytes == 0 || cut.at <= Instant::now() {
                return Err(self.cut_off());
            }
            wanted = wanted.min(cut.bytes);
        }
        if self.stage.slow_now() {
            self.rest();
            wanted = wanted.min(self.until_rest);
        }
        Ok(wanted)
    }

    fn rest(&mut self) {
        if self.until_rest > 0 {
            return;
        }
        self.until_rest = 1 + self.random.below(16 << 10);
        let time = match self.random.below(8) {
            0 => self.random.millis(200, 1500),
            _ => self.random.millis(5, 40),
        };
        self.stage.pause(time);
    }

    fn took(&mut self, read: usize) {
        if let Some(cut) = &mut self.cut {
            cut.bytes -= read;
        }
        self.until_rest = self.until_rest.saturating_sub(read);
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            if self.stage.stopped() {
                return Err(io::Error::other("the run is over"));
            }
            let wanted = self.allowance(buffer.len())?;
            match self.stream.read(&mut buffer[..wanted]) {
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.limit.is_some_and(|limit| start.elapsed() > limit) {
                        return Err(e);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Ok(read) => {
                    self.took(read);
                    return Ok(read);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

//! A connection that this program may cut or read slowly, as the stage says.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{random::Random, stage::Stage};

/// How often a silent connection looks at the stage.
const LOOK: Duration = Duration::from_millis(20);
/// How long a connection may take to be made, and a request to be sent.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    stage: Arc<Stage>,
    random: Random,
    cut: Option<Cut>,
    /// Bytes until the next rest of a slow reader.
    until_rest: usize,
    /// A read that takes longer fails.
    pub limit: Option<Duration>,
}

/// When a connection ends: after so many bytes, or then.
#[derive(Debug)]
struct Cut {
    bytes: usize,
    at: Instant,
}

impl Wire {
    /// # Errors
    /// When nobody listens.
    pub fn connect(addr: SocketAddr, stage: Arc<Stage>, mut random: Random) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        if stage.habits.slow {
            // Else the kernels keep megabytes for a client that reads nothing, and the server never notices.
            socket.set_recv_buffer_size(4096)?;
        }
        socket.connect_timeout(&addr.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        // Where nobody listens on a port of the range that clients get, one may connect to oneself.
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

    /// Sends a request; where connections are cut, sometimes only a part of it.
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

    /// Ends the connection, as a lost client or a closed tab does.
    fn cut_off(&mut self) -> io::Error {
        self.stage.cuts.fetch_add(1, Relaxed);
        if self.random.once_in(2) {
            // Dropped, it sends RST.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        } else {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        io::Error::new(ErrorKind::ConnectionAborted, "cut on purpose")
    }

    /// How much may be read before this connection ends or rests.
    fn allowance(&mut self, wanted: usize) -> io::Result<usize> {
        if !self.stage.cuts_now() {
            self.cut = None;
        } else if self.cut.is_none() {
            // Some die young, within the first answer; most live for a while.
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

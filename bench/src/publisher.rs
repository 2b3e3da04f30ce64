//! Publishes as the users of each server do: over the Unix socket, over HTTP, or by a file.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{answer::Answer, dialect, kind::Kind};

/// A publish without a reply after this time has failed.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) enum Publisher {
    Socket(Socket),
    Http(Http),
    Files(PathBuf),
}

impl Publisher {
    pub(crate) fn http(kind: Kind, addr: SocketAddr) -> Result<Self> {
        Http::connect(kind, addr).map(Self::Http)
    }

    /// Publishes and waits until the server has accepted the message.
    pub(crate) fn publish(&mut self, channel: &str, data: &str) -> Result<()> {
        self.send(channel, data)?;
        self.confirm()
    }

    /// Publishes. `confirm` reads the reply later.
    pub(crate) fn send(&mut self, channel: &str, data: &str) -> Result<()> {
        match self {
            Self::Socket(socket) => socket.send(channel, data),
            Self::Http(http) => http.send(channel, data),
            Self::Files(dir) => write(dir, channel, data),
        }
    }

    pub(crate) fn confirm(&mut self) -> Result<()> {
        match self {
            Self::Socket(socket) => socket.confirm().map(drop),
            Self::Http(http) => http.confirm(),
            Self::Files(_) => Ok(()),
        }
    }
}

/// Replaces the file atomically, so that a reader never sees a part of it.
fn write(dir: &Path, channel: &str, data: &str) -> Result<()> {
    let new = dir.join(format!(".{channel}.new"));
    fs::write(&new, data)?;
    Ok(fs::rename(new, dir.join(format!("{channel}.comet")))?)
}

/// One connection to the Unix socket.
pub(crate) struct Socket {
    pub(crate) stream: UnixStream,
    pub(crate) replies: BufReader<UnixStream>,
}

impl Socket {
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("cannot connect to the socket")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            replies: BufReader::new(stream.try_clone()?),
            stream,
        })
    }

    /// Publishes and waits for the reply. Returns the id.
    pub(crate) fn publish(&mut self, channel: &str, data: &str) -> Result<u64> {
        self.send(channel, data)?;
        self.confirm()
    }

    fn send(&mut self, channel: &str, data: &str) -> Result<()> {
        Ok(self.stream.write_all(line(channel, data).as_bytes())?)
    }

    fn confirm(&mut self) -> Result<u64> {
        let mut reply = String::new();
        self.replies.read_line(&mut reply)?;
        id(reply.as_bytes()).with_context(|| format!("not published: {reply:?}"))
    }
}

pub(crate) fn line(channel: &str, data: &str) -> String {
    format!("{{\"op\":\"publish\",\"channel\":\"{channel}\",\"data\":\"{data}\"}}\n")
}

/// Reads the id from a reply to a publish. `None`: the publish was refused.
pub(crate) fn id(reply: &[u8]) -> Option<u64> {
    let digits = reply
        .trim_ascii()
        .strip_prefix(b"{\"ok\":true,\"id\":")?
        .strip_suffix(b"}")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// One HTTP connection that is kept open, with one request after the other.
pub(crate) struct Http {
    kind: Kind,
    addr: SocketAddr,
    stream: TcpStream,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Http {
    fn connect(kind: Kind, addr: SocketAddr) -> Result<Self> {
        Ok(Self {
            kind,
            addr,
            stream: Self::stream(addr)?,
            request: Vec::new(),
            reply: Vec::new(),
        })
    }

    fn stream(addr: SocketAddr) -> Result<TcpStream> {
        let stream = TcpStream::connect(addr).context("cannot connect to publish")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn send(&mut self, channel: &str, data: &str) -> Result<()> {
        self.request.clear();
        dialect::post(self.kind, self.addr, channel, data, &mut self.request);
        Ok(self.stream.write_all(&self.request)?)
    }

    fn confirm(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        self.reply.clear();
        loop {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                bail!("the connection was closed instead of a reply");
            }
            self.reply.extend_from_slice(&buffer[..read]);
            let answer = Answer::read(&self.reply).map_err(anyhow::Error::msg)?;
            let Some(answer) = answer else {
                continue;
            };
            if !(200..300).contains(&answer.status) {
                bail!(
                    "not published: {} {}",
                    answer.status,
                    String::from_utf8_lossy(answer.body)
                );
            }
            let closes = answer.field("connection");
            if closes.is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                self.stream = Self::stream(self.addr)?;
            }
            return Ok(());
        }
    }
}

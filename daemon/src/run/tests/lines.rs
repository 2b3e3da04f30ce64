//! A protocol of the tests with a port of its own: the line `SUB NAME` subscribes to a channel, and each message comes as
//! a line.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpStream},
    rc::Rc,
};

use bytes::Bytes;
use comet_proto::ChannelName;

use crate::{
    compat::port::{Port, PortContext},
    connection::{Conn, Input, Protocol, Step, Then, Worker},
    hub::{READ_BYTES, Reader, subscriber::Audience, subscriber::Feed},
    worker::{Door, Due},
};

/// The port, at an address that is free.
pub(super) struct Lines(pub(super) SocketAddr);

impl Port for Lines {
    fn listen(&self) -> SocketAddr {
        self.0
    }

    fn name(&self) -> &'static str {
        "lines"
    }

    fn door(&self, context: &Rc<PortContext>) -> Box<dyn Door<Conn>> {
        let audience = context.audience.clone();
        Box::new(LineDoor { audience })
    }
}

struct LineDoor {
    audience: Rc<Audience>,
}

impl Door<Conn> for LineDoor {
    fn open(&self, stream: TcpStream, _: IpAddr, worker: &Rc<Worker>) -> io::Result<()> {
        worker.add(stream, None, |stream, place| {
            let protocol = Box::new(Subscription {
                audience: self.audience.clone(),
                reader: None,
                line: Vec::new(),
            });
            Conn::new(worker, stream, place, true, protocol, Due::NEVER)
        })
    }
}

struct Subscription {
    audience: Rc<Audience>,
    reader: Option<Reader<Vec<ChannelName>>>,
    line: Vec<u8>,
}

impl Subscription {
    /// The lines of what has come since.
    fn read_on(&mut self, conn: &Rc<Conn>) -> Step {
        let Some(reader) = &mut self.reader else {
            return Step::Wait(Due::NEVER);
        };
        reader.leave(&self.audience);
        let Some(backlog) = reader.join(&self.audience, conn, READ_BYTES) else {
            return Step::Wait(Due::NEVER);
        };
        let line = |data: &[u8]| [data, b"\n"].concat();
        let lines = backlog
            .messages
            .iter()
            .flat_map(|message| line(&message.data));
        Step::Write(lines.collect::<Vec<u8>>().into(), Then::Again)
    }
}

impl Protocol for Subscription {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        match input.read() {
            Ok(1..) => self.line.extend_from_slice(&input.take()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return self.read_on(conn),
            Ok(0) | Err(_) => return Step::Close,
        }
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return Step::Write(Bytes::new(), Then::Again);
        };
        let name = String::from_utf8_lossy(line);
        let name = name
            .strip_prefix("SUB ")
            .and_then(|name| ChannelName::parse(name).ok());
        let Some(name) = name else {
            return Step::Write(Bytes::from_static(b"? SUB NAME\n"), Then::End);
        };
        self.line.clear();
        self.reader = Some(Reader::new(self.audience.hub(), vec![name], None));
        Step::Write(Bytes::from_static(b"OK\n"), Then::Again)
    }

    fn news(&mut self, conn: &Rc<Conn>, _: &mut Feed<'_>) -> Step {
        self.read_on(conn)
    }

    fn time(&mut self, _: &Rc<Conn>) -> Step {
        Step::Close
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        Step::Write(Bytes::from_static(b"BYE\n"), Then::End)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.leave(&self.audience);
        }
    }
}

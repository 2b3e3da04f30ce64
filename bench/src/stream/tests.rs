//! Tests of the stream client against a server that commits faults on purpose.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    sync::mpsc,
};

use super::{message::StreamedMessage, *};
use crate::kind::Kind;

const RUN: u32 = 4;
const MESSAGES: u32 = 5;
const STREAMS: usize = 3;

/// The format in which messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// Comet's events, each in its own chunk.
    Chunks,
    Plain,
    Frames,
}

const FORMS: [Form; 3] = [Form::Chunks, Form::Plain, Form::Frames];

impl Form {
    fn target(self, addr: SocketAddr) -> Target {
        let (kind, transport) = match self {
            Self::Chunks => (Kind::Comet, Transport::Sse),
            Self::Plain => (Kind::Nchan, Transport::Sse),
            Self::Frames => (Kind::Comet, Transport::WebSocket),
        };
        Target::new(kind, addr, "news", transport)
    }

    /// The response head, followed by something that a client has to skip.
    fn head(self) -> Vec<u8> {
        let head = match self {
            Self::Chunks => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Self::Plain => "HTTP/1.1 200 OK\r\n\r\n: hi\n\n",
            Self::Frames => {
                "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            }
        };
        let mut head = head.as_bytes().to_vec();
        if self == Self::Chunks {
            head.extend(chunk("id: 1\nevent: cursor\ndata: {\"cursor\":\"1\"}\n\n"));
        }
        head
    }

    fn message(self, run: u32, seq: u32) -> Vec<u8> {
        let data = StreamedMessage { run, seq, sent: 0 }.to_string();
        let json =
            format!("{{\"channel\":\"news\",\"id\":{seq},\"name\":\"\",\"data\":\"{data}\"}}");
        match self {
            Self::Chunks => chunk(&format!("id: {seq}\ndata: {json}\n\n")),
            Self::Plain => format!("id: {seq}\ndata: {data}\n\n").into_bytes(),
            Self::Frames => frame(&json),
        }
    }

    fn gap(self) -> Vec<u8> {
        let json = "{\"gap\":true,\"cursor\":\"1\"}";
        let event = format!("id: 1\nevent: gap\ndata: {json}\n\n");
        match self {
            Self::Chunks => chunk(&event),
            Self::Plain => event.into_bytes(),
            Self::Frames => frame(json),
        }
    }
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn frame(text: &str) -> Vec<u8> {
    let length = text.len() as u8;
    let head = if length < 126 {
        vec![0x81, length]
    } else {
        vec![0x81, 126, 0, length]
    };
    [&head, text.as_bytes()].concat()
}

/// Returns the client's result for a run in which the first of several streams gets `events` and the other streams get
/// all messages correctly.
fn run(form: Form, events: Option<Vec<Vec<u8>>>) -> Tally {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = form.target(listener.local_addr().unwrap());
    let (go, told) = mpsc::channel();
    let (wrote, written) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let accept = |_| begin(&listener, form);
            let mut clients: Vec<TcpStream> = (0..STREAMS).map(accept).collect();
            told.recv().unwrap();
            let good: Vec<Vec<u8>> = (0..MESSAGES).map(|seq| form.message(RUN, seq)).collect();
            let closes = events.as_ref().is_some_and(Vec::is_empty);
            for (i, client) in clients.iter_mut().enumerate() {
                let events = events.as_ref().filter(|_| i == 0).unwrap_or(&good);
                client.write_all(&events.concat()).unwrap();
            }
            clients.drain(..usize::from(closes));
            wrote.send(()).unwrap();
            // The connections stay open until the client closes them.
            for mut client in clients {
                let _ = client.read(&mut [0; 64]);
            }
        });
        let mut streams = Streams::open(&target, STREAMS).unwrap();
        streams.patience = Duration::from_millis(50);
        streams.note_latency().unwrap();
        streams.expect(MESSAGES);
        streams.run.number = RUN;
        go.send(()).unwrap();
        // All bytes are sent before the first read. So only a message that never arrives has to be waited for.
        written.recv().unwrap();
        let tally = streams.collect().unwrap();
        let noted = streams.latency().unwrap().len();
        assert!(noted >= tally.delivered);
        tally
    })
}

fn begin(listener: &TcpListener, form: Form) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    let lines = BufReader::new(&stream).lines();
    for line in lines.map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
    }
    (&stream).write_all(&form.head()).unwrap();
    stream
}

/// The result of a faultless run, altered by `change`.
fn expected(change: impl FnOnce(&mut Tally), tally: &Tally) -> Tally {
    let mut expected = Tally::new();
    expected.delivered = u64::from(MESSAGES) * STREAMS as u64;
    expected.last = tally.last;
    change(&mut expected);
    expected
}

#[test]
fn a_server_without_fault_passes() {
    for form in FORMS {
        let tally = run(form, None);
        assert_eq!(tally, expected(|_| {}, &tally), "{form:?}");
        tally.check().unwrap();
    }
}

#[test]
fn every_fault_is_seen() {
    type Change = fn(&mut Tally);
    for form in FORMS {
        let list = |seqs: &[u32]| seqs.iter().map(|&seq| form.message(RUN, seq)).collect();
        let with = |event: Vec<u8>| {
            let mut events: Vec<Vec<u8>> = list(&[0, 1, 2, 3, 4]);
            events.insert(2, event);
            events
        };
        let faults: [(Vec<Vec<u8>>, Change); 8] = [
            (list(&[0, 1, 3, 4]), |t| {
                (t.faults.lost, t.delivered) = (1, t.delivered - 1)
            }),
            (list(&[0, 1, 2, 3]), |t| {
                (t.faults.lost, t.delivered) = (1, t.delivered - 1)
            }),
            (list(&[0, 1, 2, 2, 3, 4]), |t| t.faults.doubled = 1),
            (list(&[0, 1, 2, 3, 4, 4]), |t| t.faults.doubled = 1),
            (list(&[0, 2, 1, 3, 4]), |t| t.faults.reordered = 1),
            (with(form.message(RUN - 1, 2)), |t| t.faults.foreign = 1),
            (with(form.gap()), |t| t.faults.failed = 1),
            // No event at all: the stream was closed.
            (Vec::new(), |t| {
                (t.faults.failed, t.faults.lost, t.delivered) = (1, 5, t.delivered - 5)
            }),
        ];
        for (i, (events, change)) in faults.into_iter().enumerate() {
            let tally = run(form, Some(events));
            assert_eq!(tally, expected(change, &tally), "{form:?}, fault {i}");
            tally.check().unwrap_err();
        }
    }
}

#[test]
fn what_is_changed_on_the_way_is_foreign() {
    for form in FORMS {
        let mut events: Vec<Vec<u8>> = (0..MESSAGES).map(|seq| form.message(RUN, seq)).collect();
        let dot = events[2].iter().rposition(|&byte| byte == b'.').unwrap();
        events[2][dot] = b'x';
        let tally = run(form, Some(events));
        let change = |t: &mut Tally| {
            (t.faults.foreign, t.faults.lost, t.delivered) = (1, 1, t.delivered - 1)
        };
        assert_eq!(tally, expected(change, &tally), "{form:?}");
    }
}

#[test]
fn pings_are_answered_and_the_end_is_seen() {
    let mut events: Vec<Vec<u8>> = (0..MESSAGES)
        .map(|seq| Form::Frames.message(RUN, seq))
        .collect();
    events.push(vec![0x88, 2, 3, 233]);
    let tally = run(Form::Frames, Some(events));
    assert_eq!(tally, expected(|t| t.faults.failed = 1, &tally));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Form::Frames.target(listener.local_addr().unwrap());
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            let mut client = begin(&listener, Form::Frames);
            client.write_all(&[0x89, 2, b'h', b'i']).unwrap();
            let mut pong = [0; 8];
            client.read_exact(&mut pong).unwrap();
            client.write_all(&Form::Frames.message(RUN, 0)).unwrap();
            (pong, client)
        });
        let mut streams = Streams::open(&target, 1).unwrap();
        streams.expect(1);
        streams.run.number = RUN;
        streams.collect().unwrap().check().unwrap();
        assert_eq!(&server.join().unwrap().0, b"\x8a\x82\0\0\0\0hi");
    });
}

#[test]
fn a_stuck_client_takes_hardly_anything() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Form::Plain.target(listener.local_addr().unwrap());
    thread::scope(|scope| {
        let server = scope.spawn(|| begin(&listener, Form::Plain));
        let stuck = Streams::stuck(&target, 1).unwrap();
        let mut client = server.join().unwrap();
        client.set_nonblocking(true).unwrap();
        // Written event by event, because in the kernel each piece takes more room than its bytes.
        let (event, mut events) = (Form::Plain.message(RUN, 0), 0);
        while client.write(&event).is_ok() {
            events += 1;
        }
        assert!(events < 1000, "{events}");
        drop(stuck);
    });
}

#[test]
fn publishes_as_many_at_once_as_asked_for() {
    const IN_FLIGHT: usize = 3;
    const COUNT: u32 = 7;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut seqs = 0..COUNT;
            while !seqs.is_empty() {
                // The messages arrive before any reply, and no more than `IN_FLIGHT` of them.
                for seq in seqs.by_ref().take(IN_FLIGHT) {
                    let line = lines.next().unwrap().unwrap();
                    assert!(line.contains(&format!("\"{RUN}:{seq}:")), "{line}");
                }
                stream.set_nonblocking(true).unwrap();
                assert!(stream.read(&mut [0]).is_err());
                stream.set_nonblocking(false).unwrap();
                let replies = "{\"ok\":true,\"id\":1}\n".repeat(IN_FLIGHT);
                stream.write_all(replies.as_bytes()).unwrap();
            }
        });
        let stream = UnixStream::connect(&path).unwrap();
        let mut pump = Pump::lines(stream, "news").unwrap();
        pump.flood(RUN, COUNT, IN_FLIGHT as u32).unwrap();
    });
}

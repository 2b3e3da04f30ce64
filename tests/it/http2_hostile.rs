//! HTTP/2 with hand-written frames: a client that floods, stalls or breaks rules ends only its own stream or
//! connection.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use crate::{
    daemon::{Daemon, Http, PATIENCE, wait_for},
    wire::{data, get, metric, parked, wait_for_subscribers},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// Builds a frame (section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Encodes the fields of a request with HPACK (RFC 7541), without Huffman coding and without entries in the table.
fn fields(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let all = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
    ];
    for (name, value) in all.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte says the length");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &fields("GET", path, &[]),
    )
}

/// A client that sends any frames.
struct Raw {
    stream: TcpStream,
    /// Whether it acknowledges pings and settings automatically.
    answers: bool,
}

/// A received frame.
#[derive(Debug, PartialEq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Raw {
    fn connect(daemon: &Daemon, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(daemon.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self {
            stream,
            answers: true,
        };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.send(&frame(SETTINGS, 0, 0, settings));
        raw
    }

    /// Sends as much as the daemon accepts, because the daemon may close the connection of a flood. Returns false if it
    /// was closed.
    fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(e) => {
                let cut = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                assert!(cut.contains(&e.kind()), "{e}");
                false
            }
        }
    }

    /// Reads a frame. `None`: the connection has ended.
    fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.fill(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if self.answers && flags & ACK == 0 {
            match kind {
                PING => _ = self.send(&frame(PING, ACK, 0, &payload)),
                SETTINGS => _ = self.send(&frame(SETTINGS, ACK, 0, &[])),
                _ => {}
            }
        }
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(e) => {
                let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(ends.contains(&e.kind()), "{e}");
                None
            }
        }
    }

    fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The error code of the GOAWAY that ends the connection. A reset may overtake the GOAWAY.
    fn goaway(&mut self) -> Option<u32> {
        let frame = self.until(GOAWAY)?;
        let code = frame.payload[4..8].try_into().unwrap();
        while self.read().is_some() {}
        Some(u32::from_be_bytes(code))
    }

    /// Checks that the stream is answered, so the connection still works.
    fn is_served(&mut self, stream: u32) {
        self.send(&request(stream, "/healthz"));
        let headers = self.until(HEADERS).expect("an answer");
        assert_eq!(
            (headers.stream, headers.payload[0]),
            (stream, 0x88),
            ":status 200"
        );
    }
}

/// A client on another connection, which must get its message in the end.
struct Bystander(Http);

impl Bystander {
    fn wait(daemon: &Daemon) -> Self {
        Self(parked(daemon, get("/ch/bystander", "")))
    }

    fn gets_its_message(mut self, daemon: &Daemon) {
        daemon.publish("bystander", "undisturbed");
        assert_eq!(data(&self.0.answer()), ["undisturbed"]);
        wait_for_subscribers(daemon, 0);
    }
}

/// Sends frames until the daemon closes the connection.
fn flood_is_cut(daemon: &Daemon, client: &mut Raw, frames: &[u8]) {
    let flood = frames.repeat((64 << 10) / frames.len() + 1);
    let mut sent = 0;
    let mut reader = client.stream.try_clone().unwrap();
    // The client reads its answers, so that only its frames can be the reason.
    let reading =
        std::thread::spawn(move || while matches!(reader.read(&mut [0; 65536]), Ok(1..)) {});
    while client.send(&flood) {
        sent += flood.len();
        assert!(sent < 64 << 20, "64 MiB were taken");
    }
    reading.join().unwrap();
    wait_for("its connection", || {
        (metric(daemon, "comet_http_connections") <= 2).then_some(())
    });
}

#[test]
fn rapid_resets_end_the_connection() {
    let daemon = Daemon::start("");
    let bystander = Bystander::wait(&daemon);
    reset_rapidly(&daemon);
    wait_for_subscribers(&daemon, 1);
    bystander.gets_its_message(&daemon);
}

/// Opens and resets streams until the daemon ends the connection.
pub(crate) fn reset_rapidly(daemon: &Daemon) {
    let mut client = Raw::connect(daemon, &[]);
    let resets: Vec<u8> = (0..1000)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let cancel = 8_u32.to_be_bytes();
            [
                request(stream, "/ch/a"),
                frame(RST_STREAM, 0, stream, &cancel),
            ]
            .concat()
        })
        .collect();
    client.send(&resets);
    assert!(matches!(client.goaway(), Some(ENHANCE_YOUR_CALM) | None));
}

#[test]
fn frames_that_ask_for_nothing_end_the_connection() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let bystander = Bystander::wait(&daemon);
    let floods = [
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(0xee, 0, 0, &[0; 100]), // of a kind that nobody knows
    ];
    for flood in floods {
        let mut client = Raw::connect(&daemon, &[]);
        client.is_served(1);
        flood_is_cut(&daemon, &mut client, &flood);
    }
    // An upload that never continues.
    let mut client = Raw::connect(&daemon, &[]);
    client.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        &fields("POST", "/ch/a", &[]),
    ));
    flood_is_cut(&daemon, &mut client, &frame(DATA, 0, 1, &[]));
    let mut client = Raw::connect(&daemon, &[]);
    client.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        &fields("POST", "/ch/a", &[]),
    ));
    let padding = [&[255_u8][..], &[0; 255]].concat(); // no byte of data
    flood_is_cut(&daemon, &mut client, &frame(DATA, 8, 1, &padding));
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let daemon = Daemon::start("");
    let bystander = Bystander::wait(&daemon);
    // Each field is small, and the fields never end.
    let more: Vec<u8> = (0..100)
        .flat_map(|_| [&[0, 1][..], b"a", &[1], b"b"].concat())
        .collect();
    for piece in [&more[..], &[]] {
        let mut client = Raw::connect(&daemon, &[]);
        client.send(&frame(HEADERS, END_STREAM, 1, &fields("GET", "/ch/a", &[])));
        flood_is_cut(&daemon, &mut client, &frame(CONTINUATION, 0, 1, piece));
    }
    bystander.gets_its_message(&daemon);
}

/// HPACK's table expands this small head to a large one.
#[test]
fn a_head_that_unpacks_to_more_than_the_limit_is_refused() {
    let daemon = Daemon::start("");
    let bystander = Bystander::wait(&daemon);
    let bomb = |times| {
        let mut block = fields("GET", "/ch/a", &[]);
        // A field of 3,000 bytes that enters the table (section 6.2.1). Its length is an integer of 7 bits with two
        // more bytes.
        block.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0xb9, 0x16]);
        block.extend_from_slice(&[b'v'; 3000]);
        // The same field again by its index 62, many times.
        block.extend(vec![0x80 | 62; times]);
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    let mut client = Raw::connect(&daemon, &[]);
    client.send(&bomb(6));
    let answer = client.until(HEADERS).expect("an answer");
    // ":status" 431 in HPACK's Huffman code: 4 is 011010, 3 is 011001, 1 is 00001, and the padding is ones.
    let code = [0b0110_1001, 0b1001_0000, 0b1111_1111];
    assert!(answer.payload.windows(3).any(|w| w == code), "{answer:?}");
    client.is_served(3);
    let mut client = Raw::connect(&daemon, &[]);
    client.send(&bomb(10_000));
    assert!(matches!(client.goaway(), Some(ENHANCE_YOUR_CALM) | None));
    // A table that is larger than agreed is an error.
    let mut liar = Raw::connect(&daemon, &[]);
    liar.send(&frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &[0x3f, 0xe1, 0xff, 0x03],
    ));
    assert_ne!(liar.goaway(), Some(0));
    bystander.gets_its_message(&daemon);
}

#[test]
fn frames_that_break_the_rules_end_the_connection() {
    let daemon = Daemon::start("");
    let bystander = Bystander::wait(&daemon);
    let cases = [
        frame(DATA, 0, 0, b"x"),
        frame(DATA, 0, 9, b"x"),
        frame(HEADERS, END_HEADERS, 2, &fields("GET", "/", &[])),
        frame(CONTINUATION, END_HEADERS, 3, &[]),
        frame(PING, 0, 0, &[0; 7]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255]),
        [&[0xff; 3][..], &[DATA, 0, 0, 0, 0, 3]].concat(), // 16 MiB
        frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
    ];
    for bytes in cases {
        let mut client = Raw::connect(&daemon, &[]);
        client.is_served(1);
        client.send(&bytes);
        let told = client.goaway();
        assert!(told.is_none_or(|code| code != 0), "{told:?} for {bytes:?}");
    }
    bystander.gets_its_message(&daemon);
}

/// In HTTP/1 these fields would be request smuggling. They have a meaning only there.
#[test]
fn fields_of_http_1_and_odd_names_end_their_stream() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let bystander = Bystander::wait(&daemon);
    let cases: [&[(&str, &str)]; 8] = [
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("Upper", "x")],
        &[("a b", "x")],
        &[("x", "a\r\nb: c")],
        &[("content-length", "1"), ("content-length", "2")],
    ];
    for (n, more) in cases.into_iter().enumerate() {
        let mut client = Raw::connect(&daemon, &[]);
        let block = fields("POST", "/ch/a", more);
        client.send(&frame(HEADERS, END_HEADERS, 1, &block));
        client.send(&frame(DATA, END_STREAM, 1, b"body"));
        // A reset, a GOAWAY or a refusal is right. A publish is not.
        loop {
            match client.read() {
                None => break,
                Some(frame) if [RST_STREAM, GOAWAY].contains(&frame.kind) => break,
                Some(frame) if frame.kind == HEADERS => {
                    assert_ne!(frame.payload[0], 0x88, "{n}");
                    break;
                }
                Some(_) => {}
            }
        }
        assert!(daemon.history("a").is_empty(), "{more:?}");
    }
    bystander.gets_its_message(&daemon);
}

/// The window stays closed. The answer must not wait for ever.
#[test]
fn a_stream_whose_window_stays_shut_is_reset() {
    let daemon = Daemon::start("[http]\nwrite_time = \"300ms\"\n");
    let bystander = Bystander::wait(&daemon);
    let shut = [0, 4, 0, 0, 0, 0];
    let mut client = Raw::connect(&daemon, &shut);
    for (stream, path) in [
        (1, "/comet.js"),
        (3, "/ch/a?as=sse"),
        (5, "/ch/a?since=0&wait=0"),
    ] {
        client.send(&request(stream, path));
        let reset = client.until(RST_STREAM).expect("a reset");
        assert_eq!(reset.stream, stream, "{path}");
    }
    wait_for_subscribers(&daemon, 1);
    // The connection itself continues: an answer without a body needs no window.
    let head = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        7,
        &fields("HEAD", "/healthz", &[]),
    );
    client.send(&head);
    assert_eq!(client.until(HEADERS).expect("an answer").stream, 7);
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_connection_without_a_stream_is_ended() {
    let daemon = Daemon::start("[http]\nidle = \"500ms\"\nwrite_time = \"300ms\"\n");
    let mut client = Raw::connect(&daemon, &[]);
    client.is_served(1);
    assert_eq!(client.goaway(), Some(0));
    // This client ignores everything: it answers neither the GOAWAY nor a ping.
    let mut deaf = Raw::connect(&daemon, &[]);
    deaf.answers = false;
    wait_for("the cut", || {
        (metric(&daemon, "comet_http_connections") <= 1).then_some(())
    });
    // Half a head, and nothing after it.
    let mut half = Raw::connect(&daemon, &[]);
    half.send(&frame(HEADERS, END_STREAM, 1, &fields("GET", "/ch/a", &[])));
    wait_for("the cut", || {
        (metric(&daemon, "comet_http_connections") <= 1).then_some(())
    });
    drop((deaf, half));
}

#[test]
fn a_client_that_answers_no_ping_is_cut() {
    let daemon = Daemon::start("[http]\nheartbeat = \"300ms\"\nwrite_time = \"300ms\"\n");
    let mut client = Raw::connect(&daemon, &[]);
    client.answers = false;
    client.send(&request(1, "/ch/a"));
    wait_for_subscribers(&daemon, 1);
    wait_for_subscribers(&daemon, 0);
    while client.read().is_some() {}
}

#[test]
fn streams_over_the_limit_are_refused() {
    let daemon = Daemon::start("");
    let bystander = Bystander::wait(&daemon);
    let mut client = Raw::connect(&daemon, &[]);
    for n in 0..129 {
        client.send(&request(2 * n + 1, "/ch/a"));
    }
    let reset = client.until(RST_STREAM).expect("a reset");
    assert_eq!(
        (reset.stream, reset.payload),
        (2 * 128 + 1, 7_u32.to_be_bytes().to_vec())
    ); // REFUSED_STREAM
    wait_for_subscribers(&daemon, 129);
    drop(client);
    wait_for_subscribers(&daemon, 1);
    bystander.gets_its_message(&daemon);
}

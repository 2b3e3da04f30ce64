//! Tests of the requests and responses of the other servers, as far as these are installed.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    answer::Answer,
    dialect::{self, Cursor, Received},
    publisher::Publisher,
    server::Server,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn started(kind: Kind) -> Option<Server> {
    match Server::peer(kind).unwrap() {
        Ok(server) => {
            assert!(!version(kind).is_empty());
            Some(server)
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// One client connection.
struct Client {
    kind: Kind,
    stream: TcpStream,
    /// Bytes that were received and are not used yet.
    received: Vec<u8>,
}

impl Client {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr()).unwrap();
        let short = Duration::from_millis(100);
        stream.set_read_timeout(Some(short)).unwrap();
        Self {
            kind: server.kind,
            stream,
            received: Vec::new(),
        }
    }

    fn poll(&mut self, cursor: Option<&Cursor>) {
        let mut request = Vec::new();
        dialect::poll(self.kind, "localhost", "news", cursor, &mut request);
        self.stream.write_all(&request).unwrap();
    }

    /// Reads what arrives within a short time.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("closed after {:?}", self.text()),
            Ok(read) => self.received.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Takes the next response, if it is complete.
    fn answer(&mut self) -> Option<Received> {
        self.read();
        let answer = Answer::read(&self.received).unwrap()?;
        let received = dialect::received(self.kind, &answer).unwrap();
        self.received.drain(..answer.length);
        Some(received)
    }
}

/// Publishes until a message arrives. A server does not tell when a poll or stream has begun to wait.
fn publish_until<T>(
    publisher: &mut Publisher,
    data: &str,
    mut done: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        publisher.publish("news", data).unwrap();
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{data:?} was not delivered");
    }
}

/// Checks that a poll gets a message. If the server has cursors, also checks that the next poll gets a message
/// published between the two polls.
fn polls(server: &Server) {
    let mut publisher = server.publisher().unwrap();
    let mut client = Client::connect(server);
    client.poll(None);
    let first = publish_until(&mut publisher, "first", || client.answer());
    assert_eq!(first.messages[0].data, "first");
    let Some(mut cursor) = first.cursor else {
        return;
    };
    publisher.publish("news", "second").unwrap();
    let start = Instant::now();
    client.poll(Some(&cursor));
    loop {
        assert!(start.elapsed() < PATIENCE, "the second was not delivered");
        let Some(next) = client.answer() else {
            continue;
        };
        if next.messages[0].data == "second" {
            break;
        }
        // The loop published the first message more than once.
        assert_eq!(next.messages[0].data, "first");
        cursor = next.cursor.unwrap();
        client.poll(Some(&cursor));
    }
}

/// Opens a stream with these request lines and checks that a published message arrives.
fn streams(server: &Server, path: &str, lines: &str, message: &str) {
    let mut publisher = server.publisher().unwrap();
    let mut client = Client::connect(server);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    client.stream.write_all(request.as_bytes()).unwrap();
    publish_until(&mut publisher, "hello", || {
        client.read();
        client.text().contains(message).then_some(())
    });
}

const SSE: &str = "Accept: text/event-stream\r\n";
const EVENT: &str = "data: hello\n\n";

#[test]
fn nchan_polls_and_streams() {
    let Some(server) = started(Kind::Nchan) else {
        return;
    };
    polls(&server);
    streams(&server, "/sse/news", SSE, EVENT);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    // A complete text frame with five bytes.
    streams(&server, "/ws/news", upgrade, "\u{5}hello");
}

#[test]
fn pushpin_polls_and_streams() {
    let Some(server) = started(Kind::Pushpin) else {
        return;
    };
    polls(&server);
    streams(&server, "/sse/news", SSE, EVENT);
}

#[test]
fn php_polls() {
    if let Some(server) = started(Kind::Php) {
        polls(&server);
    }
}

#[test]
fn what_was_started_ends_with_the_server() {
    let Some(server) = started(Kind::Nchan) else {
        return;
    };
    let file = server.file("news");
    let dir = file.parent().unwrap();
    assert!(dir.exists());
    let mut client = Client::connect(&server);
    drop(server);
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    assert!(!dir.exists());
}

#[test]
fn who_cannot_start_is_asked_what_it_said() {
    let mut stage = Stage::new().unwrap();
    let [addr] = stage.ports(["port"]).unwrap();
    let mut shell = Command::new("sh");
    stage
        .run("shell", shell.args(["-c", "echo it is broken >&2"]))
        .unwrap();
    let error = stage.wait(addr, "/ready").unwrap_err();
    assert!(error.to_string().contains("it is broken"), "{error}");
}

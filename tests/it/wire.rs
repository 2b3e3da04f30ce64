//! Requests and parsers of the HTTP tests, in addition to those of the harness.

use std::{
    fs,
    io::{ErrorKind, Write},
    net::Shutdown,
};

use serde_json::Value;

use crate::daemon::{Answer, Daemon, Http, wait_for};

/// A `GET` request. `headers` are lines with their line ends.
pub(crate) fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: comet.localhost\r\n{headers}\r\n")
}

/// The header lines that begin a WebSocket.
pub(crate) const WEBSOCKET: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A publish. `headers` are lines with their line ends.
pub(crate) fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: comet.localhost\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Sends one request on a new connection.
pub(crate) fn ask(daemon: &Daemon, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Http::connect(daemon.addr());
    client.send(request);
    client.answer()
}

/// A client whose request the daemon has received.
pub(crate) fn parked(daemon: &Daemon, request: impl AsRef<[u8]>) -> Http {
    let before = metric(daemon, "comet_subscribers");
    let mut client = Http::connect(daemon.addr());
    client.send(request);
    wait_for_subscribers(daemon, before + 1);
    client
}

pub(crate) fn metric(daemon: &Daemon, name: &str) -> u64 {
    let answer = daemon.get("/metrics");
    let line = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {}", answer.body))
        .parse()
        .unwrap()
}

pub(crate) fn wait_for_subscribers(daemon: &Daemon, count: u64) {
    wait_for("subscribers", || {
        (metric(daemon, "comet_subscribers") == count).then_some(())
    });
}

/// Waits until all threads have started and opened what they need. The kernel distributes connections among them.
pub(crate) fn wait_for_all_workers(daemon: &Daemon) {
    let clients: Vec<Http> = (0..50).map(|_| parked(daemon, get("/ch/a", ""))).collect();
    drop(clients);
    wait_for_subscribers(daemon, 0);
}

/// Number of files and sockets that the daemon has open.
pub(crate) fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .count()
}

/// The data of a poll's messages.
pub(crate) fn data(answer: &Answer) -> Vec<String> {
    data_of(&answer.json())
}

pub(crate) fn data_of(poll: &Value) -> Vec<String> {
    let messages = poll["messages"]
        .as_array()
        .unwrap_or_else(|| panic!("no poll: {poll}"));
    messages
        .iter()
        .map(|message| message["data"].as_str().unwrap().to_owned())
        .collect()
}

/// The cursor of a poll's answer.
pub(crate) fn cursor(answer: &Answer) -> u64 {
    answer.json()["cursor"].as_str().unwrap().parse().unwrap()
}

/// The status, and the code and message of the error.
pub(crate) fn refusal(answer: &Answer) -> (u16, String, String) {
    let json = answer.json();
    let text = |name: &str| {
        json[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {json}"))
            .to_owned()
    };
    (answer.status, text("error"), text("message"))
}

/// Sends as much as the server accepts. A server that refuses need not read all bytes.
pub(crate) fn send_some(client: &mut Http, bytes: &[u8]) {
    if let Err(e) = client.stream.write_all(bytes) {
        assert!(
            matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
            "{e}"
        );
    }
}

/// Closes the sending side.
pub(crate) fn half_close(client: &Http) {
    client.stream.shutdown(Shutdown::Write).unwrap();
}

/// A client that reads an SSE stream, without the framing of chunks.
pub(crate) struct Events {
    client: Http,
    text: String,
}

impl Events {
    /// Opens `path` with further header lines, and reads up to the first comment.
    pub(crate) fn open(daemon: &Daemon, path: &str, headers: &str) -> Self {
        let mut client = Http::connect(daemon.addr());
        client.send(get(
            path,
            &format!("Accept: text/event-stream\r\n{headers}"),
        ));
        Self::read_head(client)
    }

    /// Reads the head. The client has already sent its request.
    pub(crate) fn read_head(mut client: Http) -> Self {
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("\r\ncontent-type: text/event-stream"),
            "{head}"
        );
        let mut events = Self {
            client,
            text: String::new(),
        };
        assert!(is_sign_of_life(&events.next().unwrap()));
        events
    }

    /// The next event or comment: the lines up to an empty line. `None` after the stream's last chunk.
    pub(crate) fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                return Some(event);
            }
            self.text += &self.client.chunk()?;
        }
    }

    /// The next message or gap as id, event type and JSON. Heartbeats are skipped.
    pub(crate) fn message(&mut self) -> (u64, String, Value) {
        loop {
            let event = self.next().expect("the stream goes on");
            let field = |name: &str| {
                event
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            if let Some(data) = field("data").filter(|_| !is_sign_of_life(&event)) {
                let id = field("id").unwrap().parse().unwrap();
                return (
                    id,
                    field("event").unwrap_or_default().into(),
                    serde_json::from_str(data).unwrap(),
                );
            }
        }
    }

    /// The data of the next message, which must have this id.
    #[track_caller]
    pub(crate) fn message_of(&mut self, id: u64) -> String {
        let (got, kind, message) = self.message();
        assert_eq!((got, &*kind), (id, ""));
        message["data"].as_str().unwrap().to_owned()
    }

    /// Whether the server closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.client.is_closed()
    }
}

/// Whether the event only moves the cursor.
pub(crate) fn is_sign_of_life(event: &str) -> bool {
    event.contains("\nevent: cursor\n")
}

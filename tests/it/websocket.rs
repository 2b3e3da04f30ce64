//! WebSocket with an independent client library.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    thread,
};

use tungstenite::{
    Message, WebSocket, client::IntoClientRequest, handshake::HandshakeError, http::Request,
};

use crate::{
    daemon::{Daemon, Http, PATIENCE},
    wire::{WEBSOCKET, get},
};

fn request(daemon: &Daemon, path: &str) -> Request<()> {
    format!("ws://{}{path}", daemon.addr())
        .into_client_request()
        .unwrap()
}

/// The open socket, or the status that refused it.
fn connect(daemon: &Daemon, request: Request<()>) -> Result<WebSocket<TcpStream>, u16> {
    let stream = TcpStream::connect(daemon.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn open(daemon: &Daemon, path: &str) -> WebSocket<TcpStream> {
    connect(daemon, request(daemon, path)).unwrap()
}

fn next_json(socket: &mut WebSocket<TcpStream>) -> serde_json::Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn carries_one_message_a_frame() {
    let daemon = Daemon::start("");
    let mut socket = open(&daemon, "/ch/news,other");
    let long = "x".repeat(70_000);
    for data in ["one", "två \"quoted\"", &long] {
        let id = daemon.publish("news", data);
        let message = next_json(&mut socket);
        assert_eq!(
            (message["id"].as_u64(), message["data"].as_str()),
            (Some(id), Some(data))
        );
        assert_eq!(message["channel"], "news");
    }
}

/// One thread serves all clients.
#[test]
fn a_client_that_sends_without_end_holds_up_nobody() {
    let daemon = Daemon::start("workers = 1");
    let flood = open(&daemon, "/ch/flood");
    let mut stream = flood.get_ref().try_clone().unwrap();
    // An empty pong (RFC 6455, section 5.5.3), which gets no answer, many times.
    let pongs = [0x8a, 0x80, 1, 2, 3, 4].repeat(10_000);
    let flooding = thread::spawn(move || while stream.write_all(&pongs).is_ok() {});
    let mut socket = open(&daemon, "/ch/news");
    for data in ["one", "two", "three"] {
        daemon.publish("news", data);
        assert_eq!(next_json(&mut socket)["data"], data);
    }
    flood.get_ref().shutdown(Shutdown::Both).unwrap();
    flooding.join().unwrap();
}

#[test]
fn resumes_after_its_cursor_and_tells_gaps() {
    let daemon = Daemon::start("[history]\nmessages = 1\n");
    let first = daemon.publish("news", "first");
    daemon.publish("news", "second");
    let mut socket = open(&daemon, &format!("/ch/news?since={first}"));
    assert_eq!(next_json(&mut socket)["data"], "second");

    let mut socket = open(&daemon, "/ch/news?since=1");
    let gap = next_json(&mut socket);
    assert_eq!(gap["gap"], true);
    let cursor: u64 = gap["cursor"].as_str().unwrap().parse().unwrap();
    let next = next_json(&mut socket);
    assert!(cursor < next["id"].as_u64().unwrap());
}

#[test]
fn answers_pings_and_closes_when_asked() {
    let daemon = Daemon::start("");
    let mut socket = open(&daemon, "/ch/news");
    socket
        .send(Message::text("nobody listens to this"))
        .unwrap();
    socket.send(Message::Ping("payload".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("payload".into()));
    socket.close(None).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Close(_)));
    assert!(matches!(
        socket.read(),
        Err(tungstenite::Error::ConnectionClosed)
    ));
}

#[test]
fn sends_signs_of_life() {
    let daemon = Daemon::start("[http]\nheartbeat = \"1s\"\n");
    let mut socket = open(&daemon, "/ch/news");
    assert_eq!(socket.read().unwrap(), Message::Ping("".into()));
    socket.flush().unwrap(); // the pong
    let id = daemon.publish("news", "still here");
    assert_eq!(next_json(&mut socket)["id"].as_u64(), Some(id));
}

#[test]
fn closes_with_going_away_when_the_daemon_stops() {
    let daemon = Daemon::start("");
    let mut socket = open(&daemon, "/ch/news");
    daemon.signal("TERM");
    let Message::Close(Some(frame)) = socket.read().unwrap() else {
        panic!("a close frame")
    };
    assert_eq!(u16::from(frame.code), 1001);
    let reason: serde_json::Value = serde_json::from_str(&frame.reason).unwrap();
    assert_eq!(reason, serde_json::json!({"retry": 500}));
}

#[test]
fn refuses_other_sites_and_broken_handshakes() {
    let daemon = Daemon::start("[http]\norigins = [\"https://example.org\"]\n");
    let from = |origin: &str| {
        let mut request = request(&daemon, "/ch/news");
        request
            .headers_mut()
            .insert("Origin", origin.parse().unwrap());
        connect(&daemon, request).map(drop)
    };
    assert_eq!(from("https://evil.example"), Err(403));
    assert_eq!(from("https://example.org"), Ok(()));
    assert_eq!(from(&format!("http://{}", daemon.addr())), Ok(()));

    let upgrade = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases = [
        (
            format!("{upgrade}{key}"),
            "Sec-WebSocket-Version must be 13",
        ),
        (
            format!("{upgrade}{key}Sec-WebSocket-Version: 8\r\n"),
            "Sec-WebSocket-Version must be 13",
        ),
        (
            format!("{upgrade}{version}"),
            "Sec-WebSocket-Key must be 16 bytes as base64",
        ),
        (
            format!("{upgrade}{version}Sec-WebSocket-Key: short\r\n"),
            "Sec-WebSocket-Key must be",
        ),
        (
            format!("{key}{version}"),
            "a WebSocket needs HTTP/1.1 with the headers",
        ),
    ];
    for (headers, message) in cases {
        let mut client = Http::connect(daemon.addr());
        client.send(format!(
            "GET /ch/news?as=websocket HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        ));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("sec-websocket-version")),
            (426, Some("13")),
            "{headers}"
        );
        assert_eq!(answer.json()["error"], "websocket");
        assert!(
            answer.json()["message"].as_str().unwrap().contains(message),
            "{}",
            answer.body
        );
        client.get("/healthz"); // the connection goes on
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn ends_a_connection_that_breaks_the_protocol() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/news", WEBSOCKET));
    // RFC 6455, section 1.3 has this pair.
    let answer = client.until("\r\n\r\n");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    client.send([0x81, 0x01, b'x']); // not masked
    assert_eq!(client.rest(), [0x88, 0x02, 0x03, 0xea]); // 1002
}

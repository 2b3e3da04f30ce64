//! HTTP/2 in cleartext, recognised by its preface: the same answers as HTTP/1.1, many of them on one connection.

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{
    daemon::{Daemon, Http, PATIENCE},
    wire::{data_of, is_sign_of_life, metric, wait_for_subscribers},
};

/// The client's side of one connection.
#[derive(Clone)]
pub(crate) struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    /// The authority (host) in its requests.
    authority: String,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Self {
            sender,
            authority: addr.to_string(),
            headers: Vec::new(),
        }
    }

    /// The same connection with another authority.
    pub(crate) fn asking(&self, authority: &str) -> Self {
        let mut client = self.clone();
        client.authority = authority.to_owned();
        client
    }

    /// The same connection with one more header on each request.
    pub(crate) fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name, value.to_owned()));
        client
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.authority));
        let with = |request: hyper::http::request::Builder, (name, value): &(&str, String)| {
            request.header(*name, value)
        };
        self.headers.iter().fold(request, with)
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.sender.clone().send_request(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response<Incoming> {
        self.send(self.request("GET", path).body(Full::default()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        self.send(
            self.request("POST", path)
                .body(Full::new(body.into()))
                .unwrap(),
        )
        .await
    }

    /// Sends a GET. Returns the status and the JSON of the complete answer.
    pub(crate) async fn json(&self, path: &str) -> (u16, Value) {
        json(self.get(path).await).await
    }
}

pub(crate) async fn json(response: Response<Incoming>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// Reads a complete body as text.
pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

/// Reads a stream up to this text.
pub(crate) async fn text_until(response: Response<Incoming>, end: &str) -> String {
    let (mut body, mut text) = (response.into_body(), String::new());
    while !text.contains(end) {
        text += &piece(&mut body).await.expect("the stream goes on");
    }
    text
}

/// The next piece of a stream as text. `None` after the last piece.
pub(crate) async fn piece(body: &mut Incoming) -> Option<String> {
    let frame = body.frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().into()).unwrap())
}

/// Runs a client on its own runtime. A client that waits too long fails the test.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, client)
            .await
            .expect("waited in vain")
    })
}

/// Waits for this many subscribers. Blocking requests on other connections ask the daemon.
pub(crate) async fn subscribers(daemon: &Daemon, count: u64) {
    while metric(daemon, "comet_subscribers") != count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn answers_as_http_1_does() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000\n");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        let (status, published) = json(client.post("/ch/a", "hi").await).await;
        assert_eq!((status, daemon.history("a").len()), (201, 1));
        let response = client.get("/ch/a?since=0").await;
        let cursor = published["id"].to_string();
        for (name, value) in [
            ("etag", &*format!("\"{cursor}\"")),
            ("content-type", "application/json"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        let (status, poll) = json(response).await;
        assert_eq!((status, data_of(&poll)), (200, vec!["hi".to_owned()]));
        assert_eq!(poll["cursor"], cursor);
        assert!(data_of(&client.json("/ch/a?wait=0").await.1).is_empty());

        for (path, status, code) in [
            ("/ch/..", 400, "channel"),
            ("/ch/a?since=x", 400, "since"),
            ("/nowhere", 404, "path"),
            (&format!("/ch/{}", "x".repeat(8200)), 414, "url"),
        ] {
            let (told, error) = client.json(path).await;
            assert_eq!(
                (told, error["error"].as_str()),
                (status, Some(code)),
                "{path}"
            );
        }
        let (status, error) = json(client.post("/ch/a", vec![b'x'; 1001]).await).await;
        assert_eq!((status, error["error"].as_str()), (413, Some("body")));
        let delete = client
            .request("DELETE", "/ch/a")
            .body(Full::default())
            .unwrap();
        assert_eq!(json(client.send(delete).await).await.0, 405);
        // All requests use one connection, beside the connection that reads the figures.
        assert_eq!(metric(&daemon, "comet_http_connections"), 2);
    });
}

#[test]
fn a_head_has_no_body() {
    let daemon = Daemon::start("");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        for path in [
            "/healthz",
            "/metrics",
            "/comet.js",
            "/ch/a",
            "/ch/a?as=sse",
            "/clock.php",
        ] {
            let head = client.request("HEAD", path).body(Full::default()).unwrap();
            let response = client.send(head).await;
            assert_eq!(response.status(), 200, "{path}");
            assert!(response.headers().contains_key("content-type"), "{path}");
            assert!(
                response
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .is_empty(),
                "{path}"
            );
        }
    });
}

#[test]
fn a_hundred_polls_wait_on_one_connection() {
    let daemon = Daemon::start("");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        let polls: Vec<_> = (0..100)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move { client.json(&format!("/ch/all,c{n}")).await })
            })
            .collect();
        subscribers(&daemon, 100).await;
        let ids: Vec<u64> = (0..50)
            .map(|n| daemon.publish(&format!("c{n}"), &n.to_string()))
            .collect();
        subscribers(&daemon, 50).await;
        daemon.publish("all", "all");
        for (n, poll) in polls.into_iter().enumerate() {
            let (status, poll) = poll.await.unwrap();
            let text = if n < 50 { n.to_string() } else { "all".into() };
            assert_eq!((status, data_of(&poll)), (200, vec![text]));
            if let Some(id) = ids.get(n) {
                assert_eq!(poll["messages"][0]["id"], *id);
            }
        }
        assert_eq!(metric(&daemon, "comet_http_connections"), 2);
    });
}

#[test]
fn a_stream_goes_on_beside_polls() {
    let daemon = Daemon::start("[http]\nheartbeat = \"200ms\"\n");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        let response = client.get("/ch/a?as=sse").await;
        assert_eq!(
            response.headers()["content-type"],
            "text/event-stream; charset=utf-8"
        );
        let mut stream = response.into_body();
        assert!(is_sign_of_life(&piece(&mut stream).await.unwrap()));
        for n in 0..20 {
            let id = daemon.publish("a", &n.to_string());
            loop {
                let event = piece(&mut stream).await.unwrap();
                if !is_sign_of_life(&event) {
                    assert!(event.starts_with(&format!("id: {id}\ndata: ")), "{event}");
                    break;
                }
            }
            assert_eq!(client.json("/ch/b?wait=0").await.0, 200);
        }
        let id = daemon.publish("quiet", "x");
        let sign = format!("id: {id}\nevent: cursor\n");
        while !piece(&mut stream).await.unwrap().starts_with(&sign) {}
        drop(stream);
        subscribers(&daemon, 0).await;
    });
}

#[test]
fn a_poll_that_is_given_up_leaves_nothing_behind() {
    let daemon = Daemon::start("");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        let polls: Vec<_> = (0..20)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.json("/ch/a").await })
            })
            .collect();
        subscribers(&daemon, 20).await;
        for poll in polls {
            poll.abort();
        }
        subscribers(&daemon, 0).await;
        assert_eq!(client.get("/healthz").await.status(), 200);
    });
}

#[test]
fn a_connection_that_breaks_leaves_nothing_behind() {
    let daemon = Daemon::start("");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        tokio::spawn(async move { client.json("/ch/a").await });
        subscribers(&daemon, 1).await;
    });
    // The runtime has ended, and the connection with it.
    wait_for_subscribers(&daemon, 0);
}

/// The client's window limits what the daemon buffers for it. No message is lost, and other streams continue.
#[test]
fn a_slow_stream_gets_all() {
    let daemon = Daemon::start("workers = 1\n[history]\nmessages = 1000\nbytes = 134217728\n");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        let mut slow = client.get("/ch/a?as=sse").await.into_body();
        assert!(is_sign_of_life(&piece(&mut slow).await.unwrap()));
        let text = "x".repeat(30_000);
        let ids: Vec<u64> = (0..100)
            .map(|n| daemon.publish("a", &format!("{n} {text}")))
            .collect();
        assert_eq!(daemon.get("/healthz").status, 200);
        let mut got = String::new();
        let last = format!("id: {}\n", ids[99]);
        while !got.contains(&last) || !got.ends_with("\n\n") {
            got += &piece(&mut slow).await.unwrap();
        }
        let told: Vec<u64> = got
            .lines()
            .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
            .collect();
        assert_eq!(told, ids);
    });
}

#[test]
fn a_stream_that_takes_nothing_is_cut() {
    let daemon = Daemon::start("[http]\nwrite_time = \"300ms\"\n");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        let slow = client.get("/ch/a?as=sse").await;
        subscribers(&daemon, 1).await;
        let text = "x".repeat(100_000);
        while metric(&daemon, "comet_subscribers") > 0 {
            daemon.publish("a", &text);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The connection continues with its other streams.
        assert_eq!(client.json("/ch/b?wait=0").await.0, 200);
        drop(slow);
    });
}

#[test]
fn old_clients_and_origins_are_served_too() {
    let daemon = Daemon::start("[http]\norigins = [\"https://a.example\"]\n");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        daemon.publish("a", "x");
        let request = client
            .request("GET", "/comet.php?subscribed[a]=1")
            .header("origin", "https://a.example");
        let response = client.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(
            response.headers()["access-control-allow-origin"],
            "https://a.example"
        );
        assert_eq!(json(response).await.1["s"], 1);
    });
}

/// To the page of the zeitoun chat every answer is a message, so a gap has to wait for one.
#[test]
fn a_gap_without_a_message_is_told_with_the_next() {
    let daemon = Daemon::start("");
    run(async {
        let client = Client::connect(daemon.addr()).await;
        let poll =
            tokio::spawn(async move { client.json("/chat.php?timestamp=1700000000000000").await });
        subscribers(&daemon, 1).await;
        daemon.publish("chat", "first");
        let (status, answer) = poll.await.unwrap();
        assert_eq!(status, 200);
        assert_eq!(
            (&answer["gap"], &answer["msg"]),
            (&true.into(), &"first".into())
        );
    });
}

/// An error after the preface is answered in HTTP/2 by a GOAWAY. No other connection is disturbed.
#[test]
fn garbage_behind_the_preface_ends_the_connection() {
    let daemon = Daemon::start("");
    for garbage in [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" as &[u8],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" as &[u8], garbage].concat());
        client.rest(); // SETTINGS and GOAWAY, then the end
    }
    // The preface may arrive byte by byte, like any other request.
    let mut client = Http::connect(daemon.addr());
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send([*byte]);
    }
    client.send(b"\0\0\0\x04\0\0\0\0\0"); // SETTINGS
    let mut header = [0; 9];
    std::io::Read::read_exact(&mut client.stream, &mut header).unwrap();
    assert_eq!(header[3], 4, "SETTINGS come back");
    assert_eq!(daemon.get("/healthz").status, 200);
}

/// curl drops an answer that arrives together with the reset of its stream.
#[test]
fn curl_reads_the_answer_to_a_body_that_is_not_read() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000");
    let body = daemon.dir().join("body");
    std::fs::write(&body, vec![b'x'; 3_000_000]).unwrap();
    for (method, path, status) in [
        ("POST", "/ch/a", "413"),
        ("PUT", "/ch/a", "405"),
        ("POST", "/healthz", "405"),
        ("DELETE", "/nowhere", "404"),
    ] {
        let output = std::process::Command::new("curl")
            .args([
                "-s",
                "--http2-prior-knowledge",
                "-w",
                "%{http_code}",
                "-o",
                "/dev/null",
            ])
            .args(["-X", method, "--data-binary"])
            .arg(format!("@{}", body.display()))
            .arg(format!("http://{}{path}", daemon.addr()))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(told, status, "{method} {path}");
    }
}

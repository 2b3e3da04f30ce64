//! nchan's subscriber, and the deletion of channels, requested as curl and browsers do.

use std::{net::TcpStream, sync::Arc};

use tungstenite::{
    Message, WebSocket,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    daemon::{Answer, Daemon, Http, PATIENCE},
    wire::{ask, get, parked, post, wait_for_subscribers},
};

pub(crate) const NCHAN: &str =
    "[http]\npublish = true\norigins = [\"https://shop.example\"]\n[compat.nchan]\n";

pub(crate) const PLAIN: &str = "Content-Type: text/plain\r\n";

pub(crate) fn start() -> Daemon {
    Daemon::start(NCHAN)
}

pub(crate) fn publish(daemon: &Daemon, channel: &str, data: &str) -> Answer {
    ask(
        daemon,
        post(&format!("/nchan/pub/{channel}"), PLAIN, data.as_bytes()),
    )
}

/// A request of the publisher without a body.
pub(crate) fn publisher(daemon: &Daemon, method: &str, headers: &str) -> Answer {
    let request = get("/nchan/pub/a", headers).replacen("GET", method, 1);
    ask(daemon, request)
}

/// The headers with which a client asks for what follows this answer.
pub(crate) fn after(answer: &Answer) -> String {
    let date = answer.header("last-modified").unwrap();
    let tag = answer.header("etag").unwrap();
    format!("If-Modified-Since: {date}\r\nIf-None-Match: {tag}\r\n")
}

/// The message's id as an event stream has it.
pub(crate) fn pair(answer: &Answer) -> String {
    let date = httpdate::parse_http_date(answer.header("last-modified").unwrap()).unwrap();
    let since_1970 = date.duration_since(std::time::UNIX_EPOCH).unwrap();
    let tag = answer.header("etag").unwrap();
    format!("{}:{tag}", since_1970.as_secs())
}

/// The next messages of a poll that starts with these headers.
fn poll_all(daemon: &Daemon, path: &str, mut headers: String, count: usize) -> Vec<String> {
    let mut client = Http::connect(daemon.addr());
    (0..count)
        .map(|_| {
            client.send(get(path, &headers));
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{}", answer.head);
            headers = after(&answer);
            answer.body
        })
        .collect()
}

/// A client of an event stream.
struct Events {
    client: Http,
    text: String,
}

impl Events {
    fn open(daemon: &Daemon, path: &str, headers: &str) -> Self {
        let mut client = Http::connect(daemon.addr());
        client.send(get(
            path,
            &format!("Accept: text/event-stream\r\n{headers}"),
        ));
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("\r\ncontent-type: text/event-stream; charset=utf-8\r\n"));
        let text = String::new();
        let mut events = Self { client, text };
        assert_eq!(events.next().unwrap(), ": hi");
        events
    }

    /// The next event or comment. `None`: the stream has ended.
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                return Some(event);
            }
            self.text += &self.client.chunk()?;
        }
    }
}

fn websocket(daemon: &Daemon, path: &str, protocol: Option<&str>) -> WebSocket<TcpStream> {
    let url = format!("ws://{}{path}", daemon.addr());
    let mut request = url.into_client_request().unwrap();
    if let Some(protocol) = protocol {
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    }
    let stream = TcpStream::connect(daemon.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (socket, answer) = tungstenite::client(request, stream).unwrap();
    let chosen = answer.headers().get("Sec-WebSocket-Protocol");
    assert_eq!(chosen.map(|value| value.to_str().unwrap()), protocol);
    socket
}

#[test]
fn a_poll_gets_one_message_and_then_the_next() {
    let daemon = start();
    for data in ["one", "two"] {
        publish(&daemon, "a", data);
    }
    let first = ask(&daemon, get("/nchan/sub/a", ""));
    assert_eq!((first.status, &*first.body), (200, "one"));
    assert_eq!(first.header("content-type"), Some("text/plain"));
    let vary = "If-None-Match, If-Modified-Since";
    assert!(
        first.head.contains(&format!("vary: {vary}\r\n")),
        "{}",
        first.head
    );
    assert_eq!(
        first.header("cache-control"),
        Some("no-store, no-transform")
    );
    let second = ask(&daemon, get("/nchan/sub/a", &after(&first)));
    assert_eq!(&*second.body, "two");
    let mut third = parked(&daemon, get("/nchan/sub/a", &after(&second)));
    publish(&daemon, "a", "three");
    assert_eq!(third.answer().body, "three");
}

#[test]
fn a_tag_may_come_back_quoted_or_weak() {
    let daemon = start();
    for data in ["one", "two"] {
        publish(&daemon, "a", data);
    }
    let first = ask(&daemon, get("/nchan/sub/a", ""));
    let (date, tag) = (
        first.header("last-modified").unwrap(),
        first.header("etag").unwrap(),
    );
    for tag in [
        tag.to_owned(),
        format!("\"{tag}\""),
        format!("W/\"{tag}\""),
        format!("W/\"{tag}-gzip\""),
        format!("[{tag}],-"),
    ] {
        let headers = format!("If-Modified-Since: {date}\r\nIf-None-Match: {tag}\r\n");
        assert_eq!(
            ask(&daemon, get("/nchan/sub/a", &headers)).body,
            "two",
            "{tag}"
        );
    }
    let headers = format!("If-Modified-Since: {date}\r\n");
    let refused = ask(&daemon, get("/nchan/sub/a", &headers));
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.starts_with("Message ID invalid"),
        "{}",
        refused.body
    );
    for malformed in [
        "If-Modified-Since: yesterday\r\nIf-None-Match: 0\r\n",
        "Last-Event-ID: x\r\n",
    ] {
        assert_eq!(
            ask(&daemon, get("/nchan/sub/a", malformed)).body,
            "one",
            "{malformed}"
        );
    }
}

#[test]
fn a_wait_ends_with_408_and_an_interval_poll_with_304() {
    let daemon = Daemon::start(&format!("{NCHAN}timeout = \"1s\""));
    let answer = ask(&daemon, get("/nchan/sub/a", ""));
    assert_eq!((answer.status, &*answer.body), (408, ""));
    let daemon = Daemon::start(&format!("{NCHAN}interval_poll = true"));
    let answer = ask(&daemon, get("/nchan/sub/a", "Connection: close\r\n"));
    assert_eq!((answer.status, &*answer.body), (304, ""));
    assert_eq!(answer.header("content-length"), None);
    publish(&daemon, "a", "one");
    assert_eq!(ask(&daemon, get("/nchan/sub/a", "")).body, "one");
}

#[test]
fn a_listed_origin_may_read_the_cursor() {
    let daemon = start();
    publish(&daemon, "a", "one");
    let answer = ask(
        &daemon,
        get("/nchan/sub/a", "Origin: https://shop.example\r\n"),
    );
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    let exposed = "access-control-expose-headers: Last-Modified, Etag, Content-Type\r\n";
    assert!(answer.head.contains(exposed), "{}", answer.head);
    let other = ask(
        &daemon,
        get("/nchan/sub/a", "Origin: https://other.example\r\n"),
    );
    assert_eq!(other.header("access-control-allow-origin"), None);

    let asks = "Origin: https://shop.example\r\nAccess-Control-Request-Method: GET\r\n\
        Access-Control-Request-Headers: etag,if-modified-since,if-none-match\r\n";
    for (path, methods) in [
        ("/nchan/pub/a", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("/nchan/sub/a", "GET, HEAD, OPTIONS"),
    ] {
        let answer = ask(&daemon, get(path, asks).replacen("GET", "OPTIONS", 1));
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some(methods))
        );
        let allowed = answer.header("access-control-allow-headers");
        assert_eq!(allowed, Some("etag,if-modified-since,if-none-match"));
    }
    let answer = ask(&daemon, post("/nchan/sub/a", "", b"x"));
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
}

#[test]
fn an_event_stream_has_all_messages_with_their_ids_and_types() {
    let daemon = start();
    let typed = format!("{PLAIN}X-EventSource-Event: ev1\r\n");
    ask(&daemon, post("/nchan/pub/a", &typed, b"one"));
    publish(&daemon, "a", "two\nthree\r\nfour\rid: 5");
    let first = ask(&daemon, get("/nchan/sub/a", ""));
    let second = ask(&daemon, get("/nchan/sub/a", &after(&first)));
    let mut events = Events::open(&daemon, "/nchan/sub/a", "");
    let expected = format!("event: ev1\nid: {}\ndata: one", pair(&first));
    assert_eq!(events.next(), Some(expected));
    let lines = "data: two\ndata: three\ndata: four\ndata: id: 5";
    let expected = format!("id: {}\n{lines}", pair(&second));
    assert_eq!(events.next(), Some(expected));
    wait_for_subscribers(&daemon, 1);
    assert_eq!(publish(&daemon, "a", "").status, 201);
    assert!(events.next().unwrap().ends_with("\ndata: "));
}

#[test]
fn a_subscriber_resumes_by_its_last_event_id() {
    let daemon = start();
    for data in ["one", "two", "three"] {
        publish(&daemon, "a", data);
    }
    let first = ask(&daemon, get("/nchan/sub/a", ""));
    let id = pair(&first);
    let escaped = id.replace(':', "%3A");
    let header = format!("Last-Event-ID: {id}\r\n");
    for (path, headers) in [
        ("/nchan/sub/a".to_owned(), &*header),
        (format!("/nchan/sub/a?last_event_id={id}"), ""),
        (format!("/nchan/sub/a?last_event_id={escaped}"), ""),
    ] {
        assert_eq!(ask(&daemon, get(&path, headers)).body, "two");
        let mut events = Events::open(&daemon, &path, headers);
        assert!(events.next().unwrap().ends_with("data: two"));
        assert!(events.next().unwrap().ends_with("data: three"));
    }
}

#[test]
fn deleting_a_channel_ends_its_subscribers() {
    let daemon = start();
    assert_eq!(publisher(&daemon, "DELETE", "").status, 404);
    let mut poll = parked(&daemon, get("/nchan/sub/a", ""));
    let mut two = parked(&daemon, get("/nchan/sub/b,a", ""));
    let mut events = Events::open(&daemon, "/nchan/sub/a", "");
    let mut socket = websocket(&daemon, "/nchan/sub/a", None);
    wait_for_subscribers(&daemon, 4);
    let mut own = parked(&daemon, get("/ch/a", ""));
    let answer = publisher(&daemon, "DELETE", "Accept: text/json\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["subscribers"], 5);
    for poll in [&mut poll, &mut two] {
        let answer = poll.answer();
        assert_eq!((answer.status, &*answer.body), (410, ""));
    }
    assert_eq!(events.next().as_deref(), Some(":410: 410 Gone"));
    assert_eq!(events.next(), None);
    let close = CloseFrame {
        code: CloseCode::Away,
        reason: "410 Gone".into(),
    };
    assert_eq!(socket.read().unwrap(), Message::Close(Some(close)));
    // Comet's own subscribers have no word for a deleted channel, and go on.
    wait_for_subscribers(&daemon, 1);
    publish(&daemon, "a", "new");
    assert!(own.answer().body.contains("new"));
    assert_eq!(publisher(&daemon, "DELETE", "").status, 200);
    assert_eq!(publisher(&daemon, "DELETE", "").status, 404);
    assert_eq!(publisher(&daemon, "GET", "").status, 404);
}

#[test]
fn several_channels_come_in_order_of_time() {
    let daemon = start();
    for (channel, data) in [("a", "one"), ("b", "two"), ("a", "three"), ("b", "four")] {
        publish(&daemon, channel, data);
    }
    let all = poll_all(&daemon, "/nchan/sub/a,b", String::new(), 4);
    assert_eq!(all, ["one", "two", "three", "four"]);
    let many: Vec<String> = (0..101).map(|n| format!("c{n}")).collect();
    let path = format!("/nchan/sub/{}", many.join(","));
    assert_eq!(ask(&daemon, get(&path, "")).status, 400);
}

#[test]
fn a_websocket_has_one_message_a_frame() {
    let daemon = start();
    publish(&daemon, "a", "one");
    let id = pair(&ask(&daemon, get("/nchan/sub/a", "")));
    let mut plain = websocket(&daemon, "/nchan/sub/a", None);
    assert_eq!(plain.read().unwrap(), Message::text("one"));
    let mut meta = websocket(&daemon, "/nchan/sub/a", Some("ws+meta.nchan"));
    let expected = format!("id: {id}\ncontent-type: text/plain\n\none");
    assert_eq!(meta.read().unwrap(), Message::text(expected));
    wait_for_subscribers(&daemon, 2);
    let binary = "Content-Type: application/octet-stream\r\n";
    assert_eq!(
        ask(&daemon, post("/nchan/pub/a", binary, b"two")).status,
        201
    );
    assert_eq!(plain.read().unwrap(), Message::binary(&b"two"[..]));
    let Message::Binary(frame) = meta.read().unwrap() else {
        panic!("no binary frame");
    };
    assert!(frame.ends_with(b"\ncontent-type: application/octet-stream\n\ntwo"));
    let mut resumed = websocket(&daemon, &format!("/nchan/sub/a?last_event_id={id}"), None);
    assert_eq!(resumed.read().unwrap(), Message::binary(&b"two"[..]));
    // Bytes that are no text are binary, whatever their type is.
    assert_eq!(
        ask(&daemon, post("/nchan/pub/a", PLAIN, b"\xff")).status,
        201
    );
    assert_eq!(plain.read().unwrap(), Message::binary(&b"\xff"[..]));
}

#[test]
fn a_media_type_of_the_socket_cannot_break_an_answer() {
    let daemon = start();
    let line = r#"{"op":"publish","channel":"a","data":"<b>","attributes":{"content-type":"text/html\r\nx: y"}}"#;
    let reply = crate::daemon::Lines::connect(&daemon.socket_path()).ask(line);
    assert_eq!(reply["ok"], true, "{reply}");
    let answer = ask(&daemon, get("/nchan/sub/a", ""));
    assert_eq!((&*answer.body, answer.header("x")), ("<b>", None));
    assert_eq!(answer.header("content-type"), None);
    let mut meta = websocket(&daemon, "/nchan/sub/a", Some("ws+meta.nchan"));
    let Message::Text(frame) = meta.read().unwrap() else {
        panic!("no text");
    };
    assert!(
        frame.ends_with("\n\n<b>") && !frame.contains("x: y"),
        "{frame}"
    );

    // A browser that opens the URL runs no script of the message.
    ask(
        &daemon,
        post(
            "/nchan/pub/html",
            "Content-Type: text/html\r\n",
            b"<script>",
        ),
    );
    let answer = ask(&daemon, get("/nchan/sub/html", ""));
    assert_eq!(answer.header("content-type"), Some("text/html"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("sandbox;"), "{policy}");
}

#[test]
fn transports_that_are_left_out_are_refused() {
    let daemon = start();
    publish(&daemon, "a", "x");
    for headers in [
        "Accept: multipart/mixed; q=1\r\n",
        "TE: chunked\r\nConnection: TE\r\n",
    ] {
        let answer = ask(&daemon, get("/nchan/sub/a", headers));
        assert_eq!(answer.status, 406, "{}", answer.head);
        assert!(answer.body.contains("use long-poll"), "{}", answer.body);
    }
    assert_eq!(
        ask(&daemon, get("/nchan/sub/a", "TE: trailers\r\n")).body,
        "x"
    );
}

/// The daemon is killed, so it cannot write anything at its end.
#[test]
fn a_cursor_from_before_a_restart_gives_what_follows() {
    let daemon = Daemon::start(NCHAN);
    for data in ["one", "two", "three"] {
        assert_eq!(publish(&daemon, "a", data).status, 202);
    }
    let first = ask(&daemon, get("/nchan/sub/a", ""));
    let root = kill(daemon);
    let daemon = Daemon::start_in(root, NCHAN, &[]);
    publish(&daemon, "a", "four");
    let rest = poll_all(&daemon, "/nchan/sub/a", after(&first), 3);
    assert_eq!(rest, ["two", "three", "four"]);
    let again = ask(&daemon, get("/nchan/sub/a", ""));
    assert_eq!(again.header("content-type"), Some("text/plain"));
    assert_eq!(pair(&again), pair(&first));

    // What was deleted stays deleted.
    assert_eq!(publisher(&daemon, "DELETE", "").status, 200);
    let root = kill(daemon);
    let daemon = Daemon::start_in(root, NCHAN, &[]);
    assert_eq!(publisher(&daemon, "GET", "").status, 404);
}

pub(crate) fn kill(daemon: Daemon) -> Arc<tempfile::TempDir> {
    let root = daemon.root();
    daemon.signal("KILL");
    drop(daemon); // waits for its end
    root
}

#[test]
fn http2_has_the_same_answers() {
    let daemon = Daemon::start(&format!("{NCHAN}timeout = \"1s\""));
    publish(&daemon, "a", "one");
    let url = |path: &str| format!("http://{}{path}", daemon.addr());
    let curl = |arguments: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "-m", "30", "--http2-prior-knowledge", "-D", "-"]);
        let output = curl.args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = curl(&[&url("/nchan/sub/a")]);
    assert!(
        answer.starts_with("HTTP/2 200") && answer.ends_with("\r\n\r\none"),
        "{answer}"
    );
    for header in ["content-type: text/plain", "last-modified: ", "etag: "] {
        assert!(answer.contains(&format!("\r\n{header}")), "{answer}");
    }
    assert!(curl(&[&url("/nchan/sub/none")]).starts_with("HTTP/2 408"));
    let answer = curl(&["-d", "two", &url("/nchan/pub/a")]);
    assert!(answer.starts_with("HTTP/2 202"), "{answer}");
    let form = ask(
        &daemon,
        get(
            "/nchan/sub/a",
            &after(&ask(&daemon, get("/nchan/sub/a", ""))),
        ),
    );
    assert_eq!(
        form.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let waiting = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| curl(&["-H", "Accept: text/event-stream", &url("/nchan/sub/b")]));
        wait_for_subscribers(&daemon, 1);
        let delete = get("/nchan/pub/b", "").replacen("GET", "DELETE", 1);
        assert_eq!(ask(&daemon, delete).status, 200);
        waiting.join().unwrap()
    });
    assert!(waiting.ends_with(": hi\n\n:410: 410 Gone\n\n"), "{waiting}");
}

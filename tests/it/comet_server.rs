//! The pages' half of comet-server.ru's protocol, with exact frames.

use std::{
    fs::File,
    net::TcpStream,
    process::{Command, Stdio},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use tungstenite::{
    Error, Message, WebSocket, client::IntoClientRequest, error::ProtocolError, http::HeaderValue,
};

use crate::{
    daemon::{Daemon, Http, PATIENCE, directory, wait_for},
    wire::{WEBSOCKET, get, metric},
};

pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The settings of both halves, and `more` in the same table.
pub(crate) fn settings(more: &str) -> String {
    format!("[compat.comet_server]\nsql = \"127.0.0.1:0\"\nkey = \"{KEY}\"\n{more}\n")
}

pub(crate) fn start() -> Daemon {
    Daemon::start(&settings(""))
}

/// Runs a statement of CometQL, as a user's PHP would.
pub(crate) fn sql(daemon: &Daemon, statement: &str) -> String {
    let address = daemon.port("cometql");
    let mut command = Command::new("mariadb");
    command
        .args(["--no-defaults", "--protocol=tcp", "-u15", "-NBe", statement])
        .arg(format!("-h{}", address.ip()))
        .arg(format!("-P{}", address.port()))
        .arg(format!("-p{KEY}"))
        .arg("CometQL_v1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{statement}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A page, as the script in it talks.
pub(crate) struct Page(WebSocket<TcpStream>);

impl Page {
    /// Connects with this version of the script, user and key. Returns the first message, too.
    pub(crate) fn open(daemon: &Daemon, version: &str, user: &str, key: &str) -> (Self, String) {
        let path = format!("/ws/sesion={key}&myid={user}&devid=15&v={version}&uuid=u{user}&api=js");
        let mut page = Self::connect(daemon, &path, None);
        let first = page.next();
        (page, first)
    }

    pub(crate) fn anonymous(daemon: &Daemon) -> Self {
        Self::open(daemon, "4.08", "undefined", "undefined").0
    }

    pub(crate) fn user(daemon: &Daemon, user: u32) -> Self {
        let key = format!("hash{user}");
        let (page, first) = Self::open(daemon, "4.08", &user.to_string(), &key);
        assert!(first.starts_with(r#"{"authorized":true,"#), "{first}");
        page
    }

    fn connect(daemon: &Daemon, path: &str, origin: Option<&str>) -> Self {
        let mut request = format!("ws://{}{path}", daemon.addr())
            .into_client_request()
            .unwrap();
        if let Some(origin) = origin {
            let value = HeaderValue::from_str(origin).unwrap();
            request.headers_mut().insert("Origin", value);
        }
        let stream = TcpStream::connect(daemon.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(tungstenite::client(request, stream).unwrap().0)
    }

    pub(crate) fn send(&mut self, command: &str) {
        self.0.send(Message::text(command)).unwrap();
    }

    /// The next text frame, with 0 for the time.
    pub(crate) fn next(&mut self) -> String {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return without_time(&text),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a command, and returns the next frame.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.next()
    }

    /// Subscribes, and waits until the daemon has read the command.
    pub(crate) fn subscribe(&mut self, pipes: &str) {
        self.send(&format!("subscription\n{pipes}"));
        self.settle();
    }

    /// Waits until the daemon has read all commands so far. No other message may come meanwhile.
    pub(crate) fn settle(&mut self) {
        let status = self.ask("user_status\n999");
        assert!(status.contains("user_status_999"), "{status}");
    }

    /// The data of the next message.
    pub(crate) fn data(&mut self) -> Value {
        self.json()["data"].clone()
    }

    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.next()).unwrap()
    }

    /// Checks that the connection ends without a close frame, as the script needs it to connect again.
    pub(crate) fn ends_unclean(&mut self) {
        let end = loop {
            match self.0.read() {
                Ok(Message::Ping(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        let unclean = matches!(
            end,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_)
        );
        assert!(unclean, "{end:?}");
    }
}

/// A frame with 0 as the time, which is checked.
fn without_time(frame: &str) -> String {
    let name = "\"message_send_time\":";
    let start = frame.find(name).expect("a time") + name.len();
    let digits = frame[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
    let time: u64 = frame[start..start + digits].parse().unwrap();
    assert!(now().abs_diff(time) < 3600, "{frame}");
    format!("{}0{}", &frame[..start], &frame[start + digits..])
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn token(user: u32) -> String {
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let claims = json!({"user_id": user, "exp": now() + 600}).to_string();
    let header = br#"{"alg":"HS256","typ":"JWT"}"#;
    let signed = format!("{}.{}", encode(header), encode(claims.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{KEY}15").as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_ref()))
}

fn set_hash(daemon: &Daemon, user: u32) {
    sql(
        daemon,
        &format!("INSERT INTO users_auth (id, hash) VALUES ({user}, 'hash{user}')"),
    );
}

#[test]
fn a_page_is_told_whether_its_user_is_known() {
    let daemon = start();
    set_hash(&daemon, 5);
    let info = |version: &str, user: &str, key: &str| Page::open(&daemon, version, user, key).1;
    assert_eq!(
        info("4.08", "undefined", "undefined"),
        r#"{"authorized":false,"data":"","event":"serverInfo","message_send_time":0,"pipe":"sys","server":"comet"}"#
    );
    assert_eq!(
        info("3.25", "null", "null"),
        r#"{"api_data":"for scripts older than version 4","authorized":"false","data":"","event":"serverInfo","event_name":"serverInfo","message_send_time":0,"pipe":"sys","server":"comet"}"#
    );
    let known = r#"{"authorized":true,"data":"hash5","event":"serverInfo","message_send_time":0,"pipe":"sys","server":"comet"}"#;
    assert_eq!(info("4.08", "5", "hash5"), known);
    assert_eq!(info("4.09", "5", &token(5)), known);
    assert!(info("3.25", "5", "hash5").contains(r#""authorized":"true","#));
    for (user, key) in [("5", "hash6"), ("6", "hash5"), ("5", ""), ("6", &token(5))] {
        assert!(info("4.08", user, key).contains(r#""authorized":false,"#));
    }
    // A user who has only a token gets a key.
    let first: Value = serde_json::from_str(&info("4.08", "7", &token(7))).unwrap();
    let key = first["data"].as_str().unwrap();
    assert_eq!(key.len(), 32);
    assert!(info("4.08", "7", key).contains(r#""authorized":true,"#));
    sql(
        &daemon,
        &format!("INSERT INTO revoked_tokens (token) VALUES ('{}')", token(7)),
    );
    assert!(!daemon.log().contains(key) && !daemon.log().contains("hash5"));
}

#[test]
fn an_url_without_a_field_is_answered_inside_the_websocket() {
    let daemon = start();
    let cases = [
        (
            "sesion=x&devid=1&v=4.0",
            401,
            "the user ID can not be found",
        ),
        ("sesion=x&myid=1&v=4.0", 406, "no public key found"),
        (
            "sesion=x&myid=1&devid=1",
            418,
            "Not assigned client api version",
        ),
    ];
    for (fields, code, why) in cases {
        let mut page = Page::connect(&daemon, &format!("/ws/{fields}"), None);
        let error = page.json();
        assert_eq!(
            (&error["event"], &error["pipe"]),
            (&json!("error"), &json!("sys"))
        );
        assert_eq!(error["data"]["error_code"], code);
        assert!(
            error["data"]["error"].as_str().unwrap().contains(why),
            "{error}"
        );
        page.ends_unclean();
    }
}

#[test]
fn pages_of_other_hosts_need_a_listed_origin() {
    let daemon = Daemon::start(&format!(
        "[http]\norigins = [\"http://good.example\"]\n{}",
        settings("")
    ));
    let path = "/ws/sesion=x&myid=0&devid=1&v=4.08&uuid=u&api=js";
    let own = format!("http://{}", daemon.addr());
    for origin in [&own, "http://good.example"] {
        let mut page = Page::connect(&daemon, path, Some(origin));
        assert!(page.next().contains("serverInfo"));
    }
    for origin in ["http://good.example.evil.test", "http://evil.test", "null"] {
        let mut page = Page::connect(&daemon, path, Some(origin));
        let error = page.json();
        assert_eq!(error["data"]["error_code"], 423, "{error}");
        page.ends_unclean();
    }
}

#[test]
fn pages_connect_below_the_configured_path() {
    let daemon = start();
    let fields = "sesion=x&myid=0&devid=1&v=4.08&uuid=u&api=js";
    for prefix in ["/ws/", "//ws/", "/comet-server/ws/", "//comet-server/ws/"] {
        let mut page = Page::connect(&daemon, &format!("{prefix}{fields}"), None);
        assert!(page.next().contains("serverInfo"), "{prefix}");
    }
    let status = daemon.get("/info");
    assert_eq!(status.body, r#"{"status":"ok","node":"comet"}"#);
    assert!(
        daemon
            .get("/CometServerApi.js")
            .body
            .contains("window.cometApi")
    );
    let offered = format!("{WEBSOCKET}Sec-WebSocket-Protocol: chat\r\n");
    let mut client = Http::connect(daemon.addr());
    client.send(get(&format!("/ws/{fields}"), &offered));
    let head = client.until("\r\n\r\n").to_lowercase();
    assert!(
        head.contains("\r\nsec-websocket-protocol: chat\r\n"),
        "{head}"
    );
    assert_eq!(daemon.get(&format!("/ws/{fields}")).status, 426);
    assert_eq!(daemon.get("/ws/other").status, 404);

    let daemon = Daemon::start(&settings("path = \"/chat\""));
    for prefix in ["/chat/ws/", "/chat//ws/"] {
        let mut page = Page::connect(&daemon, &format!("{prefix}{fields}"), None);
        assert!(page.next().contains("serverInfo"), "{prefix}");
    }
    assert_eq!(daemon.get("/chat/info").status, 200);
    for off in ["/info", "/CometServerApi.js", &format!("/ws/{fields}")] {
        assert_eq!(daemon.get(off).status, 404, "{off}");
    }
    let daemon = Daemon::start(&settings("path = \"\""));
    assert_eq!(daemon.get("/CometServerApi.js").status, 404);
}

#[test]
fn messages_of_a_channel_arrive_in_the_pipe_of_the_same_name() {
    let daemon = start();
    let mut page = Page::anonymous(&daemon);
    page.subscribe("SimplePhpChat\nweb_x");
    daemon.publish("SimplePhpChat", "hi");
    assert_eq!(
        page.next(),
        r#"{"data":"hi","event":"","message_send_time":0,"pipe":"SimplePhpChat"}"#
    );
    File::create(daemon.dir().join("web_x.comet")).unwrap();
    assert_eq!(
        page.next(),
        r#"{"data":"","event":"","message_send_time":0,"pipe":"web_x"}"#
    );
    let insert = "INSERT INTO pipes_messages (name, event, message) VALUES";
    sql(
        &daemon,
        &format!(r#"{insert} ('web_x', 'e', '{{"a":"it\'s"}}')"#),
    );
    assert_eq!(
        page.next(),
        r#"{"data":"{\"a\":\"it\u0027s\"}","event":"e","message_send_time":0,"pipe":"web_x"}"#
    );
    let (mut old, _) = Page::open(&daemon, "3.25", "null", "null");
    old.subscribe("web_x");
    sql(&daemon, &format!("{insert} ('web_x', 'e', 'x')"));
    assert_eq!(
        old.next(),
        r#"{"api_data":"for scripts older than version 4","data":"x","event":"e","event_name":"e","message_send_time":0,"pipe":"web_x"}"#
    );
}

#[test]
fn a_new_list_of_pipes_loses_nothing_of_the_pipes_that_stay() {
    let daemon = start();
    let mut page = Page::anonymous(&daemon);
    page.subscribe("stays\nleaves");
    for number in 0..50 {
        page.send(&format!("subscription\nstays\nother{number}\nstays"));
        daemon.publish("stays", &number.to_string());
    }
    for number in 0..50 {
        assert_eq!(page.data(), number.to_string());
    }
    page.settle();
    daemon.publish("leaves", "unheard");
    daemon.publish("other49", "heard");
    assert_eq!(page.data(), "heard");
    page.subscribe("");
    daemon.publish("stays", "unheard");
    page.settle();
}

#[test]
fn a_list_has_32_pipes_and_hides_private_ones_from_anonymous_pages() {
    let daemon = start();
    set_hash(&daemon, 5);
    let mut page = Page::anonymous(&daemon);
    let names: Vec<String> = (0..40).map(|number| format!("pipe{number:02}")).collect();
    assert_eq!(
        page.ask(&format!("subscription\n{}", names.join("\n"))),
        r#"{"data":{"code":"403","error":"Too many letters"},"event":"error","message_send_time":0,"pipe":"sys"}"#
    );
    for (pipe, data) in [("pipe39", "unheard"), ("pipe31", "heard")] {
        daemon.publish(pipe, data);
    }
    assert_eq!(page.data(), "heard");
    let mut user = Page::user(&daemon, 5);
    for page in [&mut page, &mut user] {
        page.subscribe("private_x\nafter");
    }
    daemon.publish("private_x", "private");
    daemon.publish("after", "after");
    assert_eq!(page.data(), "after");
    assert_eq!(
        (user.data(), user.data()),
        (json!("private"), json!("after"))
    );
    let long = "x".repeat(65);
    assert_eq!(
        page.ask(&format!("subscription\n{long}\nafter")),
        r#"{"data":{"error":"Invalid channel name.","number_messages":-1},"event":"error","message_send_time":0,"pipe":"sys"}"#
    );
}

#[test]
fn a_page_publishes_to_the_others_and_gets_a_report() {
    let daemon = start();
    set_hash(&daemon, 5);
    let (mut sender, mut other) = (Page::user(&daemon, 5), Page::anonymous(&daemon));
    for page in [&mut sender, &mut other] {
        page.subscribe("web_x");
    }
    assert_eq!(
        sender.ask("web_pipe2\nweb_x\nevt\n*\n{\"a\":\"it's\"}"),
        r#"{"data":{"message":"{\"a\":\"it\u0027s\"}","number_messages":1},"event":"answer","message_send_time":0,"pipe":"_answer_to_web_x"}"#
    );
    assert_eq!(
        other.next(),
        r#"{"data":"{\"a\":\"it\u0027s\"}","event":"evt","message_send_time":0,"pipe":"web_x","user_id":5}"#
    );
    sender.ask("web_pipe2\n@web_x\n\n*\n1");
    assert_eq!(
        other.next(),
        r#"{"data":"1","event":"","message_send_time":0,"pipe":"web_x"}"#
    );
    // The sender gets what the others publish, and nothing of its own.
    other.ask("web_pipe2\nweb_x\nevt\n*\n\"back\"");
    assert_eq!(sender.data(), "\"back\"");
    sender.settle();
    // A channel to which a page publishes has the message for all other clients, too.
    assert_eq!(daemon.history("web_x").len(), 3);

    let error = |reply: String| {
        let reply: Value = serde_json::from_str(&reply).unwrap();
        reply["data"]["error"].as_str().unwrap().to_owned()
    };
    let refused = error(other.ask("web_pipe2\nnews\ne\n*\n1"));
    assert_eq!(
        refused,
        "[pipe_msg2] Invalid channel name. The channel should begin with web_"
    );
    let refused = error(other.ask("web_pipe2\nwebauth_x\ne\n*\n1"));
    assert!(refused.starts_with("[webauth_pipe_msg2] Invalid user auth."));
    assert!(
        sender
            .ask("web_pipe2\nwebauth_x\ne\n*\n1")
            .contains("_answer_to_webauth_x")
    );
    assert!(daemon.history("news").is_empty());
}

#[test]
fn rules_of_channels_apply_to_pipes() {
    let daemon = Daemon::start(&format!(
        "{}\n[[channel]]\nprefix = \"web_quiet\"\npublish = \"closed\"\n\
         [[channel]]\nprefix = \"secret\"\nread = \"closed\"\n",
        settings("")
    ));
    let mut page = Page::anonymous(&daemon);
    let refused = page.ask("web_pipe2\nweb_quiet\ne\n*\n1");
    assert!(
        refused.contains("web_quiet may not be published to"),
        "{refused}"
    );
    let refused = page.ask("subscription\nsecret_x\nopen");
    assert!(refused.contains("secret_x may not be read"), "{refused}");
    daemon.publish("secret_x", "unheard");
    daemon.publish("open", "heard");
    assert_eq!(page.data(), "heard");
}

#[test]
fn private_messages_wait_for_their_user() {
    let daemon = start();
    set_hash(&daemon, 5);
    let send = |text: &str| {
        let message =
            format!("INSERT INTO users_messages (id, event, message) VALUES (5, 'e', '{text}')");
        sql(&daemon, &message);
    };
    let queued = |data: &str, frame: String| {
        let frame: Value = serde_json::from_str(&frame).unwrap();
        assert_eq!(
            (&frame["data"], &frame["pipe"]),
            (&json!(data), &json!("msg"))
        );
        assert_eq!(frame["event"], "e");
        assert_eq!(frame["fromQueue"], true);
    };
    send("one");
    send("two");
    let mut first = Page::user(&daemon, 5);
    queued("one", first.next());
    queued("two", first.next());
    let mut second = Page::user(&daemon, 5);
    send("three");
    for page in [&mut first, &mut second] {
        let message = page.json();
        assert_eq!(message["data"], "three");
        assert_eq!(message["fromQueue"], Value::Null);
    }
    assert_eq!(
        sql(&daemon, "SELECT time FROM users_time WHERE id = 5"),
        "0\n"
    );
    drop((first, second));
    wait_for("the user is away", || {
        (sql(&daemon, "SELECT time FROM users_time WHERE id = 5") != "0\n").then_some(())
    });
    send("four");
    let mut third = Page::user(&daemon, 5);
    queued("four", third.next());
    third.settle();
    // Without the key, the user is disconnected and comes back as an anonymous page.
    sql(&daemon, "DELETE FROM users_auth WHERE id = 5");
    third.ends_unclean();
    let first = Page::open(&daemon, "4.08", "5", "hash5").1;
    assert!(first.contains(r#""authorized":false,"#));
}

#[test]
fn a_hundred_private_messages_wait() {
    let daemon = start();
    set_hash(&daemon, 5);
    for part in 0..11 {
        let numbers = part * 10..(part + 1) * 10;
        let statement =
            |n| format!("INSERT INTO users_messages (id, event, message) VALUES (5, 'e', '{n}');");
        sql(&daemon, &numbers.map(statement).collect::<String>());
    }
    let mut page = Page::user(&daemon, 5);
    // Messages of the last second may be kept in addition.
    let mut data = page.data();
    while data != "10" {
        data = page.data();
    }
    for number in 11..110 {
        assert_eq!(page.data(), number.to_string());
    }
    page.settle();
}

#[test]
fn saved_messages_are_shown_if_a_length_was_set() {
    let daemon = start();
    let mut page = Page::anonymous(&daemon);
    daemon.publish("web_x", "before");
    page.send("pipe_log\nweb_x\n1\n");
    page.settle();
    sql(
        &daemon,
        "INSERT INTO pipes_settings (name, length) VALUES ('web_x', 2)",
    );
    for data in ["one", "two", "three"] {
        sql(
            &daemon,
            &format!(
                "INSERT INTO pipes_messages (name, event, message) VALUES ('web_x', 'e', '{data}')"
            ),
        );
    }
    page.send("pipe_log\nweb_x\n1\n");
    let frame = |data| {
        format!(
            r#"{{"data":"{data}","event":"e","fromQueue":true,"history":true,"message_send_time":0,"pipe":"web_x"}}"#
        )
    };
    // Messages of the last second are kept over the length.
    let mut last = page.next();
    while last != frame("two") {
        last = page.next();
    }
    assert_eq!(page.next(), frame("three"));
    page.settle();
    daemon.publish("trust_x", "kept for two minutes");
    assert!(
        page.ask("pipe_log\ntrust_x\n1\n")
            .contains("kept for two minutes")
    );
    daemon.publish("private_x", "x");
    assert!(
        page.ask("pipe_log\nprivate_x\n1\n")
            .contains("Invalid channel name.")
    );
}

#[test]
fn questions_are_answered_with_their_marker() {
    let daemon = start();
    set_hash(&daemon, 2);
    let mut page = Page::anonymous(&daemon);
    let mut user = Page::user(&daemon, 2);
    page.subscribe("web_x");
    user.subscribe("web_x");
    assert_eq!(
        page.ask("pipe_count\nweb_x\n77\n"),
        r#"{"data":{"user_in_pipe":2},"event":"user_in_pipe","marker":"77","message_send_time":0,"pipe":"_answer_pipe_count"}"#
    );
    assert!(
        page.ask("pipe_count\nnews\n77\n")
            .contains("[pipe_count] Invalid channel name.")
    );
    sql(
        &daemon,
        "INSERT INTO users_data (id, data) VALUES (2, 'Ann')",
    );
    assert_eq!(
        page.ask("user_data\n78\n2"),
        r#"{"data":{"user_data":"Ann","user_id":2},"event":"answer","marker":"78","message_send_time":0,"pipe":"_answer"}"#
    );
    assert!(
        page.ask("user_data\n79\n3")
            .contains(r#""user_data":"","user_id":3"#)
    );
    let (mut old, _) = Page::open(&daemon, "3.25", "null", "null");
    assert!(
        old.ask("user_data\n78\n2")
            .contains(r#""data":"{\"user_data\":\"Ann\",\"user_id\":2}","#)
    );
    page.send("user_status\n2");
    let status = page.json();
    assert_eq!(status["pipe"], "_answer_user_status");
    assert_eq!(status["event"], "user_status_2");
    let seconds = status["data"]["last_online_time"].as_u64().unwrap();
    assert!(seconds.abs_diff(now()) < 3600, "{status}");
    page.send("statistics\n{\"url\":\"http://example/\"}");
    page.settle();
    let rows = sql(
        &daemon,
        "SELECT user_id, user_uuid FROM users_in_pipes WHERE name = 'web_x'",
    );
    let mut rows: Vec<&str> = rows.lines().collect();
    rows.sort_unstable();
    assert_eq!(rows, ["0\tuundefined", "2\tu2"]);
}

#[test]
fn unknown_commands_and_pings_keep_the_connection() {
    let daemon = start();
    let mut page = Page::anonymous(&daemon);
    for command in [
        "cgi_call\n1",
        "CometQL_call\n1\nx",
        "",
        "\n\n\n",
        "conference",
    ] {
        let error = page.ask(command);
        assert!(error.contains("this server has no command"), "{error}");
    }
    page.0.send(Message::Ping("still there?".into())).unwrap();
    assert_eq!(page.0.read().unwrap(), Message::Pong("still there?".into()));
    page.settle();
}

/// The script connects again only after an end that is not clean.
#[test]
fn no_connection_ends_with_a_close_frame() {
    let daemon = start();
    let mut page = Page::anonymous(&daemon);
    page.0.send(Message::Close(None)).unwrap();
    page.ends_unclean();
    let mut page = Page::anonymous(&daemon);
    page.0.send(Message::binary("x")).unwrap();
    page.ends_unclean();
    let mut page = Page::anonymous(&daemon);
    page.send(&format!("statistics\n{}", "x".repeat(70_000)));
    page.ends_unclean();
    wait_for("no page is left", || {
        (metric(&daemon, "comet_subscribers") == 0).then_some(())
    });
    let mut page = Page::anonymous(&daemon);
    page.subscribe("news");
    daemon.publish("news", "last");
    daemon.signal("TERM");
    assert_eq!(page.data(), "last");
    page.ends_unclean();
}

#[test]
fn users_and_their_messages_survive_a_crash_and_a_restart() {
    let root = Arc::new(directory());
    let daemon = Daemon::start_in(root.clone(), &settings(""), &[]);
    set_hash(&daemon, 5);
    let mut page = Page::user(&daemon, 5);
    sql(
        &daemon,
        "INSERT INTO users_messages (id, event, message) VALUES (5, '', 'read')",
    );
    assert_eq!(page.data(), "read");
    assert_eq!(daemon.stop().code(), Some(0));
    page.ends_unclean();

    let daemon = Daemon::start_in(root.clone(), &settings(""), &[]);
    let mut page = Page::user(&daemon, 5);
    page.settle(); // the message that was read does not come again
    sql(
        &daemon,
        "INSERT INTO users_messages (id, event, message) VALUES (5, '', 'read too')",
    );
    let read = page.json();
    daemon.signal("KILL");
    page.ends_unclean();
    drop(daemon);

    // The daemon could not note what was read. The script drops what has the same uuid.
    let daemon = Daemon::start_in(root, &settings(""), &[]);
    let mut page = Page::user(&daemon, 5);
    let again = page.json();
    assert_eq!(again["data"], "read too");
    assert_eq!(
        (&again["uuid"], again["uuid"].is_string()),
        (&read["uuid"], true)
    );
    page.settle();
}

#[test]
fn pages_see_who_comes_and_goes_after_a_grace_time() {
    let daemon = Daemon::start(&format!(
        "{}\n[[channel]]\nprefix = \"track_\"\npresence_grace = \"0s\"\n\
         [[channel]]\nprefix = \"user_status_\"\npresence_grace = \"0s\"\n",
        settings("")
    ));
    set_hash(&daemon, 5);
    let mut page = Page::anonymous(&daemon);
    page.subscribe("track_x\nuser_status_5");
    let mut user = Page::user(&daemon, 5);
    assert_eq!(
        page.next(),
        r#"{"data":"online","event":"online","message_send_time":0,"pipe":"user_status_5"}"#
    );
    user.subscribe("track_x"); // it does not see itself
    assert_eq!(
        page.next(),
        r#"{"data":{"user_id":5,"uuid":"u5"},"event":"subscription","message_send_time":0,"pipe":"track_x"}"#
    );
    assert_eq!(
        page.ask("track_pipe_users\ntrack_x\n77"),
        r#"{"data":[{"user_id":0,"uuid":"uundefined"},{"user_id":5,"uuid":"u5"}],"event":"answer","marker":"77","message_send_time":0,"pipe":"_answer"}"#
    );
    user.subscribe("");
    assert_eq!(
        page.next(),
        r#"{"data":{"user_id":5,"uuid":"u5"},"event":"unsubscription","message_send_time":0,"pipe":"track_x"}"#
    );
    drop(user);
    assert_eq!(page.json()["event"], "offline");
    // A message of the channel itself is one of the pipe, too.
    daemon.publish("track_x", "hi");
    assert_eq!(page.data(), "hi");
}

/// With the grace time of channels without a rule, which is 10 seconds.
#[test]
fn a_page_that_is_loaded_again_neither_leaves_nor_comes() {
    let daemon = start();
    set_hash(&daemon, 5);
    let mut page = Page::anonymous(&daemon);
    page.subscribe("track_x\nuser_status_5");
    for _ in 0..3 {
        let mut user = Page::user(&daemon, 5);
        user.subscribe("track_x");
    }
    assert_eq!(page.json()["event"], "online");
    assert_eq!(page.json()["event"], "subscription");
    page.settle();
    let ip = sql(
        &daemon,
        "SELECT ip FROM users_in_pipes WHERE name = 'track_x'",
    );
    assert!(ip.starts_with("127.0.0.1\n"), "{ip}");
}

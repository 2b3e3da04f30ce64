//! Rights that end while a client waits: by the system's clock, also if the clock is set, and by new settings. The
//! waiting client is told on every transport, and no other client is affected.

use std::fs;

use serde_json::{Value, json};

use crate::{
    clock::Clock,
    daemon::{Daemon, Http},
    http2,
    reload::reload,
    tokens::{assert_unauthorized, bearer, start, start_at, token, token_until},
    wire::{Events, WEBSOCKET, ask, cursor, data, get, parked, wait_for_subscribers},
};

/// Clients that wait for `chat.7`, one on each transport of HTTP/1.
struct Waiting {
    last: u64,
    poll: Http,
    chat: Http,
    page: Http,
    sse: Http,
    iframe: Http,
    socket: Http,
}

impl Waiting {
    fn begin(daemon: &Daemon, headers: &str) -> Self {
        let last = daemon.publish("chat.7", "before");
        let wait = |path: &str, more: &str| {
            let path = path.replace("LAST", &last.to_string());
            parked(daemon, get(&path, &format!("{headers}{more}")))
        };
        Self {
            last,
            poll: wait("/ch/chat.7?wait=60&since=LAST", ""),
            chat: wait("/chat.php?timestamp=LAST", ""),
            page: wait("/comet.php?subscribed[chat.7]=LAST", ""),
            sse: wait("/ch/chat.7?since=LAST", "Accept: text/event-stream\r\n"),
            iframe: wait("/ch/chat.7?as=iframe&callback=f&since=LAST", ""),
            socket: wait("/ch/chat.7?since=LAST", WEBSOCKET),
        }
    }

    fn assert_expired(mut self) {
        assert_unauthorized(&self.poll.answer(), "token_expired", "expired");
        assert_unauthorized(&self.chat.answer(), "token_expired", "expired");
        assert_eq!(self.page.answer().body, "{\"s\":0}");
        let notice = format!("{{\"expired\":true,\"cursor\":\"{}\"}}", self.last);
        self.sse.until(&notice);
        self.iframe.until(&notice);
        self.socket.until_bytes(notice.as_bytes());
        for mut stream in [self.sse, self.iframe, self.socket] {
            stream.rest();
        }
    }

    /// Checks that the clients, which come back with their cursors, get nothing newer.
    fn assert_sent_away(mut self) {
        let answer = self.poll.answer();
        let retry = answer.json()["retry"].as_u64().unwrap();
        assert!((500..1000).contains(&retry), "{retry}");
        let expected =
            json!({"cursor": self.last.to_string(), "gap": false, "messages": [], "retry": retry});
        assert_eq!((answer.status, answer.json()), (200, expected));
        assert_eq!(self.chat.answer().status, 503); // the page comes back after 5 s
        assert_eq!(self.page.answer().body, "{\"s\":0}");
        let sign = format!("id: {}\nevent: cursor\ndata: ", self.last);
        self.sse.until(&format!(
            "{sign}{{\"cursor\":\"{}\",\"heartbeat\":3600,\"retry\":",
            self.last
        ));
        self.sse.until("\nretry: ");
        self.iframe.until("<script>parent.f({\"retry\":");
        self.socket.until("\r\n\r\n");
        let frame = self.socket.rest();
        assert_eq!(
            (frame[0], &frame[2..4]),
            (0x88, &1001_u16.to_be_bytes()[..])
        );
        assert!(frame[4..].starts_with(b"{\"retry\":"));
        for mut stream in [self.sse, self.iframe] {
            assert!(stream.rest().ends_with(b"\r\n0\r\n\r\n"));
        }
    }

    fn assert_told(mut self, daemon: &Daemon) {
        daemon.publish("chat.7", "after");
        assert_eq!(data(&self.poll.answer()), ["after"]);
        assert_eq!(self.chat.answer().json()["msg"], "after");
        assert_eq!(self.page.answer().json()["s"], 1);
        for stream in [&mut self.sse, &mut self.iframe, &mut self.socket] {
            stream.until_bytes(b"\"after\"");
        }
    }
}

fn client_of(daemon: &Daemon, headers: &str) -> impl Future<Output = http2::Client> {
    let value = headers
        .trim()
        .strip_prefix("Authorization: ")
        .unwrap()
        .to_owned();
    let addr = daemon.addr();
    async move {
        let client = http2::Client::connect(addr).await;
        client.with_header("authorization", &value)
    }
}

#[test]
fn a_clock_that_is_set_forward_ends_tokens_at_once() {
    let clock = Clock::new();
    let daemon = start_at(&clock, "");
    let grant = json!({"s": ["*"], "h": 1});
    let hour = bearer(&token_until(clock.now() + 3600, &grant));
    let day = bearer(&token_until(clock.now() + 86_400, &grant));
    let waiting = Waiting::begin(&daemon, &hour);
    let mut others = parked(&daemon, get("/ch/chat.8?wait=60", &day));
    let mut open = parked(&daemon, get("/ch/open.a?wait=60", &hour));
    let last = waiting.last;
    http2::run(async {
        let client = client_of(&daemon, &hour).await;
        let stream = client.get(&format!("/ch/chat.7?as=sse&since={last}")).await;
        let poll = client.json("/ch/chat.7?wait=60");
        let step = async {
            http2::subscribers(&daemon, 10).await;
            clock.step(3601);
        };
        let ((status, answer), ()) = tokio::join!(poll, step);
        assert_eq!((status, &answer["error"]), (401, &json!("token_expired")));
        assert!(http2::text(stream).await.contains("event: expired\n"));
    });
    waiting.assert_expired();
    daemon.publish("chat.8", "for the others");
    daemon.publish("open.a", "for all");
    assert_eq!(data(&others.answer()), ["for the others"]);
    assert_eq!(data(&open.answer()), ["for all"]);
}

/// The chat's protocol has no answer without a message. A token that is valid for longer must not cause one.
#[test]
fn a_clock_that_is_set_back_ends_nothing() {
    let clock = Clock::new();
    let daemon = start_at(&clock, "");
    let soon = bearer(&token_until(clock.now() + 3, &json!({"s": ["*"], "h": 1})));
    let short = bearer(&token_until(
        clock.now() + 3 - 3600 + 2,
        &json!({"s": ["*"]}),
    ));
    let last = daemon.publish("chat.7", "before");
    let mut chat = parked(&daemon, get(&format!("/chat.php?timestamp={last}"), &soon));
    let mut events = Events::open(&daemon, "/ch/chat.7", &soon);
    clock.step(-3600);
    // The first token would have expired by now.
    let mut ended = parked(&daemon, get("/ch/chat.8?wait=60", &short));
    assert_unauthorized(&ended.answer(), "token_expired", "expired");
    let id = daemon.publish("chat.7", "after");
    assert_eq!(chat.answer().json()["msg"], "after");
    assert_eq!(events.message_of(id), "after");
}

fn config(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.root().path().join("comet.toml")).unwrap()
}

/// Reloads, and waits until all threads have the new settings. The threads take them over one after the other.
fn reload_and_end(daemon: &Daemon, config: &str, left: u64) {
    reload(daemon, config);
    wait_for_subscribers(daemon, left);
}

#[test]
fn whoever_waits_is_judged_anew_when_a_rule_or_a_key_changes() {
    let closes = |config: &str| config.replace("prefix = \"closed.\"", "prefix = \"chat.\"");
    let without_key = |config: &str| config.replace("kid = \"hs\"", "kid = \"other\"");
    let other_secret = |config: &str| {
        let (before, after) = config.split_once("kid = \"hs\"").unwrap();
        let (_, after) = after.split_once("secret_file").unwrap();
        let (_, after) = after.split_once('\n').unwrap();
        let secret = "secret = \"0123456789012345678901234567890123456789\"";
        format!("{before}kid = \"hs\"\nalg = \"HS256\"\n{secret}\n{after}")
    };
    let changes: [&dyn Fn(&str) -> String; 3] = [&closes, &without_key, &other_secret];
    for change in changes {
        let daemon = start("");
        let headers = bearer(&token(&json!({"s": ["*"], "h": 1}), 600));
        let waiting = Waiting::begin(&daemon, &headers);
        let mut open = parked(&daemon, get("/ch/open.a?wait=60", &headers));
        let config = config(&daemon);
        let last = waiting.last;
        http2::run(async {
            let client = client_of(&daemon, &headers).await;
            let stream = client.get(&format!("/ch/chat.7?as=sse&since={last}")).await;
            let again = format!("/ch/chat.7?wait=60&since={last}");
            let poll = client.json(&again);
            let reloading = async {
                http2::subscribers(&daemon, 9).await;
                reload(&daemon, &change(&config));
            };
            let ((status, answer), ()) = tokio::join!(poll, reloading);
            assert_eq!((status, &answer["messages"]), (200, &json!([])));
            assert!(answer["retry"].is_u64(), "{answer}");
            assert!(http2::text(stream).await.contains("\nretry: 5"));
        });
        wait_for_subscribers(&daemon, 1);
        waiting.assert_sent_away();
        let again = ask(&daemon, get("/ch/chat.7?wait=0", &headers));
        assert!([401, 403].contains(&again.status), "{}", again.status);
        daemon.publish("open.a", "for all");
        assert_eq!(data(&open.answer()), ["for all"]);
    }
}

#[test]
fn a_public_channel_that_is_closed_ends_its_subscriptions() {
    let rule = |prefix: &str, read: &str| {
        format!("[[channel]]\nprefix = \"{prefix}\"\nread = \"{read}\"\n")
    };
    let daemon =
        Daemon::start("[compat]\nzeitoun_channel = \"chat.7\"\n[http]\nheartbeat = \"1h\"\n");
    let waiting = Waiting::begin(&daemon, "");
    let mut both = parked(&daemon, get("/ch/other,chat.7?wait=60", ""));
    let mut other = parked(&daemon, get("/ch/other?wait=60", ""));
    let config = config(&daemon);
    reload_and_end(&daemon, &format!("{config}{}", rule("chat.", "closed")), 1);
    waiting.assert_sent_away();
    assert!(both.answer().json()["retry"].is_u64());
    // The connection stays open.
    both.send(get("/ch/other?wait=0", ""));
    assert_eq!(both.answer().status, 200);
    both.send(get("/ch/chat.7?wait=0", ""));
    assert_eq!(both.answer().status, 403);
    daemon.publish("other", "x");
    assert_eq!(data(&other.answer()), ["x"]);
}

#[test]
fn changes_that_take_nothing_away_end_nothing() {
    let daemon = start("");
    let headers = bearer(&token(&json!({"s": ["*"], "h": 1}), 600));
    let waiting = Waiting::begin(&daemon, &headers);
    let open = parked(&daemon, get("/ch/open.a?wait=60", &headers));
    let first = config(&daemon);
    // Another key, another rule, another limit. Then the channel is public.
    let key = "[[auth.key]]\nkid = \"new\"\nalg = \"HS256\"\nsecret = \"0123456789012345678901234567890123456789\"\n";
    let more = first.replace("prefix = \"closed.\"", "prefix = \"shut.\"") + key;
    let public = more.replace("prefix = \"open.\"", "prefix = \"chat.\"");
    for config in [&more, &public] {
        reload(&daemon, config);
        // Each thread has the settings when it answers this request.
        let path = "/ch/open.a?wait=0";
        let status: Value = ask(&daemon, get(path, &headers)).status.into();
        assert_eq!(status, 200);
    }
    drop(open);
    wait_for_subscribers(&daemon, 6);
    let cursor = cursor(&ask(&daemon, get("/ch/chat.7?wait=0", "")));
    assert_eq!(cursor, waiting.last);
    waiting.assert_told(&daemon);
}

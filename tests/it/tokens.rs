//! Tokens: a valid one gives what it grants, on every transport and until it expires. Otherwise the client gets a
//! reason.

use std::{
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    clock::Clock,
    daemon::{Answer, Daemon, Http, directory},
    http2,
    wire::{Events, WEBSOCKET, ask, data, get, post, refusal},
};

/// Every channel needs a token, except `open.` for reading and `box.` for publishing.
const RULES: &str = r#"
[[channel]]
prefix = ""
read = "token"
publish = "token"

[[channel]]
prefix = "open."
read = "public"

[[channel]]
prefix = "box."
publish = "public"

[[channel]]
prefix = "closed."
read = "closed"
publish = "closed"

[http]
heartbeat = "1h"

[compat]
zeitoun_channel = "chat.7"
"#;

pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/tokens.json")).unwrap()
}

/// A daemon with [`RULES`] and the keys of the test vectors. `more` is added to `[auth]`.
pub(crate) fn start(more: &str) -> Daemon {
    start_with("", more)
}

/// Like [`start`], with settings before all tables.
pub(crate) fn start_with(first: &str, more: &str) -> Daemon {
    let root = Arc::new(directory());
    let config = config(&root, first, more);
    Daemon::start_in(root, &config, &[])
}

/// Like [`start`], with a clock of the test.
pub(crate) fn start_at(clock: &Clock, more: &str) -> Daemon {
    start_again_at(clock, Arc::new(directory()), more)
}

/// Like [`start_at`], in the directory of a daemon that has ended.
pub(crate) fn start_again_at(clock: &Clock, root: Arc<TempDir>, more: &str) -> Daemon {
    let (config, program) = (config(&root, "", more), clock.program());
    let program: Vec<&str> = program.iter().map(String::as_str).collect();
    Daemon::try_start_by(&program, root, &config, &[]).unwrap()
}

fn config(root: &TempDir, first: &str, more: &str) -> String {
    let vectors = vectors();
    let mut config = format!("{first}{RULES}\n[auth]\n{more}\n");
    for key in vectors["keys"].as_array().unwrap() {
        let (kid, alg) = (key["kid"].as_str().unwrap(), &key["alg"]);
        let (source, text) = match key["secret"].as_str() {
            Some(secret) => ("secret_file", secret),
            None => ("public_key_file", key["public_key"].as_str().unwrap()),
        };
        let file = root.path().join(kid);
        fs::write(&file, text).unwrap();
        config += &format!("[[auth.key]]\nkid = {kid:?}\nalg = {alg}\n{source} = {file:?}\n");
    }
    config
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// A valid token that expires in this number of seconds.
pub(crate) fn token(comet: &Value, seconds: u64) -> String {
    token_until(now() + seconds, comet)
}

/// A valid token that expires at this second since 1970.
pub(crate) fn token_until(end: u64, comet: &Value) -> String {
    signed(&json!({"aud": "comet", "exp": end, "comet": comet}))
}

/// A valid token for an hour with this subject.
pub(crate) fn token_of(subject: &Value, comet: &Value) -> String {
    signed(&json!({"aud": "comet", "exp": now() + 3600, "sub": subject, "comet": comet}))
}

fn signed(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "kid": "hs"})),
        part(claims)
    );
    let secret = vectors()["keys"][0]["secret"].as_str().unwrap().to_owned();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    format!("{text}.{signature}")
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Requests that read `chat.7` on each transport, with these header lines.
fn reads(headers: &str) -> Vec<(&'static str, String)> {
    let with = |more: &str| format!("{headers}{more}");
    vec![
        ("poll", get("/ch/chat.7?since=0", headers)),
        ("escaped poll", get("/ch/chat%2E7?since=0", headers)),
        (
            "sse",
            get("/ch/chat.7?since=0", &with("Accept: text/event-stream\r\n")),
        ),
        (
            "iframe",
            get("/ch/chat.7?since=0&as=iframe&callback=f", headers),
        ),
        ("websocket", get("/ch/chat.7?since=0", &with(WEBSOCKET))),
        ("chat", get("/chat.php?timestamp=0", headers)),
    ]
}

/// Sends a request and reads until `text` has arrived. Returns the answer if the request was refused.
fn read_until(daemon: &Daemon, request: &str, text: &[u8]) -> Result<(), Answer> {
    let mut client = Http::connect(daemon.addr());
    client.send(request);
    let head = client.until("\r\n\r\n");
    let status: u16 = head[9..12].parse().unwrap();
    if status == 200 || status == 101 {
        client.until_bytes(text);
        return Ok(());
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let body = client.exactly(length.unwrap().parse().unwrap());
    let body = String::from_utf8(body).unwrap();
    Err(Answer { status, head, body })
}

#[track_caller]
pub(crate) fn assert_unauthorized(answer: &Answer, code: &str, part: &str) {
    let (status, error, message) = refusal(answer);
    assert_eq!((status, &*error), (401, code), "{message}");
    assert!(message.contains(part), "{message}");
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("Bearer realm=\"comet\""),
        "{challenge}"
    );
}

#[test]
fn every_transport_takes_good_tokens_and_no_other() {
    let daemon = start("");
    daemon.publish("chat.7", "for the bearer");
    daemon.publish("open.a", "for everyone");
    for vector in vectors()["tokens"].as_array().unwrap() {
        let (name, token) = (&vector["name"], vector["token"].as_str().unwrap());
        for (transport, request) in reads(&bearer(token)) {
            let read = read_until(&daemon, &request, b"for the bearer");
            match (read, vector["error"].as_str()) {
                (Ok(()), None) => {}
                (Err(answer), Some(part)) => {
                    let code = if part == "expired" {
                        "token_expired"
                    } else {
                        "token"
                    };
                    let part = if token.is_empty() {
                        "needs a token"
                    } else {
                        part
                    };
                    assert_unauthorized(&answer, code, part);
                }
                (read, error) => panic!("{name}, {transport}: {read:?} for {error:?}"),
            }
        }
        let novcomet = get(
            "/comet.php?subscribed[chat.7]=1&subscribed[open.a]=1",
            &bearer(token),
        );
        // A channel that may not be read looks like a channel without changes.
        let body = ask(&daemon, novcomet).body;
        assert!(
            body.starts_with("{\"s\":1,\"k\":{") && body.contains("\"open.a\":"),
            "{name}: {body}"
        );
        assert_eq!(
            body.contains("chat.7"),
            vector["error"].is_null(),
            "{name}: {body}"
        );
    }
}

#[test]
fn publishing_takes_good_tokens_and_no_other() {
    let daemon = start("");
    let mut published = 0;
    for vector in vectors()["tokens"].as_array().unwrap() {
        let (name, token) = (&vector["name"], vector["token"].as_str().unwrap());
        let good = vector["error"].is_null();
        for path in ["/ch/chat.7", "/ch/chat%2E7"] {
            let answer = ask(&daemon, post(path, &bearer(token), b"x"));
            assert_eq!(
                answer.status,
                if good { 201 } else { 401 },
                "{name}: {}",
                answer.body
            );
        }
        let answer = ask(&daemon, get("/comet.php?publish=chat.7", &bearer(token)));
        assert_eq!(
            (answer.status, &*answer.body),
            (200, if good { "true" } else { "false" }),
            "{name}"
        );
        let answer = ask(&daemon, get("/chat.php?msg=x", &bearer(token)));
        assert_eq!(answer.status, if good { 200 } else { 401 }, "{name}");
        published += if good { 4 } else { 0 };
        assert_eq!(daemon.history("chat.7").len(), published, "{name}");
    }
}

#[test]
fn http2_takes_good_tokens_and_no_other() {
    let daemon = start("");
    daemon.publish("chat.7", "for the bearer");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        for vector in vectors()["tokens"].as_array().unwrap() {
            let (name, token) = (&vector["name"], vector["token"].as_str().unwrap());
            let with = client.with_header("authorization", &format!("Bearer {token}"));
            let (status, json) = with.json("/ch/chat.7?since=0").await;
            if vector["error"].is_null() {
                assert_eq!(
                    (status, &json["messages"][0]["data"]),
                    (200, &"for the bearer".into()),
                    "{name}"
                );
            } else {
                assert_eq!(status, 401, "{name}: {json}");
            }
            let stream = with.get("/ch/chat.7?as=sse").await;
            assert_eq!(stream.status(), status, "{name}");
        }
    });
}

#[test]
fn a_token_is_not_asked_for_where_none_is_needed() {
    let daemon = start("");
    daemon.publish("open.a", "x");
    for headers in [
        "",
        "Authorization: Bearer nonsense\r\n",
        "Cookie: __Host-comet=nonsense\r\n",
    ] {
        assert_eq!(
            data(&ask(&daemon, get("/ch/open.a?since=0", headers))),
            ["x"]
        );
        assert_eq!(ask(&daemon, post("/ch/box.a", headers, b"x")).status, 201);
    }
}

#[test]
fn a_good_token_that_grants_something_else_is_forbidden() {
    let daemon = start("");
    let grant = bearer(&token(
        &json!({"s": ["chat.7", "closed.*"], "p": ["closed.*"]}),
        60,
    ));
    for request in [
        get("/ch/chat.8?wait=0", &grant),
        get("/ch/chat.7,chat.8?wait=0", &grant),
        get("/ch/chat.8?as=sse", &grant),
        post("/ch/chat.7", &grant, b"x")
            .escape_ascii()
            .to_string()
            .replace("\\r\\n", "\r\n"),
    ] {
        let answer = ask(&daemon, &request);
        let (status, code, message) = refusal(&answer);
        assert_eq!((status, &*code), (403, "forbidden"), "{request}: {message}");
        assert!(message.contains("the token does not grant"), "{message}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("insufficient_scope"), "{challenge}");
    }
    // A token does not open a closed channel.
    assert_eq!(ask(&daemon, get("/ch/closed.a?wait=0", &grant)).status, 403);
    assert_eq!(ask(&daemon, post("/ch/closed.a", &grant, b"x")).status, 403);
}

#[test]
fn no_token_is_told_how_to_bring_one() {
    let daemon = start("");
    for headers in [
        "",
        "Authorization: Basic YTpi\r\n",
        "Cookie: comet=x; other=y\r\n",
    ] {
        for (_, request) in reads(headers) {
            let answer = read_until(&daemon, &request, b"never").expect_err("no token");
            assert_unauthorized(&answer, "token", "Authorization: Bearer");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"comet\"")
            );
        }
    }
}

#[test]
fn a_cookie_counts_for_pages_of_this_site_alone() {
    let (root, vectors) = (directory(), vectors());
    let secret = &vectors["keys"][0]["secret"];
    let config = |origins: &str| {
        let rule = "[[channel]]\nprefix = \"\"\nread = \"token\"\npublish = \"token\"\n";
        format!(
            "{rule}[http]\norigins = [{origins}]\n[[auth.key]]\nkid = \"hs\"\nalg = \"HS256\"\nsecret = {secret}\n"
        )
    };
    let root = Arc::new(root);
    let grant = json!({"s": ["*"], "p": ["*"], "h": 1});
    let cookie = format!("Cookie: a=b; __Host-comet={}; c=d\r\n", token(&grant, 600));
    let cases = [
        ("Sec-Fetch-Site: same-origin\r\n", "", 200),
        ("Origin: http://comet.localhost\r\n", "", 200),
        (
            "Origin: https://listed.example\r\n",
            "\"https://listed.example\"",
            200,
        ),
        (
            "Origin: https://listed.example\r\nSec-Fetch-Site: cross-site\r\n",
            "\"https://listed.example\"",
            200,
        ),
        ("", "", 403),
        ("Sec-Fetch-Site: same-site\r\n", "", 403),
        ("Sec-Fetch-Site: cross-site\r\n", "", 403),
        ("Sec-Fetch-Site: none\r\n", "", 403),
        (
            "Origin: https://evil.example\r\nSec-Fetch-Site: same-origin\r\n",
            "",
            403,
        ),
        ("Origin: null\r\n", "", 403),
        ("Origin: https://evil.example\r\n", "\"*\"", 403),
    ];
    for (headers, origins, status) in cases {
        let daemon = Daemon::start_in(root.clone(), &config(origins), &[]);
        let headers = format!("{cookie}{headers}");
        for path in ["/ch/a?wait=0", "/ch/%61?wait=0"] {
            let answer = ask(&daemon, get(path, &headers));
            assert_eq!(answer.status, status, "{headers}: {}", answer.body);
        }
        let answer = ask(&daemon, post("/ch/a", &headers, b"x"));
        assert_eq!(
            answer.status,
            if status == 200 { 201 } else { 403 },
            "{headers}"
        );
        // A header is unlike a cookie: no browser adds it automatically.
        let header = bearer(&token(&grant, 600)) + "Cookie: __Host-comet=nonsense\r\n";
        assert_eq!(ask(&daemon, get("/ch/a?wait=0", &header)).status, 200);
    }
}

#[test]
fn a_url_carries_a_token_only_where_that_is_on_and_no_log_shows_it() {
    let good = token(&json!({"s": ["chat.7"], "p": ["chat.7"]}), 600);
    let path = format!("/ch/chat.7?wait=0&token={good}");
    let daemon = start("");
    assert_unauthorized(&daemon.get(&path), "token", "needs a token");
    let daemon = start("query = true");
    assert_eq!(daemon.get(&path).status, 200);
    assert_eq!(daemon.get(&path.replace("chat.7", "chat%2E7")).status, 200);
    let bad = daemon.get(&format!("{path}x"));
    assert_unauthorized(&bad, "token", "signature");
    assert_eq!(daemon.get(&format!("/nowhere?token={good}")).status, 404);
    assert_eq!(
        daemon
            .get(&format!("/ch/chat.7?as=nothing&token={good}"))
            .status,
        400
    );
    let nothing = bad.body
        + &daemon
            .get(&format!("/comet.php?publish=chat.7&token={good}"))
            .body;
    assert!(!nothing.contains(&good[..20]) && !daemon.log().contains(&good[..20]));
}

#[test]
fn without_the_right_to_history_one_resumes_and_reads_nothing_older() {
    let daemon = start("resume = \"0s\"");
    let first = daemon.publish("chat.7", "before");
    let grant = |history: bool| bearer(&token(&json!({"s": ["*"], "h": history}), 600));
    let all = ask(&daemon, get("/ch/chat.7?since=0&wait=0", &grant(true)));
    assert_eq!(
        (data(&all), &all.json()["gap"]),
        (vec!["before".into()], &json!(false))
    );
    // The stream begins now, and the client is told that it does not begin at the requested place.
    let cut = ask(&daemon, get("/ch/chat.7?since=0&wait=0", &grant(false)));
    assert_eq!((data(&cut), &cut.json()["gap"]), (vec![], &json!(true)));
    let mut events = Events::open(&daemon, "/ch/chat.7?since=0", &grant(false));
    assert_eq!(events.message().1, "gap");
    // A client that has seen the last message misses nothing.
    let mut seen = Events::open(&daemon, &format!("/ch/chat.7?since={first}"), &grant(false));
    let id = daemon.publish("chat.7", "after");
    assert_eq!(events.message_of(id), "after");
    assert_eq!(seen.message_of(id), "after");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let header = grant(false);
        let value = header.trim().strip_prefix("Authorization: ").unwrap();
        let client = client.with_header("authorization", value);
        let (_, json) = client.json("/ch/chat.7?since=0").await;
        assert_eq!(
            (&json["gap"], &json["messages"]),
            (&json!(true), &json!([]))
        );
    });
    // A client that was disconnected for a shorter time gets all messages.
    let daemon = start("resume = \"1h\"");
    let first = daemon.publish("chat.7", "seen");
    daemon.publish("chat.7", "missed");
    let answer = ask(
        &daemon,
        get(&format!("/ch/chat.7?since={first}"), &grant(false)),
    );
    assert_eq!(
        (data(&answer), &answer.json()["gap"]),
        (vec!["missed".into()], &json!(false))
    );
}

#[test]
fn a_rule_about_tokens_needs_a_key() {
    let config = "[[channel]]\nprefix = \"a\"\nread = \"token\"\n";
    let log = Daemon::try_start_in(Arc::new(directory()), config, &[]).err();
    assert!(log.expect("no key").contains("[[auth.key]]"));
    let config = "[[auth.key]]\nkid = \"k\"\nalg = \"HS256\"\nsecret = \"hunter2\"\n";
    let log = Daemon::try_start_in(Arc::new(directory()), config, &[])
        .err()
        .expect("short");
    assert!(
        log.contains("auth.key \"k\"") && log.contains("too short") && !log.contains("hunter2"),
        "{log}"
    );
}

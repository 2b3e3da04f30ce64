//! The handshake of a WebSocket, rule by rule (RFC 6455, section 4.2), and what the client offers in it.
//! `docs/websocket.md` lists the rules.

use serde_json::json;

use crate::{
    daemon::{Answer, Daemon, Http},
    tokens::{assert_unauthorized, bearer, start, token},
    wire::{ask, get, refusal, wait_for_subscribers},
};

const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
/// The example of RFC 6455, section 1.3.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of the answer to these header lines.
fn answer_to(daemon: &Daemon, path: &str, lines: &[&str]) -> (Http, Answer) {
    let mut client = Http::connect(daemon.addr());
    client.send(get(path, &lines.concat()));
    let head = client.until("\r\n\r\n");
    let answer = Answer {
        status: head[9..12].parse().unwrap(),
        head,
        body: String::new(),
    };
    (client, answer)
}

/// Checks that the client gets an open socket with this subprotocol.
#[track_caller]
fn opens(daemon: &Daemon, path: &str, lines: &[&str], protocol: Option<&str>) {
    let (client, answer) = answer_to(daemon, path, lines);
    assert_eq!(answer.status, 101, "{lines:?}: {}", answer.head);
    let header = |name| answer.header(name).map(str::to_lowercase);
    assert_eq!(header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(header("connection").as_deref(), Some("upgrade"));
    assert_eq!(
        answer.header("sec-websocket-protocol"),
        protocol,
        "{lines:?}"
    );
    assert_eq!(answer.header("sec-websocket-extensions"), None);
    drop(client);
    wait_for_subscribers(daemon, 0);
}

#[track_caller]
fn is_refused(daemon: &Daemon, request: &str, status: u16, part: &str) -> Answer {
    let answer = ask(daemon, request);
    let (got, code, message) = refusal(&answer);
    assert_eq!((got, &*code), (status, "websocket"), "{request}: {message}");
    assert!(message.contains(part), "{request}: {message}");
    answer
}

#[test]
fn a_handshake_has_each_header_that_it_needs_once() {
    let daemon = Daemon::start("");
    let (_, answer) = answer_to(&daemon, "/ch/a", &[UPGRADE, CONNECTION, VERSION, KEY]);
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    wait_for_subscribers(&daemon, 0);
    let good: [&[&str]; 8] = [
        &[
            "upgrade: WebSocket\r\n",
            "connection: UPGRADE\r\n",
            VERSION,
            KEY,
        ],
        &[UPGRADE, "Connection: keep-alive, Upgrade\r\n", VERSION, KEY],
        &[
            UPGRADE,
            "Connection: keep-alive\r\n",
            CONNECTION,
            VERSION,
            KEY,
        ],
        &[UPGRADE, "Connection: ,upgrade\t ,\r\n", VERSION, KEY],
        &["Upgrade: h2c\r\n", UPGRADE, CONNECTION, VERSION, KEY],
        &["Upgrade: h2c, websocket\r\n", CONNECTION, VERSION, KEY],
        // 16 bytes whose last bits are not zero, as some clients send them.
        &[
            UPGRADE,
            CONNECTION,
            VERSION,
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB==\r\n",
        ],
        &[
            UPGRADE,
            CONNECTION,
            VERSION,
            KEY,
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        ],
    ];
    for lines in good {
        opens(&daemon, "/ch/a", lines, None);
    }

    let (no_upgrade, no_version, no_key) = ("Connection: Upgrade and", "Version must", "Key must");
    let broken: [(&[&str], &str); 19] = [
        (&[CONNECTION, VERSION, KEY], no_upgrade),
        (&[UPGRADE, VERSION, KEY], no_upgrade),
        (
            &["Upgrade: websockets\r\n", CONNECTION, VERSION, KEY],
            no_upgrade,
        ),
        (
            &["Upgrade: websocket/13\r\n", CONNECTION, VERSION, KEY],
            no_upgrade,
        ),
        (&["Upgrade: h2c\r\n", CONNECTION, VERSION, KEY], no_upgrade),
        (
            &[UPGRADE, "Connection: keep-alive\r\n", VERSION, KEY],
            no_upgrade,
        ),
        (
            &[UPGRADE, "Connection: upgraded\r\n", VERSION, KEY],
            no_upgrade,
        ),
        (&[UPGRADE, CONNECTION, KEY], no_version),
        (&[UPGRADE, CONNECTION, KEY, VERSION, VERSION], no_version),
        (
            &[UPGRADE, CONNECTION, KEY, "Sec-WebSocket-Version: 13, 8\r\n"],
            no_version,
        ),
        (
            &[UPGRADE, CONNECTION, KEY, "Sec-WebSocket-Version: 8\r\n"],
            no_version,
        ),
        (
            &[UPGRADE, CONNECTION, KEY, "Sec-WebSocket-Version: 013\r\n"],
            no_version,
        ),
        (
            &[UPGRADE, CONNECTION, KEY, "Sec-WebSocket-Version:\r\n"],
            no_version,
        ),
        (&[UPGRADE, CONNECTION, VERSION], no_key),
        (&[UPGRADE, CONNECTION, VERSION, KEY, KEY], no_key),
        (
            &[UPGRADE, CONNECTION, VERSION, "Sec-WebSocket-Key:\r\n"],
            no_key,
        ),
        (
            &[
                UPGRADE,
                CONNECTION,
                VERSION,
                "Sec-WebSocket-Key: c2hvcnQ=\r\n",
            ],
            no_key,
        ),
        (
            &[
                UPGRADE,
                CONNECTION,
                VERSION,
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=\r\n",
            ],
            no_key,
        ),
        (
            &[
                UPGRADE,
                CONNECTION,
                VERSION,
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n",
            ],
            no_key,
        ),
    ];
    for (lines, part) in broken {
        let answer = is_refused(&daemon, &get("/ch/a", &lines.concat()), 426, part);
        // RFC 9110, section 15.5.22, and RFC 6455, section 4.4.
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("connection"), Some("Upgrade"));
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
    is_refused(&daemon, &get("/ch/a?as=websocket", ""), 426, no_upgrade);
}

#[test]
fn a_handshake_is_a_get_by_http_1_1_with_one_host() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let good = [UPGRADE, CONNECTION, VERSION, KEY].concat();
    let old = format!("GET /ch/a HTTP/1.0\r\nHost: localhost\r\n{good}\r\n");
    is_refused(&daemon, &old, 426, "HTTP/1.1");
    for hosts in ["", "Host: localhost\r\nHost: localhost\r\n"] {
        let answer = ask(&daemon, format!("GET /ch/a HTTP/1.1\r\n{hosts}{good}\r\n"));
        assert_eq!(answer.status, 400, "{hosts:?}");
    }
    // Other methods are answered as without an upgrade.
    for (method, status) in [
        ("POST", 201),
        ("OPTIONS", 204),
        ("PUT", 405),
        ("DELETE", 405),
    ] {
        let length = "Content-Length: 0\r\n";
        let request = format!("{method} /ch/a HTTP/1.1\r\nHost: localhost\r\n{length}{good}\r\n");
        assert_eq!(ask(&daemon, request).status, status, "{method}");
    }
    let mut client = Http::connect(daemon.addr());
    client.send(format!(
        "HEAD /ch/a HTTP/1.1\r\nHost: localhost\r\n{good}\r\n"
    ));
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // A body would be read as frames.
    let body = ask(
        &daemon,
        get("/ch/a", &format!("{good}Content-Length: 1\r\n")) + "x",
    );
    assert_eq!(body.status, 400);
    wait_for_subscribers(&daemon, 0);
}

#[test]
fn the_subprotocol_is_taken_where_it_is_offered() {
    let daemon = Daemon::start("");
    let with = |lines: &[&str]| [UPGRADE, CONNECTION, VERSION, KEY, &lines.concat()].concat();
    let good: [&[&str]; 7] = [
        &["Sec-WebSocket-Protocol: comet\r\n"],
        &["Sec-WebSocket-Protocol: json, comet\r\n"],
        &["Sec-WebSocket-Protocol: comet,json\r\n"],
        &[
            "Sec-WebSocket-Protocol: json\r\n",
            "Sec-WebSocket-Protocol: comet\r\n",
        ],
        &[
            "Sec-WebSocket-Protocol: a, b\r\n",
            "sec-websocket-protocol:comet , c\r\n",
        ],
        &["Sec-WebSocket-Protocol: ,comet,\r\n"],
        &["Sec-WebSocket-Protocol: comet, !#$%&'*+-.^_`|~09azAZ\r\n"],
    ];
    for lines in good {
        opens(&daemon, "/ch/a", &[&with(lines)], Some("comet"));
    }
    opens(&daemon, "/ch/a", &[&with(&[])], None);

    let others: [&[&str]; 5] = [
        &["Sec-WebSocket-Protocol: json\r\n"],
        &["Sec-WebSocket-Protocol: COMET\r\n"], // names are compared byte by byte
        &["Sec-WebSocket-Protocol: comet2, soap\r\n"],
        &[
            "Sec-WebSocket-Protocol: graphql-ws\r\n",
            "Sec-WebSocket-Protocol: json\r\n",
        ],
        &["Sec-WebSocket-Protocol: comet.token.abc\r\n"],
    ];
    for lines in others {
        let answer = is_refused(&daemon, &get("/ch/a", &with(lines)), 400, "\"comet\"");
        assert_eq!(answer.header("sec-websocket-protocol"), None);
        assert!(!answer.body.contains("abc"));
    }
    let broken: [&[&str]; 9] = [
        &["Sec-WebSocket-Protocol: comet json\r\n"],
        &["Sec-WebSocket-Protocol: comet; q=1\r\n"],
        &["Sec-WebSocket-Protocol: \"comet\"\r\n"],
        &["Sec-WebSocket-Protocol: comet, a/b\r\n"],
        &["Sec-WebSocket-Protocol: comet, {x}\r\n"],
        &["Sec-WebSocket-Protocol: comet, \u{e9}\r\n"],
        &["Sec-WebSocket-Protocol: comet, comet\r\n"],
        &[
            "Sec-WebSocket-Protocol: comet\r\n",
            "Sec-WebSocket-Protocol: comet\r\n",
        ],
        &["Sec-WebSocket-Protocol:\r\n"],
    ];
    for lines in broken {
        is_refused(
            &daemon,
            &get("/ch/a", &with(lines)),
            400,
            "list of different names",
        );
    }
    wait_for_subscribers(&daemon, 0);
}

/// A page can set no other header of a WebSocket.
#[test]
fn a_token_may_come_as_a_subprotocol() {
    let daemon = start("");
    let (good, other) = (
        token(&json!({"s": ["chat.7"], "h": 1}), 600),
        token(&json!({"s": ["chat.8"], "h": 1}), 600),
    );
    let old = token(&json!({"s": ["chat.7"], "h": 1}), 0);
    let handshake = [UPGRADE, CONNECTION, VERSION, KEY].concat();
    let offers = |names: &str| format!("{handshake}Sec-WebSocket-Protocol: {names}\r\n");
    let (path, comet) = ("/ch/chat.7", Some("comet"));
    let cookie =
        |token: &str| format!("Cookie: __Host-comet={token}\r\nSec-Fetch-Site: same-origin\r\n");
    opens(
        &daemon,
        path,
        &[&offers(&format!("comet, comet.token.{good}"))],
        comet,
    );
    opens(
        &daemon,
        path,
        &[&offers(&format!("comet.token.{good}, comet"))],
        comet,
    );
    let two_lines = offers("comet") + &format!("Sec-WebSocket-Protocol: comet.token.{good}\r\n");
    opens(&daemon, path, &[&two_lines], comet);
    // The offered token takes precedence over a cookie. An Authorization header takes precedence over it.
    let (good_offer, other_offer) = (
        offers(&format!("comet, comet.token.{good}")),
        offers(&format!("comet, comet.token.{other}")),
    );
    opens(&daemon, path, &[&good_offer, &cookie(&other)], comet);
    opens(&daemon, path, &[&other_offer, &bearer(&good)], comet);
    let refused = |lines: &str, status: u16| {
        let answer = ask(&daemon, get(path, lines));
        assert_eq!(answer.status, status, "{lines}: {}", answer.body);
        answer
    };
    refused(&(other_offer.clone() + &cookie(&good)), 403);
    refused(&(good_offer.clone() + &bearer(&other)), 403);

    assert_unauthorized(&refused(&offers("comet"), 401), "token", "needs a token");
    assert_unauthorized(&refused(&offers("comet, comet.token."), 401), "token", "");
    let expired = offers(&format!("comet, comet.token.{old}"));
    assert_unauthorized(&refused(&expired, 401), "token_expired", "expired");
    let forged = offers(&format!("comet, comet.token.{good}x"));
    assert_unauthorized(&refused(&forged, 401), "token", "");
    // Without `comet` among the names, the answer could only repeat the token.
    let alone = refused(&offers(&format!("comet.token.{good}")), 400);
    assert!(
        alone.body.contains("offer that name, too"),
        "{}",
        alone.body
    );
    // The token counts only in the handshake of a WebSocket.
    let poll = format!("Sec-WebSocket-Protocol: comet, comet.token.{good}\r\n");
    assert_eq!(ask(&daemon, get("/ch/chat.7?wait=0", &poll)).status, 401);
    // Pages of other origins are refused, as with any token.
    refused(&(good_offer + "Origin: https://evil.example\r\n"), 403);
    for secret in [&good, &other, &old] {
        assert!(
            !daemon.log().contains(&secret[secret.len() - 20..]),
            "{}",
            daemon.log()
        );
    }
}

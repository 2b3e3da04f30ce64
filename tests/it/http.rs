//! HTTP apart from the transports: methods, origins, the right to publish, pages, and headers for proxies.

use std::sync::Arc;

use crate::{
    daemon::{Answer, Daemon, Http, directory},
    wire::{ask, data, get, metric, parked, post, refusal},
};

const PUBLISHING: &str = "[http]\npublish = true\n";

/// Reads the head of the answer, also if the body never ends.
fn head(daemon: &Daemon, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Http::connect(daemon.addr());
    client.send(request);
    let head = client.until("\r\n\r\n");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head,
        body: String::new(),
    }
}

fn demo() -> Daemon {
    Daemon::start_in(Arc::new(directory()), "", &["--demo"])
}

#[test]
fn headers_keep_proxies_from_buffering_compressing_and_caching() {
    let daemon = demo();
    daemon.publish("a", "x");
    daemon.publish("chat", "x");
    let accepting = "Accept-Encoding: gzip, br, zstd\r\n";
    let cases = [
        ("/ch/a?since=0", "application/json"),
        ("/ch/a?since=0&as=sse", "text/event-stream; charset=utf-8"),
        ("/ch/a?as=iframe&callback=f", "text/html; charset=utf-8"),
        ("/comet.php?&subscribed[a]=1&99", "application/json"),
        ("/comet.php?&publish=a", "application/json"),
        ("/chat.php?timestamp=0", "application/json"),
        ("/chat.php?msg=x", "text/html; charset=utf-8"),
        ("/clock.php", "text/html; charset=utf-8"),
        ("/healthz", "text/plain"),
        ("/metrics", "text/plain; version=0.0.4"),
    ];
    for (path, content_type) in cases {
        let answer = head(&daemon, get(path, accepting));
        assert_eq!(answer.status, 200, "{path}");
        for (name, value) in [
            ("content-type", Some(content_type)),
            ("cache-control", Some("no-store, no-transform")),
            ("x-accel-buffering", Some("no")),
            ("x-content-type-options", Some("nosniff")),
            ("content-encoding", None),
            ("vary", None),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
        assert!(answer.header("date").unwrap().ends_with(" GMT"), "{path}");
    }
}

#[test]
fn health_and_metrics_are_served() {
    let daemon = Daemon::start(PUBLISHING);
    assert_eq!(daemon.get("/healthz").body, "ok\n");
    let waiting = parked(&daemon, get("/ch/a", ""));
    assert_eq!(ask(&daemon, post("/ch/a", "", b"x")).status, 201);
    daemon.publish("b", "y");
    let metrics = daemon.get("/metrics").body;
    for line in metrics.lines() {
        let is_comment = line.starts_with("# HELP comet_") || line.starts_with("# TYPE comet_");
        let is_sample = line.split_once(' ').is_some_and(|(name, value)| {
            name.starts_with("comet_") && value.parse::<u64>().is_ok()
        });
        assert!(is_comment || is_sample, "{line}");
    }
    for (name, value) in [
        ("comet_published_total", 2),
        ("comet_published_http_total", 1),
        ("comet_published_socket_total", 1),
        ("comet_delivered_total", 1),
        ("comet_history_messages", 2),
    ] {
        assert_eq!(metric(&daemon, name), value, "{name}");
    }
    drop(waiting);
}

#[test]
fn comet_js_is_always_served_and_the_pages_only_with_demo() {
    let (plain, demo) = (Daemon::start(""), demo());
    for daemon in [&plain, &demo] {
        let script = daemon.get("/comet.js");
        assert_eq!(script.status, 200);
        assert_eq!(
            script.header("content-type"),
            Some("text/javascript; charset=utf-8")
        );
        assert_eq!(script.header("cache-control"), Some("no-cache"));
        assert!(script.body.contains("/ch/"));
    }
    let pages = [
        ("/", "text/html; charset=utf-8"),
        ("/touch", "text/html; charset=utf-8"),
        ("/clock", "text/html; charset=utf-8"),
        ("/chat", "text/html; charset=utf-8"),
        ("/demo/demo.css", "text/css; charset=utf-8"),
        ("/demo/demo.js", "text/javascript; charset=utf-8"),
        ("/demo/icon.svg", "image/svg+xml"),
        ("/demo.json", "application/json"),
    ];
    for (path, content_type) in pages {
        let page = demo.get(path);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some(content_type)),
            "{path}"
        );
        let told = refusal(&plain.get(path));
        assert_eq!((told.0, &*told.1), (404, "path"), "{path}");
        assert!(told.2.contains("--demo"), "{path}: {}", told.2);
    }
    let about = demo.get("/demo.json").json();
    assert_eq!(about["dir"].as_str(), demo.dir().to_str());
    assert_eq!(about["listen"], demo.addr().to_string());
}

/// The pages load nothing from other origins and run no inline script, whoever serves the pages.
#[test]
fn pages_load_nothing_from_other_origins() {
    let daemon = demo();
    for path in ["/", "/touch", "/clock", "/chat"] {
        let page = daemon.get(path);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'self'"), "{policy}");
        assert!(
            !page.body.contains("<script>") && !page.body.contains("//cdn"),
            "{path}"
        );
        for (_, rest) in page
            .body
            .match_indices("src=\"")
            .map(|(at, found)| page.body.split_at(at + found.len()))
        {
            let target = rest.split('"').next().unwrap();
            assert_eq!(daemon.get(target).status, 200, "{path} needs {target}");
        }
    }
}

#[test]
fn head_gives_the_head_of_get_at_once() {
    let daemon = demo();
    let mut client = Http::connect(daemon.addr());
    let paths = [
        "/ch/a",
        "/ch/a?as=sse",
        "/ch/a?as=iframe&callback=f",
        "/comet.php?&subscribed[a]=9999999999",
        "/chat.php",
        "/clock.php",
        "/healthz",
        "/comet.js",
        "/",
    ];
    for path in paths {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
        assert!(head.contains("content-type: "), "{path}: {head}");
        if path.contains("/c") && !path.ends_with(".js") {
            // The length of the answer is not known in advance.
            assert!(!head.contains("content-length: 0"), "{path}: {head}");
        }
    }
    // HEAD had no body, otherwise the next answer would not be this one.
    client.send(get("/healthz", ""));
    assert_eq!(client.answer().body, "ok\n");
    // HEAD is refused where GET is refused, and never publishes.
    client.send("HEAD /ch/.. HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 400 "));
    for path in ["/comet.php?publish=a", "/chat.php?msg=a"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.until("\r\n\r\n");
    }
    assert_eq!(metric(&daemon, "comet_published_total"), 0);
}

#[test]
fn options_lists_the_methods() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    for (path, methods) in [
        ("/ch/a", "GET, HEAD, POST, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/comet.php", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, OPTIONS"),
    ] {
        client.send(format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some(methods)),
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[test]
fn pages_of_other_origins_may_read_when_they_are_configured() {
    let config = "[http]\norigins = [\"https://a.example\", \"https://b.example\"]\n";
    let (daemon, closed, open) = (
        Daemon::start(config),
        Daemon::start(""),
        Daemon::start("[http]\norigins = [\"*\"]\n"),
    );
    let cases = [
        (&daemon, "https://a.example", Some("https://a.example")),
        (&daemon, "https://b.example", Some("https://b.example")),
        (&daemon, "https://evil.example", None),
        (&daemon, "https://a.example.evil.example", None),
        (&daemon, "http://a.example", None),
        (&daemon, "null", None),
        (&closed, "https://a.example", None),
        (&closed, "null", None),
        (&open, "https://any.example", Some("*")),
    ];
    for (daemon, origin, allowed) in cases {
        daemon.publish("a", "x");
        let origin_line = format!("Origin: {origin}\r\n");
        let preflight = format!(
            "OPTIONS /ch/a HTTP/1.1\r\nHost: localhost\r\n{origin_line}Access-Control-Request-Method: GET\r\n\
             Access-Control-Request-Headers: last-event-id\r\n\r\n"
        );
        let waiting = parked(daemon, get("/ch/wait", &origin_line));
        daemon.publish("wait", "x");
        let answers = [
            head(daemon, get("/ch/a?since=0", &origin_line)),
            head(daemon, get("/ch/a?since=0&as=sse", &origin_line)),
            head(daemon, get("/ch/..", &origin_line)),
            head(daemon, get("/comet.php?subscribed[a]=1", &origin_line)),
            head(daemon, &preflight),
            { waiting }.answer(),
        ];
        for answer in answers {
            assert_eq!(
                answer.header("access-control-allow-origin"),
                allowed,
                "{origin}: {}",
                answer.head
            );
            // Without Vary, a cache could give one site's answer to another.
            let varies = !std::ptr::eq(daemon, &raw const closed);
            assert_eq!(
                answer.header("vary"),
                varies.then_some("Origin"),
                "{origin}: {}",
                answer.head
            );
        }
        let answer = ask(daemon, preflight);
        assert!(
            answer
                .header("access-control-allow-headers")
                .unwrap()
                .to_ascii_lowercase()
                .contains("last-event-id")
        );
        assert!(
            answer
                .header("access-control-allow-methods")
                .unwrap()
                .contains("POST")
        );
    }
}

/// One channel and one message with readers of different origins: each reader gets its own header.
#[test]
fn a_shared_answer_names_each_readers_origin() {
    let origins: Vec<String> = (0..5).map(|n| format!("https://site{n}.example")).collect();
    let daemon = Daemon::start(&format!("workers = 1\n[http]\norigins = {origins:?}\n"));
    let mut clients = Vec::new();
    for origin in origins
        .iter()
        .map(String::as_str)
        .chain(["https://evil.example", ""])
    {
        for close in ["", "Connection: close\r\n"] {
            let line = if origin.is_empty() {
                String::new()
            } else {
                format!("Origin: {origin}\r\n")
            };
            clients.push((
                origin,
                close,
                parked(&daemon, get("/ch/a", &format!("{line}{close}"))),
            ));
        }
    }
    daemon.publish("a", "x");
    for (origin, close, client) in &mut clients {
        let answer = client.answer();
        let allowed = origin.starts_with("https://site").then_some(&**origin);
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        assert_eq!(
            answer.header("connection").is_some(),
            !close.is_empty(),
            "{origin}"
        );
        assert_eq!(data(&answer), ["x"]);
    }
}

/// Configuration that an address needs if other machines can reach it.
const READABLE: &str = "[[channel]]\nprefix = \"\"\nread = \"public\"\n";

#[test]
fn publishing_by_http_is_off_by_default() {
    let start =
        |config: &str, flags: &[&str]| Daemon::start_in(Arc::new(directory()), config, flags);
    let cases = [
        (start("", &[]), false),
        (start(PUBLISHING, &[]), true),
        (start("", &["--demo"]), true),
        (start("[http]\npublish = false\n", &["--demo"]), false),
        // A demo that other machines can reach does not let them publish.
        (start(READABLE, &["--demo", "--listen", "0.0.0.0:0"]), false),
        (
            start(&[READABLE, PUBLISHING].concat(), &["--listen", "0.0.0.0:0"]),
            true,
        ),
    ];
    for (n, (daemon, on)) in cases.iter().enumerate() {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], daemon.addr().port()));
        let ask = |request: Vec<u8>| {
            let mut client = Http::connect(addr);
            client.send(request);
            client.answer()
        };
        let answer = ask(post("/ch/a", "", b"x"));
        let old = [
            ask(get("/comet.php?publish=a", "").into()),
            ask(get("/chat.php?msg=a", "").into()),
        ];
        if *on {
            assert_eq!(answer.status, 201, "case {n}");
            assert_eq!(
                (old[0].status, &*old[0].body, old[1].status),
                (200, "true", 200),
                "case {n}"
            );
        } else {
            let hint = "publishing over HTTP is off; set publish = true under [http] to allow it";
            assert_eq!(
                refusal(&answer),
                (403, "forbidden".into(), hint.into()),
                "case {n}"
            );
            assert_eq!(
                (old[0].status, &*old[0].body, old[1].status),
                (200, "false", 403),
                "case {n}"
            );
        }
        assert_eq!(
            daemon.history("a").len() + daemon.history("chat").len(),
            if *on { 3 } else { 0 },
            "case {n}"
        );
    }
}

#[test]
fn pages_of_other_origins_may_not_publish() {
    let daemon = Daemon::start("[http]\npublish = true\norigins = [\"https://a.example\"]\n");
    let cases = [
        ("", true),
        ("Origin: http://comet.localhost\r\n", true),
        ("Origin: https://comet.localhost\r\n", true), // behind a proxy that speaks TLS
        ("Origin: https://a.example\r\n", true),
        ("Origin: https://evil.example\r\n", false),
        ("Origin: http://comet.localhost:8080\r\n", false),
        ("Origin: http://comet.localhost.evil.example\r\n", false),
        ("Origin: null\r\n", false),
        ("Sec-Fetch-Site: cross-site\r\n", false),
        ("Sec-Fetch-Site: same-site\r\n", false),
        ("Sec-Fetch-Site: same-origin\r\n", true),
        ("Sec-Fetch-Site: none\r\n", true), // typed by a person
        (
            "Origin: http://comet.localhost\r\nSec-Fetch-Site: same-origin\r\n",
            true,
        ),
        (
            "Origin: https://a.example\r\nSec-Fetch-Site: cross-site\r\n",
            true,
        ),
    ];
    for (headers, allowed) in cases {
        let published = metric(&daemon, "comet_published_total");
        let by_post = ask(&daemon, post("/ch/a", headers, b"x"));
        let by_msg = ask(&daemon, get("/chat.php?msg=x", headers));
        let by_publish = ask(&daemon, get("/comet.php?publish=a", headers));
        let expected = if allowed {
            (201, 200, "true")
        } else {
            (403, 403, "false")
        };
        assert_eq!(
            (by_post.status, by_msg.status, &*by_publish.body),
            expected,
            "{headers}"
        );
        assert_eq!(by_publish.status, 200, "{headers}");
        let count = metric(&daemon, "comet_published_total") - published;
        assert_eq!(count, if allowed { 3 } else { 0 }, "{headers}");
    }
    let answer = ask(
        &daemon,
        post("/ch/a", "Origin: https://evil.example\r\n", b"x"),
    );
    let hint = "pages of https://evil.example may not publish; it is allowed by origins = [\"https://evil.example\"] under [http]";
    assert_eq!(refusal(&answer), (403, "forbidden".into(), hint.into()));
}

#[test]
fn the_same_key_gives_the_first_id_back() {
    let daemon = Daemon::start(PUBLISHING);
    let publish = |path: &str, key: &str, text: &str| {
        let answer = ask(
            &daemon,
            post(
                path,
                &format!("Idempotency-Key: {key}\r\n"),
                text.as_bytes(),
            ),
        );
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (201, Some("application/json"))
        );
        answer.json()["id"].as_u64().unwrap()
    };
    let first = publish("/ch/a", "k1", "one");
    assert_eq!(publish("/ch/a", "k1", "one again"), first);
    assert!(publish("/ch/a", "k2", "two") > first);
    assert!(publish("/ch/b", "k1", "elsewhere") > first);
    let texts: Vec<String> = daemon
        .history("a")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert_eq!(texts, ["one", "two"]);
}

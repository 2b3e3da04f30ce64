//! Pages of other sites: their requests do not publish. They cannot read either, even if a host name of theirs resolves
//! to this machine.

use crate::{
    daemon::{Answer, Daemon, Http},
    http2,
    wire::{WEBSOCKET, ask, data, get, post, refusal},
};

const PUBLISHING: &str = "[http]\npublish = true\n";

/// Headers that old and new browsers send for a page of another site.
const FOREIGN: [&str; 9] = [
    "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n",
    "Origin: https://evil.example\r\n",
    "Origin: null\r\n",
    "Origin: http://comet.localhost:1234\r\nSec-Fetch-Site: same-site\r\n",
    "Origin: http://localhost\r\n",
    "Sec-Fetch-Site: cross-site\r\n",
    "Sec-Fetch-Site: same-site\r\nReferer: http://comet.localhost/\r\n",
    "Referer: https://evil.example/page?http://comet.localhost/\r\n",
    "Referer: http://comet.localhost.evil.example/\r\n",
];

#[track_caller]
fn assert_refused(answer: &Answer, what: &str) {
    let (status, code, message) = refusal(answer);
    assert_eq!((status, &*code), (403, "forbidden"), "{what}");
    assert!(message.contains("may not publish"), "{what}: {message}");
}

#[test]
fn a_page_of_another_site_publishes_nothing() {
    let daemon = Daemon::start(PUBLISHING);
    for headers in FOREIGN {
        // Requests that a form or fetch() sends without a preflight.
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            let headers = format!("{headers}Content-Type: {kind}\r\n");
            for path in ["/ch/chat", "/ch/%63hat"] {
                assert_refused(&ask(&daemon, post(path, &headers, b"a=b")), &headers);
            }
        }
        // The request of an image or a link.
        assert_refused(&ask(&daemon, get("/chat.php?msg=x", headers)), headers);
        let answer = ask(&daemon, get("/comet.php?publish=chat", headers));
        assert_eq!((answer.status, &*answer.body), (200, "false"), "{headers}");
    }
    assert!(daemon.history("chat").is_empty());
}

#[test]
fn a_page_of_this_site_publishes_and_so_does_no_browser() {
    let daemon = Daemon::start(PUBLISHING);
    let ours = [
        "",
        "Origin: http://comet.localhost\r\nSec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\n",
        "Referer: https://comet.localhost/chat?x\r\n",
        "Referer: http://comet.localhost\r\n",
    ];
    for headers in ours {
        for path in ["/ch/chat", "/ch/%63hat"] {
            assert_eq!(
                ask(&daemon, post(path, headers, b"x")).status,
                201,
                "{headers}"
            );
        }
        assert_eq!(
            ask(&daemon, get("/chat.php?msg=x", headers)).status,
            200,
            "{headers}"
        );
        assert_eq!(
            ask(&daemon, get("/comet.php?publish=chat", headers)).body,
            "true",
            "{headers}"
        );
    }
    assert_eq!(daemon.history("chat").len(), 4 * ours.len());
}

/// Requests of all kinds with a foreign host name, for which the browser treats the daemon as part of the foreign site.
fn rebound(host: &str) -> Vec<String> {
    let with = |request: String| {
        let origin = format!("\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
        request
            .replace("Host: comet.localhost", &format!("Host: {host}"))
            .replacen("\r\n", &origin, 1)
    };
    let post = String::from_utf8(post("/ch/news", "", b"x")).unwrap();
    [
        get("/ch/news?since=0", ""),
        get("/ch/new%73?since=0", ""),
        get("/ch/news?since=0", "Accept: text/event-stream\r\n"),
        get("/ch/news?since=0&as=iframe&callback=f", ""),
        get("/ch/news?since=0", WEBSOCKET),
        get("/comet.php?subscribed[news]=1", ""),
        get("/comet.php?publish=news", ""),
        get("/chat.php?timestamp=0", ""),
        get("/chat.php?msg=x", ""),
        get("/clock.php", ""),
        get("/metrics", ""),
        get("/", ""),
        post.replace("/news", "/new%73"),
        post,
    ]
    .map(with)
    .into()
}

#[test]
fn a_name_that_is_made_to_point_here_gets_nothing() {
    let daemon = Daemon::start(&format!("demo = true\n{PUBLISHING}"));
    daemon.publish("news", "secret");
    daemon.publish("chat", "secret");
    for host in [
        "evil.example",
        "evil.example:2061",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ] {
        for request in rebound(host) {
            let answer = ask(&daemon, &request);
            let (status, code, message) = refusal(&answer);
            assert_eq!((status, &*code), (421, "host"), "{request}");
            let name = host.split(':').next().unwrap();
            assert!(
                message.contains(&format!("hosts = [\"{name}\"] under [http]")),
                "{message}"
            );
        }
    }
    assert_eq!(
        daemon.history("news").len() + daemon.history("chat").len(),
        2
    );
}

#[test]
fn addresses_and_configured_names_are_answered() {
    let ask_as = |daemon: &Daemon, host: &str| {
        let request = get("/ch/news?since=0&wait=0", "");
        let whole = ask(daemon, request.replace("comet.localhost", host)).status;
        let escaped = get("/ch/new%73?since=0&wait=0", "");
        assert_eq!(
            ask(daemon, escaped.replace("comet.localhost", host)).status,
            whole,
            "{host}"
        );
        whole
    };
    let daemon = Daemon::start("[http]\nhosts = [\"example.org\"]\n");
    for host in [
        "127.0.0.1",
        "10.0.0.1:80",
        "[::1]:2061",
        "localhost",
        "a.localhost:1",
        "example.org",
        "Example.ORG:443",
    ] {
        assert_eq!(ask_as(&daemon, host), 200, "{host}");
    }
    for host in ["www.example.org", "evil.example", ""] {
        assert_eq!(ask_as(&daemon, host), 421, "{host}");
    }
    let any = Daemon::start("[http]\nhosts = [\"*\"]\n");
    assert_eq!(ask_as(&any, "evil.example"), 200);
}

#[test]
fn a_request_says_whom_it_asks() {
    let daemon = Daemon::start("");
    daemon.publish("a", "x");
    for path in ["/ch/a?since=0", "/ch/%61?since=0", "/metrics"] {
        let (status, code, message) =
            refusal(&ask(&daemon, format!("GET {path} HTTP/1.1\r\n\r\n")));
        assert_eq!((status, &*code), (400, "host"));
        assert!(message.contains("Host header"), "{message}");
        // HTTP/1.0 does not have this header.
        assert_eq!(
            ask(&daemon, format!("GET {path} HTTP/1.0\r\n\r\n")).status,
            200
        );
        let rebound = format!("GET {path} HTTP/1.0\r\nHost: evil.example\r\n\r\n");
        assert_eq!(ask(&daemon, rebound).status, 421);
    }
    // The host in an absolute URL counts (RFC 9112, section 3.2.2).
    let absolute = |url: &str, host: &str| {
        ask(
            &daemon,
            format!("GET http://{url}/ch/a?since=0 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        )
    };
    assert_eq!(data(&absolute("localhost", "localhost")), ["x"]);
    assert_eq!(absolute("evil.example", "localhost").status, 421);
    assert_eq!(absolute("evil.example", "evil.example").status, 421);
    // The connection stays open.
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/a?since=0", "").replace("comet.localhost", "evil.example"));
    assert_eq!(client.answer().status, 421);
    client.send(get("/ch/a?since=0", ""));
    assert_eq!(data(&client.answer()), ["x"]);
}

#[test]
fn http2_says_it_by_its_authority() {
    let daemon = Daemon::start(PUBLISHING);
    daemon.publish("a", "x");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        assert_eq!(client.json("/ch/a?since=0").await.0, 200);
        let evil = client.asking("evil.example:2061");
        for path in ["/ch/a?since=0", "/ch/a?as=sse", "/metrics"] {
            let (status, json) = evil.json(path).await;
            assert_eq!((status, &json["error"]), (421, &"host".into()), "{path}");
        }
        assert_eq!(evil.post("/ch/a", "x").await.status(), 421);
        // A page of this authority belongs to this site.
        let ours = client.asking("comet.localhost");
        let page = ours.with_header("origin", "http://comet.localhost");
        assert_eq!(page.post("/ch/a", "x").await.status(), 201);
        let page = ours.with_header("origin", "https://evil.example");
        assert_eq!(page.post("/ch/a", "x").await.status(), 403);
    });
    assert_eq!(daemon.history("a").len(), 2);
}

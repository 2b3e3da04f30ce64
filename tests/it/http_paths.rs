//! Each URL has one meaning: escapes in paths are decoded once, in all paths alike. No other normalisation takes place.

use http_body_util::Full;

use crate::{
    daemon::{Daemon, directory},
    http2,
    wire::{ask, data, get, post, refusal},
};

/// The path with each byte escaped, except the slashes.
fn escaped(path: &str) -> String {
    let escape = |c: char| match c {
        '/' => "/".to_owned(),
        c => format!("%{:02x}", u32::from(c)),
    };
    path.chars().map(escape).collect()
}

#[test]
fn escapes_mean_what_they_stand_for_on_every_path() {
    let config = "[http]\npublish = true\n[compat]\nzeitoun_chat = \"/old/chat.php\"\n";
    let daemon = Daemon::start_in(std::sync::Arc::new(directory()), config, &["--demo"]);
    daemon.publish("chat", "x");
    for path in [
        "/healthz",
        "/comet.js",
        "/comet.php",
        "/old/chat.php",
        "/demo/demo.js",
        "/demo.json",
        "/touch",
    ] {
        let ask = |path: &str| {
            let request = get(&format!("{path}?subscribed[chat]=1"), "");
            ask(&daemon, request).status
        };
        assert_eq!(ask(path), 200, "{path}");
        let (whole, upper) = (escaped(path), escaped(path).to_uppercase());
        let one = path.replace('e', "%65").replace('c', "%63");
        for spelt in [&whole, &upper, &one] {
            assert_eq!(ask(spelt), 200, "{spelt}");
        }
        // An escaped slash is no separator, a double escape is decoded once, and dots and slashes are not normalised.
        for other in [
            path.replacen("/", "/%2f", 1),
            escaped(path).replace('%', "%25"),
            format!("/.{path}"),
            format!("/{path}"),
            format!("/x/..{path}"),
            format!("/%2e{path}"),
            format!("{path}/"),
            format!("{path}%"),
            format!("{path}%00"),
            format!("{path}%zz"),
            format!("{path}%2"),
            format!("{path}%20"),
            format!("{path};x"),
            path.to_uppercase(),
        ] {
            assert_eq!(ask(&other), 404, "{other}");
        }
    }
}

#[test]
fn channels_are_found_by_escaped_paths_with_the_rules_of_their_names() {
    let config = "[http]\npublish = true\n[[channel]]\nprefix = \"shut\"\nread = \"closed\"\npublish = \"closed\"\n";
    let daemon = Daemon::start(config);
    daemon.publish("a", "x");
    for path in ["/ch/a", "/%63h/a", "/c%68/%61", "/%63%68/a%2Ca"] {
        let answer = ask(&daemon, get(&format!("{path}?since=0"), ""));
        assert_eq!(data(&answer), ["x"], "{path}");
    }
    for path in ["/%63h/b", "/ch/%62"] {
        assert_eq!(ask(&daemon, post(path, "", b"x")).status, 201, "{path}");
    }
    for path in [
        "/ch/shut",
        "/%63h/shut",
        "/ch/%73hut",
        "/%63%68/%73%68%75%74",
    ] {
        assert_eq!(ask(&daemon, get(path, "")).status, 403, "{path}");
        assert_eq!(ask(&daemon, post(path, "", b"x")).status, 403, "{path}");
    }
    for (path, status, code) in [
        ("/ch%2Fa", 404, "path"),
        ("/ch%2fa/b", 404, "path"),
        ("/%2563h/a", 404, "path"),
        ("//ch/a", 404, "path"),
        ("/./ch/a", 404, "path"),
        ("/x/../ch/a", 404, "path"),
        ("/%2e/ch/a", 404, "path"),
        ("/%00ch/a", 404, "path"),
        ("/%zzch/a", 404, "path"),
        ("/ch/a%2Fb", 400, "channel"),
        ("/ch/%2561", 400, "channel"),
        ("/ch/./a", 400, "channel"),
        ("/ch//a", 400, "channel"),
        ("/ch/a/", 400, "channel"),
        ("/ch/%zz", 400, "channel"),
        ("/%63h/a%00", 400, "channel"),
    ] {
        let told = refusal(&ask(&daemon, get(path, "")));
        assert_eq!((told.0, &*told.1), (status, code), "{path}: {}", told.2);
    }
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        assert_eq!(client.get("/%63h/a?since=0").await.status(), 200);
        assert_eq!(client.get("/%68ealthz").await.status(), 200);
        assert_eq!(client.get("/%63h/shut").await.status(), 403);
        assert_eq!(client.get("/ch%2Fa").await.status(), 404);
    });
}

/// Load balancers send no Host, or their own.
#[test]
fn whether_the_daemon_is_well_may_be_asked_under_any_name() {
    let daemon = Daemon::start("");
    let requests = |path: &str| {
        [
            format!("GET {path} HTTP/1.1\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost:\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: balancer.example:8080\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: b\u{e4}lancer\r\n\r\n"),
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("GET {path} HTTP/1.0\r\nHost: balancer.example\r\n\r\n"),
            format!("GET http://balancer.example{path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        ]
    };
    for path in ["/healthz", "/healthz?x=y", "/%68ealthz"] {
        for request in requests(path) {
            let answer = ask(&daemon, &request);
            assert_eq!((answer.status, &*answer.body), (200, "ok\n"), "{request}");
            for (method, status) in [("HEAD", "200"), ("OPTIONS", "204"), ("POST", "405")] {
                let mut client = crate::daemon::Http::connect(daemon.addr());
                client.send(request.replacen("GET", method, 1));
                let head = client.until("\r\n\r\n");
                assert_eq!(head.split(' ').nth(1), Some(status), "{method} {request}");
            }
        }
    }
    // No other path allows that.
    for path in [
        "/ch/a?wait=0",
        "/metrics",
        "/comet.js",
        "/healthz/",
        "/healthz%2f",
        "/nowhere",
    ] {
        for request in requests(path) {
            let status = ask(&daemon, &request).status;
            let is_old = request.contains("HTTP/1.0\r\n\r\n");
            assert!(is_old || matches!(status, 400 | 421), "{status} {request}");
        }
    }
    // With two Hosts a request would have two meanings.
    let twice = "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    assert_eq!(ask(&daemon, twice).status, 400);
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let foreign = client.asking("balancer.example");
        for method in ["GET", "HEAD", "OPTIONS"] {
            let request = foreign.request(method, "/healthz");
            let response = foreign.send(request.body(Full::default()).unwrap()).await;
            assert!(response.status().is_success(), "{method}");
        }
        assert_eq!(foreign.get("/metrics").await.status(), 421);
    });
}

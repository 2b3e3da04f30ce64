//! `HEAD` has exactly the head that `GET` has, and no body.

use std::collections::BTreeMap;

use http_body_util::{BodyExt, Full};

use crate::{
    daemon::{Daemon, Http, directory},
    http2,
    wire::get,
};

/// Status line and headers, without the date and without the headers of a body's framing.
fn fields(head: &str) -> BTreeMap<String, String> {
    let mut lines = head.trim_end().split("\r\n");
    let status = ("status".to_owned(), lines.next().unwrap().to_owned());
    let fields = lines.filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let is_kept = |(name, _): &(String, String)| name != "date" && name != "transfer-encoding";
    std::iter::once(status)
        .chain(fields.filter(is_kept))
        .collect()
}

fn daemon() -> Daemon {
    let config = "[http]\npublish = true\norigins = [\"https://page.example\"]\n\
        [[channel]]\nprefix = \"shut\"\nread = \"closed\"\n";
    let daemon = Daemon::start_in(std::sync::Arc::new(directory()), config, &["--demo"]);
    daemon.publish("a", "x");
    daemon.publish("chat", "x");
    daemon
}

const PATHS: [&str; 22] = [
    "/ch/a?since=0",
    "/ch/a?wait=0",
    "/ch/a?wait=1",
    "/ch/a?wait=0&since=99999999999999999",
    "/ch/a,b?since=0",
    "/ch/%61?since=0",
    "/ch/a?as=sse",
    "/ch/a?as=sse&since=0",
    "/ch/a?as=iframe&callback=f",
    "/comet.php?subscribed[a]=1",
    "/chat.php?timestamp=0",
    "/clock.php",
    "/healthz",
    "/comet.js",
    "/",
    "/demo/demo.js",
    "/ch/..",
    "/ch/a?since=x",
    "/ch/a?as=websocket",
    "/ch/shut",
    "/nowhere",
    "/%",
];

#[test]
fn a_head_is_that_of_get() {
    let daemon = daemon();
    let long = format!("/ch/{}", "x".repeat(8200));
    for path in PATHS.into_iter().chain([&*long]) {
        for headers in [
            "",
            "Origin: https://page.example\r\n",
            "Accept: text/event-stream\r\n",
        ] {
            let request = get(path, headers);
            let mut client = Http::connect(daemon.addr());
            client.send(request.replacen("GET", "HEAD", 1));
            let head = client.until("\r\n\r\n");
            // HEAD had no body, otherwise the next answer would not be this one.
            client.send(get("/healthz", ""));
            assert_eq!(client.answer().body, "ok\n", "{path}");
            client.send(&request);
            let expected = client.until("\r\n\r\n");
            assert_eq!(fields(&head), fields(&expected), "{path} {headers}");
            let is_stream = expected.contains("transfer-encoding");
            assert_eq!(
                expected.contains("content-length"),
                !is_stream,
                "{expected}"
            );
            let is_poll = path.starts_with("/ch/a?wait") && headers.is_empty();
            assert!(!is_poll || expected.contains("etag: \""), "{expected}");
        }
    }
    // Where GET would publish, HEAD does not, and has the same head.
    for path in ["/comet.php?publish=a", "/chat.php?msg=x"] {
        let head = |method: &str| {
            let mut client = Http::connect(daemon.addr());
            client.send(get(path, "").replacen("GET", method, 1));
            fields(&client.until("\r\n\r\n"))
        };
        assert_eq!(head("HEAD")["status"], "HTTP/1.1 200 OK", "{path}");
        assert_eq!(
            (daemon.history("chat").len(), daemon.history("a").len()),
            (1, 1)
        );
        if path.starts_with("/chat") {
            assert_eq!(head("HEAD"), head("GET"));
        }
    }
}

#[test]
fn http_2_alike() {
    let daemon = daemon();
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        for path in PATHS {
            let ask = async |method: &str| {
                let request = client.request(method, path).body(Full::default()).unwrap();
                let (mut head, body) = client.send(request).await.into_parts();
                head.headers.remove("date");
                (head.status, head.headers, body)
            };
            let (status, headers, body) = ask("HEAD").await;
            assert!(
                body.collect().await.unwrap().to_bytes().is_empty(),
                "{path}"
            );
            let expected = ask("GET").await;
            assert_eq!((status, headers), (expected.0, expected.1), "{path}");
        }
    });
}

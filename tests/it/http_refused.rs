//! Requests that break a rule: they get a status, a code and a message that names the rule, and the connection stays
//! open.

use crate::{
    daemon::{Answer, Daemon, Http},
    http_limits::{Bystander, PUBLISHING},
    wire::{get, post, refusal},
};

/// Checks the error of a refused request, and that the connection stays open.
#[track_caller]
pub(crate) fn is_refused(
    client: &mut Http,
    request: &[u8],
    status: u16,
    code: &str,
    message: &str,
) -> Answer {
    let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
    client.send(request);
    let answer = client.answer();
    let told = refusal(&answer);
    assert_eq!((told.0, &*told.1), (status, code), "{shown:?}: {}", told.2);
    assert!(told.2.contains(message), "{shown:?}: {}", told.2);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{shown:?}"
    );
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store, no-transform"),
        "{shown:?}"
    );
    client.send(get("/healthz", ""));
    assert_eq!(client.answer().body, "ok\n", "after {shown:?}");
    answer
}

#[test]
fn names_cursors_and_parameters_are_refused_with_the_rule() {
    let daemon = Daemon::start(PUBLISHING);
    let bystander = Bystander::wait(&daemon);
    let mut client = Http::connect(daemon.addr());
    let ten_thousand = (0..1500)
        .map(|n| format!("c{n}"))
        .collect::<Vec<_>>()
        .join(",");
    let names = "allowed: A-Z a-z 0-9 _ . : = + @ ~ -";
    let cases = [
        ("/ch/", 400, "channel", "may not be empty"),
        ("/ch/a,,b", 400, "channel", "may not be empty"),
        ("/ch/..", 400, "channel", "may not start with a dot"),
        ("/ch/.hidden", 400, "channel", "may not start with a dot"),
        (
            "/ch/../../etc/passwd",
            400,
            "channel",
            "may not start with a dot",
        ),
        (
            "/ch/%2e%2e%2fetc",
            400,
            "channel",
            "may not start with a dot",
        ),
        ("/ch/a/b", 400, "channel", "may not contain '/'"),
        ("/ch/a%00b", 400, "channel", "may not contain '\\0'"),
        ("/ch/a%0d%0ab", 400, "channel", "may not contain '\\r'"),
        ("/ch/a%20b", 400, "channel", names),
        ("/ch/%C3%A9", 400, "channel", "may not contain 'é'"),
        ("/ch/%FF", 400, "channel", "not UTF-8"),
        ("/ch/%ED%A0%80", 400, "channel", "not UTF-8"),
        ("/ch/%", 400, "channel", "may not contain '%'"),
        ("/ch/%zz", 400, "channel", "may not contain '%'"),
        (
            &format!("/ch/{}", "x".repeat(201)),
            400,
            "channel",
            "201 bytes is over the limit of 200",
        ),
        (
            &format!("/ch/{}", "x".repeat(8000)),
            400,
            "channel",
            "8000 bytes is over the limit of 200",
        ),
        (
            &format!("/ch/{ten_thousand}"),
            400,
            "channels",
            "1500 channels are over the limit of 100",
        ),
        (
            &format!("/ch/{}", "x".repeat(8200)),
            414,
            "url",
            "URL of 8204 bytes is over the limit of 8192",
        ),
        (
            "/ch/a?since=-1",
            400,
            "since",
            "a message id, 0, or an RFC 3339 time",
        ),
        ("/ch/a?since=1.5", 400, "since", "RFC 3339"),
        ("/ch/a?since=1e9", 400, "since", "RFC 3339"),
        ("/ch/a?since=now", 400, "since", "RFC 3339"),
        (
            "/ch/a?since=18446744073709551616",
            400,
            "since",
            "over the limit of 18446744073709551615",
        ),
        (
            "/ch/a?since=1969-12-31T23:59:59Z",
            400,
            "since",
            "before 1970",
        ),
        ("/ch/a?since=2026-02-30T00:00:00Z", 400, "since", "RFC 3339"),
        ("/ch/a?since=%00", 400, "since", "RFC 3339"),
        ("/ch/a?since=0&since=x", 400, "since", "RFC 3339"),
        ("/ch/a?wait=-1", 400, "wait", "whole seconds from 0 to 60"),
        ("/ch/a?wait=61", 400, "wait", "whole seconds from 0 to 60"),
        ("/ch/a?wait=1.5", 400, "wait", "whole seconds from 0 to 60"),
        ("/ch/a?wait=", 400, "wait", "whole seconds from 0 to 60"),
        (
            "/ch/a?wait=99999999999999999999",
            400,
            "wait",
            "whole seconds from 0 to 60",
        ),
        ("/ch/a?since=%FF", 400, "query", "not UTF-8"),
        ("/ch/a?%ff=1", 400, "query", "not UTF-8"),
        ("/ch/a?as=pigeon", 400, "as", "no transport \"pigeon\""),
        ("/ch/a?as=", 400, "as", "no transport \"\""),
        ("/ch/a?as=iframe", 400, "callback", "needs callback="),
        (
            "/ch/a?as=iframe&callback=",
            400,
            "callback",
            "names joined by dots",
        ),
        (
            "/ch/a?as=iframe&callback=alert(1)",
            400,
            "callback",
            "names joined by dots",
        ),
        (
            "/ch/a?as=iframe&callback=a.b%3C/script%3E",
            400,
            "callback",
            "names joined by dots",
        ),
        ("/", 404, "path", "nothing is at /"),
        ("/ch", 404, "path", "channels are at /ch/NAME"),
        ("/CH/news", 404, "path", "channels are at /ch/NAME"),
        ("//ch/news", 404, "path", "channels are at /ch/NAME"),
        ("/%2563h/news", 404, "path", "channels are at /ch/NAME"),
        ("/ch%2Fnews", 404, "path", "channels are at /ch/NAME"),
        ("/../ch/news", 404, "path", "channels are at /ch/NAME"),
        ("/metrics/", 404, "path", "nothing is at /metrics/"),
        ("/comet.js%00", 404, "path", "nothing is at"),
    ];
    for (path, status, code, message) in cases {
        is_refused(&mut client, get(path, "").as_bytes(), status, code, message);
    }
    let header = "headers of";
    let headers = [
        ("Last-Event-ID: x\r\n", 400, "last-event-id", "RFC 3339"),
        (
            "Last-Event-ID: \u{e9}\r\n",
            400,
            "last-event-id",
            "RFC 3339",
        ),
        (
            &format!("X: {}\r\n", "y".repeat(16 << 10)),
            431,
            "headers",
            header,
        ),
        (
            &(0..99)
                .map(|n| format!("X{n}: {}\r\n", "y".repeat(160)))
                .collect::<String>(),
            431,
            "headers",
            header,
        ),
    ];
    for (lines, status, code, message) in headers {
        is_refused(
            &mut client,
            get("/ch/a", lines).as_bytes(),
            status,
            code,
            message,
        );
    }
    bystander.gets_its_message(&daemon);
}

#[test]
fn publishes_are_refused_with_the_rule() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000\n");
    let bystander = Bystander::wait(&daemon);
    let mut client = Http::connect(daemon.addr());
    let long = format!("/ch/a?name={}", "x".repeat(201));
    let attribute = format!("/ch/a?attribute.k={}", "x".repeat(2048));
    let many: Vec<String> = (0..101).map(|n| format!("c{n}")).collect();
    let many = format!("/ch/{}", many.join(","));
    let cases: [(&str, &str, &str, &str); 17] = [
        ("/ch/a,,b", "", "channel", "may not be empty"),
        (
            "/ch/a?attribute.k=1&attribute.k=2",
            "",
            "attributes",
            "attribute \"k\" is set twice",
        ),
        (
            &attribute,
            "",
            "attributes",
            "2049 bytes are over the limit of 2048",
        ),
        (
            &many,
            "",
            "channels",
            "101 channels are over the limit of 100",
        ),
        ("/ch/a/b", "", "channel", "may not contain '/'"),
        ("/ch/", "", "channel", "may not be empty"),
        ("/ch/a?name=a%0Ab", "", "name", "may not contain '\\n'"),
        (&long, "", "name", "201 bytes is over the limit of 200"),
        ("/ch/a?name=%FF", "", "query", "not UTF-8"),
        (
            "/ch/a",
            &format!("Idempotency-Key: {}\r\n", "k".repeat(1000)),
            "idempotency-key",
            "visible ASCII",
        ),
        (
            "/ch/a",
            "Idempotency-Key: \u{e9}\r\n",
            "idempotency-key",
            "visible ASCII",
        ),
        (
            "/ch/a",
            "Idempotency-Key: k\r\nIdempotency-Key: k\r\n",
            "idempotency-key",
            "more than one key",
        ),
        (
            "/ch/a",
            "Idempotency-Key: a b\r\n",
            "idempotency-key",
            "visible ASCII without blanks",
        ),
        (
            "/ch/a",
            "Idempotency-Key: a\tb\r\n",
            "idempotency-key",
            "visible ASCII without blanks",
        ),
        // These requests do not take the plain path.
        (
            "/ch/%61",
            "Idempotency-Key: a b\r\n",
            "idempotency-key",
            "visible ASCII without blanks",
        ),
        (
            "/ch/%61",
            "Idempotency-Key: a\tb\r\n",
            "idempotency-key",
            "visible ASCII without blanks",
        ),
        ("/ch/%FF", "", "channel", "not UTF-8"),
    ];
    for (path, headers, code, message) in cases {
        is_refused(
            &mut client,
            &post(path, headers, b"data"),
            400,
            code,
            message,
        );
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn methods_are_refused_with_those_that_are_allowed() {
    let daemon = Daemon::start(PUBLISHING);
    let mut client = Http::connect(daemon.addr());
    let cases = [
        ("PUT", "/ch/a", "GET, HEAD, POST"),
        ("DELETE", "/ch/a", "GET, HEAD, POST"),
        ("PATCH", "/ch/a", "GET, HEAD, POST"),
        ("TRACE", "/ch/a", "GET, HEAD, POST"),
        ("BREW", "/ch/a", "GET, HEAD, POST"),
        ("get", "/ch/a", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/comet.js", "GET, HEAD"),
        ("POST", "/comet.php", "GET, HEAD"),
        ("POST", "/chat.php", "GET, HEAD"),
        ("POST", "/clock.php", "GET, HEAD"),
    ];
    for (method, path, allowed) in cases {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = is_refused(&mut client, request.as_bytes(), 405, "method", allowed);
        assert!(
            answer
                .header("allow")
                .is_some_and(|allow| allow.starts_with(allowed)),
            "{}",
            answer.head
        );
    }
}

//! The form of a subscription that a request gets by its `Accept` headers (RFC 9110, section 12.5.1), the same on the
//! plain path and in hyper.

use crate::{
    daemon::{Daemon, Http},
    wire::get,
};

/// The media type of the answer to a poll that does not wait, or of a stream.
fn form(daemon: &Daemon, path: &str, headers: &str) -> String {
    let mut client = Http::connect(daemon.addr());
    client.send(get(path, headers));
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "));
    line.unwrap().to_owned()
}

#[test]
fn the_heavier_form_wins() {
    let daemon = Daemon::start("");
    let (poll, stream) = ("application/json", "text/event-stream; charset=utf-8");
    let cases = [
        ("", poll),
        ("Accept: */*\r\n", poll),
        ("Accept: text/event-stream\r\n", stream),
        ("accept: TEXT/EVENT-STREAM\r\n", stream),
        ("Accept: text/event-stream;charset=utf-8;q=0.3\r\n", stream),
        ("Accept: text/event-stream;q=0\r\n", poll),
        ("Accept: text/event-stream;q=0.000, */*;q=0.1\r\n", poll),
        ("Accept: application/json, text/event-stream\r\n", stream),
        (
            "Accept: application/json, text/event-stream;q=0.5\r\n",
            poll,
        ),
        (
            "Accept: application/json;q=0.5\r\nAccept: text/event-stream\r\n",
            stream,
        ),
        (
            "Accept: text/event-stream;q=0.5\r\nAccept: application/json\r\n",
            poll,
        ),
        ("Accept: text/*\r\n", stream),
        ("Accept: text/*, application/json\r\n", poll),
        ("Accept: text/*, text/event-stream;q=0, */*;q=0.1\r\n", poll),
        ("Accept: text/html\r\n", poll),
        (
            "Accept: text/html, application/xhtml+xml, */*;q=0.8\r\n",
            poll,
        ),
        ("Accept: text/html;x=\"a, text/event-stream\"\r\n", poll),
        ("Accept:\r\n", poll),
    ];
    for (headers, expected) in cases {
        // `%61` keeps a request off the plain path.
        for path in ["/ch/a?wait=0", "/ch/%61?wait=0"] {
            assert_eq!(form(&daemon, path, headers), expected, "{path} {headers}");
        }
        // A parameter in the URL overrides the headers.
        assert_eq!(
            form(&daemon, "/ch/a?wait=0&as=poll", headers),
            poll,
            "{headers}"
        );
        assert_eq!(form(&daemon, "/ch/a?as=sse", headers), stream, "{headers}");
    }
}

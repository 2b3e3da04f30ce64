//! All ways in which clients, polyfills and proxies send back the cursor that they got.

use crate::{
    daemon::{Daemon, Http},
    wire::{Events, WEBSOCKET, ask, cursor, data, get, refusal},
};

/// The parameters that replace the header `Last-Event-ID`.
const PARAMETERS: [&str; 5] = [
    "lastEventId",
    "Last-Event-ID",
    "lastEventID",
    "evs_last_event_id",
    "last_event_id",
];

/// The first data of a transport: the data of its first message.
fn first(daemon: &Daemon, transport: &str, query: &str, headers: &str) -> String {
    let path = format!("/ch/a?{transport}&{query}");
    let headers = match transport {
        "as=websocket" => format!("{headers}{WEBSOCKET}"),
        _ => headers.to_owned(),
    };
    let mut client = Http::connect(daemon.addr());
    client.send(get(&path, &headers));
    client.until_bytes(b"\"data\":\"");
    client.until("\"")
}

#[test]
fn every_transport_resumes_by_the_header_or_by_the_parameters_that_stand_in_for_it() {
    let daemon = Daemon::start("");
    let ids: Vec<u64> = ["one", "two", "three", "four", "five"]
        .map(|text| daemon.publish("a", text))
        .into();
    let [one, two, three, four] = [ids[0], ids[1], ids[2], ids[3]];
    let header = format!("Last-Event-ID: {four}\r\n");
    let cases = [
        (format!("lastEventId={one}"), "", "two"),
        (format!("Last-Event-ID={one}"), "", "two"),
        (format!("lastEventID={one}"), "", "two"),
        // The header is the newest cursor and the URL's own is the oldest, because the client repeats the URL.
        (
            format!("since={one}&lastEventID={two}&Last-Event-ID={two}&lastEventId={three}"),
            &*header,
            "five",
        ),
        (
            format!("since={one}&lastEventID={two}&Last-Event-ID={one}&lastEventId={three}"),
            "",
            "four",
        ),
        (
            format!("since={one}&lastEventID={two}&Last-Event-ID={three}"),
            "",
            "four",
        ),
        (format!("lastEventID={two}&since={one}"), "", "three"),
        // Of two parameters with one name the last one counts. An empty parameter counts as none.
        (format!("lastEventId={one}&lastEventId={two}"), "", "three"),
        (format!("lastEventId={two}&lastEventId="), "", "three"),
        (
            format!("lastEventId=&Last-Event-ID=&lastEventID={two}"),
            "Last-Event-ID: \r\n",
            "three",
        ),
        (
            format!("lastEventId=&since={one}"),
            "Last-Event-ID:\r\n",
            "two",
        ),
        ("lastEventId=0".to_owned(), "", "one"),
        (
            format!("evs_last_event_id={one}&evs_preamble=2048"),
            "",
            "two",
        ),
        (format!("last_event_id={two}&since={one}"), "", "three"),
        (format!("since={one}&since="), "", "two"),
        // Later parameters are not read.
        ("since=all".to_owned(), &*header, "five"),
        (format!("since=undefined&lastEventId={two}"), "", "three"),
        (format!("%6castEventId={one}"), "", "two"),
    ];
    for (query, headers, expected) in &cases {
        for transport in ["as=poll", "as=sse", "as=iframe&callback=f", "as=websocket"] {
            let got = first(&daemon, transport, query, headers);
            assert_eq!(
                got,
                format!("{expected}\""),
                "{transport} {query} {headers}"
            );
        }
    }
}

#[test]
fn an_id_that_is_not_ours_is_a_gap_for_an_event_stream() {
    let daemon = Daemon::start("");
    let id = daemon.publish("a", "before");
    let foreign = [
        "urn:uuid:5e2c3a36-6d3c-4a7b-9d1c-5a4f1a0c6b11",
        "undefined",
        "null",
        "12345678901234567890123456789",
        "-1",
        "1-0",
    ];
    for text in foreign {
        let parameters = PARAMETERS.map(|name| (format!("/ch/a?{name}={text}"), String::new()));
        let header = (
            "/ch/a?since=0".to_owned(),
            format!("Last-Event-ID: {text}\r\n"),
        );
        for (path, headers) in parameters.into_iter().chain([header]) {
            let mut events = Events::open(&daemon, &path, &headers);
            let (cursor, kind, told) = events.message();
            assert_eq!(
                (&*kind, &told["gap"]),
                ("gap", &true.into()),
                "{path} {headers}"
            );
            assert!(cursor >= id, "{path} {headers}");
            let next = daemon.publish("a", "after");
            assert_eq!(events.message_of(next), "after", "{path} {headers}");
        }
    }
    // Bytes that are not text.
    let mut events = Events::open(&daemon, "/ch/a", "Last-Event-ID: \u{e9}\r\n");
    assert_eq!(events.message().1, "gap");
}

#[test]
fn other_transports_refuse_such_an_id_by_its_name() {
    let daemon = Daemon::start("");
    for transport in ["as=poll", "as=iframe&callback=f", "as=websocket"] {
        let path = format!("/ch/a?{transport}&since=0");
        let refused = |query: &str, headers: &str| {
            let headers = format!("{headers}{WEBSOCKET}");
            let (status, code, message) =
                refusal(&ask(&daemon, get(&format!("{path}{query}"), &headers)));
            assert!(message.contains("RFC 3339"), "{message}");
            assert!(message.starts_with(&code), "{message}");
            (status, code)
        };
        for name in PARAMETERS {
            let told = refused(&format!("&{name}=1&{name}=undefined"), "");
            assert_eq!(told, (400, name.to_owned()), "{path}");
        }
        let told = refused("&lastEventId=1", "Last-Event-ID: undefined\r\n");
        assert_eq!(told, (400, "last-event-id".to_owned()), "{path}");
    }
}

#[test]
fn an_empty_cursor_is_none_on_every_transport() {
    let daemon = Daemon::start("");
    let first = daemon.publish("a", "one");
    for transport in ["as=sse", "as=iframe&callback=f", "as=websocket"] {
        let path = format!("/ch/a?{transport}&since=");
        let headers = match transport {
            "as=websocket" => WEBSOCKET,
            _ => "",
        };
        let mut client = Http::connect(daemon.addr());
        client.send(get(&path, headers));
        client.until("\r\n\r\n");
        daemon.publish("a", "from now on");
        client.until_bytes(b"\"data\":\"");
        assert_eq!(client.until("\""), "from now on\"", "{transport}");
    }
    let tag = format!("If-None-Match: \"{first}\"\r\n");
    let answer = ask(&daemon, get("/ch/a?wait=0&since=", &tag));
    assert_eq!(data(&answer), ["from now on"; 3]);
    let answer = ask(&daemon, get("/ch/a?wait=0&since=", ""));
    assert!(data(&answer).is_empty());
}

/// What compressing or caching proxies make of a poll's entity tag.
#[test]
fn a_poll_resumes_by_its_tag_whatever_proxies_made_of_it() {
    let daemon = Daemon::start("");
    let first = daemon.publish("a", "one");
    let second = daemon.publish("a", "two");
    daemon.publish("a", "three");
    let tag = ask(&daemon, get(&format!("/ch/a?since={}", first - 1), ""));
    let tag = tag.header("etag").unwrap().trim_matches('"').to_owned();
    daemon.publish("a", "four");
    for tags in [
        format!("\"{tag}\""),
        format!("W/\"{tag}\""),
        format!("\"{tag}-gzip\""),
        format!("\"{tag}--gzip\""),
        format!("\"{tag};gzip\""),
        format!("W/\"{tag}-br\""),
        format!("\"{tag}-zstd\""),
        format!("\"{tag}-br-gzip\""),
        tag.clone(),
        format!("\"{first}\", \"{tag}-gzip\", W/\"{second}\""),
        format!("\"{first}\"\r\nIf-None-Match: \"{tag}\""),
        format!("\"5f-61c3\", \"{tag}\""),
    ] {
        let answer = ask(&daemon, get("/ch/a", &format!("If-None-Match: {tags}\r\n")));
        assert_eq!(data(&answer), ["four"], "{tags}");
        assert_eq!(answer.json()["gap"], false, "{tags}");
    }
    // A tag without a cursor cannot be resumed. The client gets a gap, so that it loads its state, and a tag with a
    // cursor.
    for tags in [
        "*",
        "\"5f-61c3\"",
        "\"18446744073709551616\"",
        "W/\"x\"",
        "x",
    ] {
        let answer = ask(&daemon, get("/ch/a", &format!("If-None-Match: {tags}\r\n")));
        assert_eq!(
            (answer.status, &answer.json()["gap"]),
            (200, &true.into()),
            "{tags}"
        );
        let next = format!("If-None-Match: \"{}\"\r\n", cursor(&answer));
        let answer = ask(&daemon, get("/ch/a?wait=0", &next));
        assert_eq!(answer.json()["gap"], false, "{tags}");
    }
}

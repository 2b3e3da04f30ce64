//! Bodies that are too large, unwanted, late, cut or malformed: none is read as a request, and none becomes half a
//! message.

use crate::{
    daemon::{Daemon, Http, wait_for},
    http_limits::{Bystander, PUBLISHING},
    http_refused::is_refused,
    wire::{get, half_close, metric, post, refusal, send_some},
};

/// A body that no handler reads must not be read as the next request.
#[test]
fn a_body_is_never_read_as_a_request() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000\n");
    let bystander = Bystander::wait(&daemon);
    let smuggled = post("/ch/smuggled", "", b"x");
    let padding = "x".repeat(2000 - smuggled.len());
    let body = [&smuggled, padding.as_bytes()].concat();
    let cases = [
        (
            post("/ch/a", "", &body),
            413,
            "body",
            "over the limit of 1000 bytes",
        ),
        (post("/nowhere", "", &body), 404, "path", "nothing is at"),
        (post("/healthz", "", &body), 405, "method", "allowed"),
        (
            post("/ch/a/b", "", &body),
            400,
            "channel",
            "may not contain '/'",
        ),
        (
            [get("/ch/a", "Content-Length: 2000\r\n").as_bytes(), &body].concat(),
            400,
            "body",
            "may not have a body",
        ),
        (
            [
                get("/ch/a", "Transfer-Encoding: chunked\r\n").as_bytes(),
                b"7d0\r\n",
                &body,
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
            400,
            "body",
            "may not have a body",
        ),
    ];
    for (request, status, code, message) in cases {
        let shown = String::from_utf8_lossy(&request[..30]).into_owned();
        let head = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        // The body arrives with its head, after its head, and after the answer.
        for split in [request.len(), head, head + 1] {
            let mut client = Http::connect(daemon.addr());
            client.send(&request[..split]);
            if split == head {
                wait_for("the head to be read", || {
                    (metric(&daemon, "comet_http_requests_total") > 0).then_some(())
                });
            }
            send_some(&mut client, &request[split..]);
            let told = refusal(&client.answer());
            assert_eq!((told.0, &*told.1), (status, code), "{shown:?}");
            assert!(told.2.contains(message), "{shown:?}: {}", told.2);
            // The connection is kept if the body had arrived and could be skipped, otherwise it is closed. There is no
            // second answer.
            half_close(&client);
            let rest = client.rest();
            assert!(
                rest.is_empty(),
                "{shown:?}: {}",
                String::from_utf8_lossy(&rest)
            );
        }
        let mut client = Http::connect(daemon.addr());
        // With chunked coding the first chunk has to arrive, because the body could be empty.
        client.send(&request[..head + 8]);
        assert_eq!(client.answer().status, status, "{shown:?}");
        send_some(&mut client, &request[head + 8..]);
        assert!(client.is_closed(), "{shown:?}");
    }
    assert!(daemon.history("smuggled").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_small_body_that_is_not_wanted_keeps_the_connection() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    is_refused(
        &mut client,
        &post("/ch/a", "", b"x"),
        403,
        "forbidden",
        "publish = true under [http]",
    );
    is_refused(
        &mut client,
        &post("/healthz", "", b"x"),
        405,
        "method",
        "allowed",
    );
    let with_body = [get("/ch/a", "Content-Length: 1\r\n").as_bytes(), b"x"].concat();
    is_refused(
        &mut client,
        &with_body,
        400,
        "body",
        "a request with the method GET may not have a body",
    );
}

/// The client sends without end, and would lose an answer that a reset overtakes.
#[test]
fn a_client_that_is_still_sending_learns_that_its_body_is_too_large() {
    let daemon = Daemon::start(PUBLISHING);
    let bystander = Bystander::wait(&daemon);
    let length = 16 << 20;
    let heads = [
        format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"),
        format!(
            "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n"
        ),
    ];
    for head in heads {
        let mut client = Http::connect(daemon.addr());
        client.send(&head);
        send_some(&mut client, &vec![b'x'; length]);
        let answer = client.answer();
        assert_eq!(
            refusal(&answer),
            (
                413,
                "body".into(),
                "body is over the limit of 1048576 bytes".into()
            )
        );
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_body_of_just_the_limit_is_taken() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_body = 1000\n");
    let mut client = Http::connect(daemon.addr());
    let body = "x".repeat(1000);
    client.send(post("/ch/a", "", body.as_bytes()));
    assert_eq!(client.answer().status, 201);
    client.send(format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{body}\r\n0\r\n\r\n"));
    assert_eq!(client.answer().status, 201);
    assert_eq!(daemon.history("a").len(), 2);
    let chunks = format!(
        "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{body}\r\n1\r\nx\r\n0\r\n\r\n"
    );
    client.send(chunks);
    assert_eq!(refusal(&client.answer()).0, 413);
}

/// curl asks (`Expect: 100-continue`) before it sends more than a kilobyte.
#[test]
fn a_client_that_asks_before_it_sends_is_told() {
    let daemon = Daemon::start(PUBLISHING);
    let head = |length| {
        format!(
            "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut client = Http::connect(daemon.addr());
    client.send(head(4));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("data");
    assert_eq!(client.answer().status, 201);
    client.send(head(100 << 20));
    assert_eq!(refusal(&client.answer()).0, 413);
}

#[test]
fn a_body_that_is_not_completed_in_time_is_answered_and_closed() {
    let daemon = Daemon::start("[http]\npublish = true\nbody_time = \"300ms\"\n");
    let bystander = Bystander::wait(&daemon);
    for head in [
        "Content-Length: 10\r\n\r\nfive!",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n",
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(format!("POST /ch/a HTTP/1.1\r\nHost: localhost\r\n{head}"));
        let answer = client.answer();
        assert_eq!(
            refusal(&answer),
            (
                408,
                "timeout".into(),
                "the body was not complete after 300ms".into()
            )
        );
        assert!(client.is_closed());
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn half_a_request_is_no_publish() {
    let daemon = Daemon::start(PUBLISHING);
    let bystander = Bystander::wait(&daemon);
    let request = post("/ch/a", "", b"0123456789");
    for length in [
        1,
        10,
        request.len() - 11,
        request.len() - 10,
        request.len() - 1,
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(&request[..length]);
        half_close(&client);
        let rest = client.rest(); // an error, or nothing
        assert!(
            !rest.starts_with(b"HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&rest)
        );
    }
    assert!(daemon.history("a").is_empty());
    bystander.gets_its_message(&daemon);
}

#[test]
fn a_chunk_that_is_malformed_is_no_publish() {
    let daemon = Daemon::start(PUBLISHING);
    for body in [
        "xyz\r\nab\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "ffffffffffffffffff\r\n",
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(format!(
            "POST /ch/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        let (status, code, _) = refusal(&client.answer());
        assert_eq!((status, &*code), (400, "body"), "{body:?}");
        assert!(client.is_closed());
    }
    assert!(daemon.history("a").is_empty());
}

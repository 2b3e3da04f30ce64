//! Tokens that expire while a client waits: the client is told on every transport, and no other client is affected.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::json;

use crate::{
    http2,
    tokens::{assert_unauthorized, bearer, start, token},
    wire::{WEBSOCKET, data, get, parked},
};

#[test]
fn who_waits_when_the_token_expires_is_told_so() {
    let daemon = start("");
    let grant = json!({"s": ["*"], "h": 1});
    let last = daemon.publish("chat.7", "x");
    let short = bearer(&token(&grant, 2));
    let wait = |path: &str, headers: &str| {
        let path = path.replace("LAST", &last.to_string());
        parked(&daemon, get(&path, &format!("{short}{headers}")))
    };
    let mut poll = wait("/ch/chat.7?wait=60&since=LAST", "");
    let mut chat = wait("/chat.php?timestamp=LAST", "");
    let mut page = wait("/comet.php?subscribed[chat.7]=LAST", "");
    let mut sse = wait("/ch/chat.7?since=LAST", "Accept: text/event-stream\r\n");
    let mut iframe = wait("/ch/chat.7?as=iframe&callback=f&since=LAST", "");
    let mut socket = wait("/ch/chat.7?since=LAST", WEBSOCKET);
    // No other client's connection ends.
    let mut others = parked(
        &daemon,
        get("/ch/chat.7?wait=60", &bearer(&token(&grant, 600))),
    );
    let mut open = parked(&daemon, get("/ch/open.a?wait=60", &short));

    let answer = poll.answer();
    assert_unauthorized(&answer, "token_expired", "expired");
    assert_eq!(answer.json()["cursor"], last.to_string());
    assert_eq!(answer.header("etag"), Some(&*format!("\"{last}\"")));
    // The connection stays open for a request with a new token.
    let new = bearer(&token(&grant, 600));
    poll.send(get(&format!("/ch/chat.7?wait=0&since={last}"), &new));
    assert_eq!(poll.answer().status, 200);
    poll.send(get("/ch/chat.7?wait=0", &short));
    assert_unauthorized(&poll.answer(), "token_expired", "expired");

    assert_unauthorized(&chat.answer(), "token_expired", "expired");
    assert_eq!(page.answer().body, "{\"s\":0}");
    let notice = format!("{{\"expired\":true,\"cursor\":\"{last}\"}}");
    sse.until(&format!(
        "id: {last}\nevent: expired\ndata: {notice}\n\n\r\n0\r\n\r\n"
    ));
    assert!(sse.is_closed());
    iframe.until(&format!(
        "<script>parent.f({notice})</script>\n\r\n0\r\n\r\n"
    ));
    assert!(iframe.is_closed());
    socket.until("\r\n\r\n");
    let frames = socket.rest();
    let close = [&[0x88, 2][..], &4401_u16.to_be_bytes()].concat();
    let expected = [
        &[0x81, u8::try_from(notice.len()).unwrap()][..],
        notice.as_bytes(),
        &close,
    ]
    .concat();
    assert_eq!(frames, expected);

    daemon.publish("chat.7", "y");
    daemon.publish("open.a", "z");
    assert_eq!(data(&others.answer()), ["y"]);
    assert_eq!(data(&open.answer()), ["z"]);
}

#[test]
fn an_http2_stream_ends_when_its_token_expires() {
    let daemon = start("");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let short = client.with_header(
            "authorization",
            &format!("Bearer {}", token(&json!({"s": ["*"]}), 2)),
        );
        let stream = short.get("/ch/chat.7?as=sse").await;
        assert_eq!(stream.status(), 200);
        let poll = short.get("/ch/chat.7?wait=60").await;
        let challenge = poll.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(challenge.contains("invalid_token"), "{challenge}");
        let (status, json) = http2::json(poll).await;
        assert_eq!((status, &json["error"]), (401, &"token_expired".into()));
        assert!(
            http2::text(stream)
                .await
                .contains("event: expired\ndata: {\"expired\":true,")
        );
    });
}

/// A stream that is never idle sends no heartbeat at which the token could be checked.
#[test]
fn a_busy_stream_ends_when_its_token_expires() {
    let daemon = start("");
    let short = bearer(&token(&json!({"s": ["*"]}), 2));
    let mut client = parked(
        &daemon,
        get(
            "/ch/chat.7",
            &format!("{short}Accept: text/event-stream\r\n"),
        ),
    );
    client.until("event: cursor");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                daemon.publish("chat.7", "again");
            }
        });
        client.until("event: expired");
        stop.store(true, Ordering::Relaxed);
    });
    let end = String::from_utf8(client.rest()).unwrap();
    assert!(
        end.ends_with("\r\n0\r\n\r\n") && !end.contains("again"),
        "{end}"
    );
}

//! Cursors, times and gaps: for any cursor that a client sends, it gets a gap if messages may be missing, and only
//! then. The cursor of each answer works for the next request.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use comet_proto::Since;
use serde_json::json;

use crate::{
    clock::Clock,
    daemon::{Answer, Daemon, Lines, wait_for},
    http2,
    tokens::{bearer, start, start_again_at, start_at, token, token_until},
    wire::{Events, WEBSOCKET, ask, cursor, data, get, parked, wait_for_subscribers},
};

/// The time in RFC 3339 format, in UTC.
fn rfc3339(micros: u64) -> String {
    Since::Time(micros).to_string()
}

/// The time in the format of NovComet's page.
fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn gap(answer: &Answer) -> bool {
    answer.json()["gap"].as_bool().unwrap()
}

/// Starts a daemon with a token whose bearer may read no earlier messages.
fn limited() -> (Daemon, String) {
    let daemon = start("resume = \"0s\"");
    (daemon, bearer(&token(&json!({"s": ["*"]}), 600)))
}

#[test]
fn on_a_quiet_channel_an_old_cursor_waits_without_the_right_to_history() {
    let (daemon, limited) = limited();
    daemon.publish("chat.7", "before");
    let now = cursor(&ask(&daemon, get("/ch/chat.7?wait=0", &limited)));
    let wait = |path: &str, headers: &str| {
        let path = path.replace("NOW", &now.to_string());
        parked(&daemon, get(&path, &format!("{limited}{headers}")))
    };
    let mut poll = wait("/ch/chat.7?since=NOW", "");
    let mut many = wait("/ch/chat.7,chat.8?since=NOW", "");
    let mut tag = wait("/ch/chat.7", &format!("If-None-Match: \"{now}\"\r\n"));
    let mut chat = wait("/chat.php?timestamp=NOW", "");
    let page = format!("/comet.php?subscribed[chat.7]={}", seconds(now));
    let mut page = wait(&page, "");
    let sse = "Accept: text/event-stream\r\n";
    let mut events = Events::read_head(wait("/ch/chat.7?since=NOW", sse));
    let resumed = format!("{sse}Last-Event-ID: {now}\r\n");
    let mut resumed = Events::read_head(wait("/ch/chat.7", &resumed));
    let mut iframe = wait("/ch/chat.7?as=iframe&callback=f&since=NOW", "");
    let mut socket = wait("/ch/chat.7?since=NOW", WEBSOCKET);

    let id = daemon.publish("chat.7", "after");
    for poll in [&mut poll, &mut many, &mut tag] {
        let answer = poll.answer();
        assert_eq!((data(&answer), gap(&answer)), (vec!["after".into()], false));
    }
    let said = chat.answer().json();
    assert_eq!(
        (&said["msg"], &said["gap"]),
        (&json!("after"), &json!(null))
    );
    let changed = format!("{{\"s\":1,\"k\":{{\"chat.7\":{}}}}}", seconds(id));
    assert_eq!(page.answer().body, changed);
    assert_eq!(events.message_of(id), "after");
    assert_eq!(resumed.message_of(id), "after");
    assert!(!iframe.until("\"after\"").contains("gap"));
    assert!(
        !socket
            .until_bytes(b"\"after\"")
            .windows(3)
            .any(|part| part == b"gap")
    );
}

#[test]
fn over_http2_an_old_cursor_waits_too() {
    let (daemon, limited) = limited();
    daemon.publish("chat.7", "before");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let value = limited.trim().strip_prefix("Authorization: ").unwrap();
        let client = client.with_header("authorization", value);
        let (_, now) = client.json("/ch/chat.7?wait=0").await;
        let now = now["cursor"].as_str().unwrap();
        let again = format!("/ch/chat.7?wait=0&since={now}");
        let (_, poll) = client.json(&again).await;
        assert_eq!(poll, json!({"cursor": now, "gap": false, "messages": []}));
        let stream = client.get(&format!("/ch/chat.7?as=sse&since={now}")).await;
        http2::subscribers(&daemon, 1).await;
        let id = daemon.publish("chat.7", "after");
        let text = http2::text_until(stream, "after").await;
        assert!(
            !text.contains("gap") && text.contains(&id.to_string()),
            "{text}"
        );
    });
}

#[test]
fn what_is_withheld_is_told_once_and_the_answers_cursor_is_good() {
    let (daemon, limited) = limited();
    let first = daemon.publish("chat.7", "first");
    let second = daemon.publish("chat.7", "second");
    for since in ["0".into(), first.to_string(), rfc3339(first)] {
        let told = ask(&daemon, get(&format!("/ch/chat.7?since={since}"), &limited));
        assert_eq!((data(&told), gap(&told)), (vec![], true), "{since}");
        let next = format!("/ch/chat.7?wait=0&since={}", cursor(&told));
        let next = ask(&daemon, get(&next, &limited));
        assert_eq!((data(&next), gap(&next)), (vec![], false), "{since}");
        let mut events = Events::open(&daemon, &format!("/ch/chat.7?since={since}"), &limited);
        let (id, kind, _) = events.message();
        assert_eq!((id, &*kind), (second, "gap"));
    }
    // Messages of another channel are not missing on this channel.
    for since in [first, second] {
        let path = format!("/ch/chat.8?wait=0&since={since}");
        assert!(!gap(&ask(&daemon, get(&path, &limited))));
    }

    // The chat's page has no format for a gap alone. It gets the gap with the next message.
    for timestamp in [0, first] {
        let path = format!("/chat.php?timestamp={timestamp}");
        let mut chat = parked(&daemon, get(&path, &limited));
        let id = daemon.publish("chat.7", "shown");
        let shown = json!({"msg": "shown", "timestamp": id, "gap": true});
        assert_eq!(chat.answer().json(), shown);
    }

    // NovComet's page gets a change without its time. With the time of the answer, the next poll waits.
    let id = daemon.publish("chat.7", "third");
    daemon.publish("open.a", "elsewhere");
    let page = |time: &str| get(&format!("/comet.php?subscribed[chat.7]={time}"), &limited);
    let changed = ask(&daemon, page(&seconds(first))).body;
    let time = changed.strip_prefix("{\"s\":1,\"k\":{\"chat.7\":");
    let time = time
        .and_then(|rest| rest.strip_suffix("}}"))
        .unwrap_or_else(|| panic!("{changed}"));
    assert_ne!(time, seconds(id));
    drop(parked(&daemon, page(time)));
}

/// A message of the largest size is evicted at once, so that only the gap remains to be reported.
#[test]
fn a_chat_is_never_answered_with_nothing() {
    let daemon = Daemon::start("[history]\ntotal = \"64KiB\"\n");
    let mut chat = parked(&daemon, get("/chat.php?timestamp=0", ""));
    let mut poll = parked(&daemon, get("/ch/chat", ""));
    daemon.publish("chat", &"x".repeat(70_000));
    let answer = poll.answer();
    assert_eq!((data(&answer), gap(&answer)), (vec![], true));
    let id = daemon.publish("chat", "small");
    let shown = json!({"msg": "small", "timestamp": id, "gap": true});
    assert_eq!(chat.answer().json(), shown);
}

/// Checks that a request since this moment waits, in every format of the moment: no message was published since then.
fn assert_waits(daemon: &Daemon, micros: u64) {
    let time = rfc3339(micros);
    for since in [
        time.clone(),
        time.replace('Z', "%2B00:00"),
        time.replace('Z', "+00:00"),
        time.replace('Z', "%2000:00"),
    ] {
        let answer = ask(daemon, get(&format!("/ch/x?wait=0&since={since}"), ""));
        assert_eq!((data(&answer), gap(&answer)), (vec![], false), "{since}");
    }
    let headers = format!("If-None-Match: \"{time}\"\r\n");
    assert!(!gap(&ask(daemon, get("/ch/x?wait=0", &headers))));
    let headers = format!("Last-Event-ID: {time}\r\n");
    let mut events = Events::open(daemon, "/ch/x", &headers);
    let id = daemon.publish("x", "next");
    assert_eq!(events.message_of(id), "next");
    drop(events);
    wait_for_subscribers(daemon, 0);
    let mut socket = Lines::connect(&daemon.socket_path());
    let history = socket.ask(&format!(
        "{{\"op\":\"history\",\"channels\":[\"y\"],\"since\":\"{time}\"}}"
    ));
    assert_eq!(
        (&history["gap"], &history["messages"]),
        (&json!(false), &json!([]))
    );
    let page = format!("/comet.php?subscribed[y]={}", seconds(micros));
    drop(parked(daemon, get(&page, "")));
    let chat = format!("/chat.php?timestamp={}", micros / 1_000_000);
    drop(parked(daemon, get(&chat, "")));
    wait_for_subscribers(daemon, 0);
}

/// The clock's next full second in microseconds. No message has this id, and the chat's page can express it.
fn next_second(daemon: &Daemon) -> u64 {
    let second = |micros| micros / 1_000_000 * 1_000_000;
    let time = second(daemon.publish("other", "x")) + 1_000_000;
    wait_for("the next second", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (now.as_micros() > time.into()).then_some(())
    });
    time
}

#[test]
fn a_time_after_the_last_message_waits() {
    let daemon = Daemon::start("");
    let time = next_second(&daemon);
    assert_waits(&daemon, time);
    // A time of the future counts as now.
    let answer = ask(&daemon, get("/ch/x?wait=0&since=2200-01-01T00:00:00Z", ""));
    assert!(!gap(&answer));
    // An id that was not assigned yet belongs to another daemon.
    let later = cursor(&answer) + 1;
    assert!(gap(&ask(
        &daemon,
        get(&format!("/ch/x?wait=0&since={later}"), "")
    )));
}

#[test]
fn a_time_before_a_restart_waits_where_the_log_is_whole() {
    for end in ["TERM", "KILL"] {
        let daemon = Daemon::start("");
        let time = next_second(&daemon);
        let last = cursor(&ask(&daemon, get("/ch/x?wait=0", "")));
        let root = end_by(daemon, end);
        let daemon = Daemon::start_in(root, "", &[]);
        assert_waits(&daemon, time);
        let root = end_by(daemon, end);
        // Also after a restart, although no message was published.
        let daemon = Daemon::start_in(root, "", &[]);
        let answer = ask(
            &daemon,
            get(&format!("/ch/z?wait=0&since={}", rfc3339(time)), ""),
        );
        assert!(!gap(&answer), "{end}");
        // An id in between belongs to a message that the log does not have.
        let lost = ask(
            &daemon,
            get(&format!("/ch/z?wait=0&since={}", last + 1), ""),
        );
        assert!(gap(&lost), "{end}");
    }
}

fn end_by(daemon: Daemon, signal: &str) -> Arc<tempfile::TempDir> {
    let root = daemon.root();
    daemon.signal(signal);
    if signal == "TERM" {
        assert!(daemon.stop().success());
    }
    root
}

/// Cuts bytes off the newest segment of the log.
fn cut(root: &Path, bytes: u64) {
    let files = fs::read_dir(root.join("store")).unwrap();
    let logs = files.map(|entry| entry.unwrap().path());
    let newest = logs
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .max();
    let file = fs::File::options()
        .write(true)
        .open(newest.unwrap())
        .unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes)
        .unwrap();
}

#[test]
fn a_time_before_a_restart_is_a_gap_where_messages_may_be_gone() {
    let since = |time| format!("/ch/x?wait=0&since={}", rfc3339(time));
    let page = |time| format!("/comet.php?subscribed[x]={}", seconds(time));
    // Without a log, and with a log that was cut and is intact again.
    for (config, bytes) in [("[store]\ndurability = \"memory\"\n", 0), ("", 3)] {
        let daemon = Daemon::start(config);
        let time = next_second(&daemon);
        let mut root = end_by(daemon, "TERM");
        if bytes > 0 {
            cut(root.path(), bytes);
        }
        for _ in 0..3 {
            let daemon = Daemon::start_in(root, config, &[]);
            assert!(gap(&ask(&daemon, get(&since(time), ""))), "{config:?}");
            assert_eq!(ask(&daemon, get(&page(time), "")).json()["s"], 1);
            root = end_by(daemon, "TERM");
        }
    }
}

#[test]
fn the_clock_steps_back_and_what_was_before_a_token_stays_unread() {
    let clock = Clock::new();
    let daemon = start_at(&clock, "resume = \"2s\"");
    let old = daemon.publish("chat.7", "old");
    clock.step(4);
    daemon.publish("open.a", "later");
    clock.step(-3600);
    let limited = bearer(&token_until(clock.now() + 60, &json!({"s": ["*"]})));
    for since in ["0".to_owned(), (old - 1).to_string(), rfc3339(old - 1)] {
        let answer = ask(
            &daemon,
            get(&format!("/ch/chat.7?wait=0&since={since}"), &limited),
        );
        assert_eq!((data(&answer), gap(&answer)), (vec![], true), "{since}");
    }
    // A daemon that starts now does not know how long the previous daemon had published nothing.
    let root = daemon.root();
    assert!(daemon.stop().success());
    let daemon = start_again_at(&clock, root, "resume = \"60s\"");
    let answer = ask(&daemon, get("/ch/chat.7?wait=0&since=0", &limited));
    assert_eq!((data(&answer), gap(&answer)), (vec![], true));
    daemon.publish("chat.7", "new");
    let answer = ask(&daemon, get("/ch/chat.7?wait=0&since=0", &limited));
    assert_eq!(data(&answer), ["new"]);
}

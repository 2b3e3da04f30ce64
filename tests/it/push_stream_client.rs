//! The requests of pushstream.js 0.6, byte for byte but for their times: all modes that it tries, with cursors by headers, by
//! arguments and by the browser, also over the end of the daemon by `kill -9`.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    daemon::{Answer, Daemon, Http, directory},
    push_stream::{CONFIG, cursor, messages, texts},
    wire::{WEBSOCKET, ask, get, parked, post, wait_for_subscribers},
};

/// What the script appends to each URL, so that no cache answers.
const NOW: &str = "1795836116459";

/// The arguments of a client that has seen nothing.
const NOTHING: &str = "tag=&time=&eventid=";

/// The arguments of a client that has seen this message.
fn arguments(message: &Value) -> String {
    let text = |key: &str| message[key].as_str().unwrap();
    let time = text("time")
        .replace(", ", "%2C%20")
        .replace(' ', "%20")
        .replace(':', "%3A");
    format!("tag={}&time={time}&eventid=", text("tag"))
}

/// `sendMessage`: the text is percent-encoded already.
fn send_message(daemon: &Daemon, channel: &str, text: &str) {
    let headers = "Accept: application/json\r\nContent-type: application/x-www-form-urlencoded\r\n";
    let request = post(
        &format!("/pub?id=/{channel}&_={NOW}"),
        headers,
        text.as_bytes(),
    );
    assert_eq!(ask(daemon, request).status, 200);
}

/// A daemon that can be killed and started again at the same store.
struct Restarted {
    daemon: Daemon,
}

impl Restarted {
    fn start() -> Self {
        let daemon = Daemon::start_in(Arc::new(directory()), CONFIG, &[]);
        Self { daemon }
    }

    fn kill(self) -> Self {
        let root = self.daemon.root();
        self.daemon.signal("KILL");
        drop(self.daemon);
        let daemon = Daemon::start_in(root, CONFIG, &[]);
        Self { daemon }
    }
}

/// Publishes `a` while a client waits, `b` and `c` while it does not, kills the daemon, and publishes `d`. `next` makes a request
/// with the client's cursor, and returns the messages up to one with the last text.
fn every_message_arrives_once(mut next: impl FnMut(&Daemon, Option<&Value>, &str) -> Vec<Value>) {
    let mut running = Restarted::start();
    send_message(&running.daemon, "ch1", "before");
    let mut got = next(&running.daemon, None, "a");
    for text in ["b", "c"] {
        send_message(&running.daemon, "ch1", text);
    }
    running = running.kill();
    send_message(&running.daemon, "ch1", "d");
    while got.last().unwrap()["text"] != "d" {
        got.extend(next(&running.daemon, got.last(), "d"));
    }
    assert_eq!(texts(&got), ["a", "b", "c", "d"]);
}

/// Sends `a` if this is the client's first request.
fn start(daemon: &Daemon, last: Option<&Value>) {
    if last.is_none() {
        wait_for_subscribers(daemon, 1);
        send_message(daemon, "ch1", "a");
    }
}

#[test]
fn long_polls_with_the_cursor_in_headers() {
    let mut answer: Option<Answer> = None;
    every_message_arrives_once(|daemon, last, _| {
        let headers = match &answer {
            None => "If-None-Match: 0\r\nIf-Modified-Since: null\r\n".to_owned(),
            Some(answer) => cursor(answer),
        };
        let mut client = Http::connect(daemon.addr());
        client.send(get(&format!("/lp/ch1?&{NOTHING}&_={NOW}"), &headers));
        start(daemon, last);
        let new = client.answer();
        let got = messages(&new.body);
        answer = Some(new);
        got
    });
}

#[test]
fn long_polls_with_the_cursor_in_arguments() {
    every_message_arrives_once(|daemon, last, _| {
        let arguments = last.map_or(NOTHING.to_owned(), arguments);
        let mut client = Http::connect(daemon.addr());
        client.send(get(&format!("/lp/ch1?&{arguments}&_={NOW}"), ""));
        start(daemon, last);
        messages(&client.answer().body)
    });
}

#[test]
fn jsonp_with_the_cursor_in_arguments() {
    every_message_arrives_once(|daemon, last, _| {
        let arguments = last.map_or(NOTHING.to_owned(), arguments);
        let callback = format!("PushStreamManager_0_onmessage_{NOW}");
        let mut client = Http::connect(daemon.addr());
        client.send(get(
            &format!("/lp/ch1?&{arguments}&callback={callback}&_={NOW}"),
            "",
        ));
        start(daemon, last);
        let answer = client.answer();
        let call = answer.body.strip_prefix(&*callback).unwrap();
        let array = call
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(");"));
        serde_json::from_str(array.unwrap()).unwrap()
    });
}

/// A client of a stream reads until the text has come.
fn streamed(
    client: &mut Http,
    last_text: &str,
    mut parse: impl FnMut(&str) -> Option<Value>,
) -> Vec<Value> {
    let mut got: Vec<Value> = Vec::new();
    while got
        .last()
        .is_none_or(|message| message["text"] != last_text)
    {
        let line = String::from_utf8_lossy(&client.until_bytes(b"\n")).into_owned();
        got.extend(parse(line.trim_end()));
    }
    got
}

#[test]
fn streams_with_the_cursor_in_arguments() {
    every_message_arrives_once(|daemon, last, text| {
        let arguments = last.map_or(NOTHING.to_owned(), arguments);
        let mut client = Http::connect(daemon.addr());
        client.send(get(&format!("/sub/ch1?_={NOW}&streamid=1&{arguments}"), ""));
        start(daemon, last);
        // p(id, channel, text, eventid, time, tag)
        streamed(&mut client, text, |line| {
            let call = line
                .strip_prefix("<script>p(")?
                .strip_suffix(");</script>")?;
            let values: Vec<&str> = call.split('\'').collect();
            let [_, "ch1", _, text, _, "", _, time, _, tag, ""] = values[..] else {
                panic!("{line}");
            };
            Some(serde_json::json!({"text": text, "time": time, "tag": tag}))
        })
    });
}

/// The browser repeats the URL, and adds the header.
#[test]
fn event_streams_with_the_cursor_of_the_browser() {
    let mut id = String::new();
    every_message_arrives_once(|daemon, last, text| {
        let headers = match last {
            None => String::new(),
            Some(_) => format!("Last-Event-ID: {id}\r\n"),
        };
        let accept = "Accept: text/event-stream\r\nCache-Control: no-cache\r\n";
        let mut client = Http::connect(daemon.addr());
        client.send(get(
            &format!("/ev/ch1?_={NOW}&{NOTHING}"),
            &(headers + accept),
        ));
        start(daemon, last);
        streamed(&mut client, text, |line| {
            if let Some(new) = line.strip_prefix("id: ") {
                id = new.to_owned();
            }
            Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap())
        })
    });
}

#[test]
fn websockets_with_the_cursor_in_arguments() {
    every_message_arrives_once(|daemon, last, text| {
        let arguments = last.map_or(NOTHING.to_owned(), arguments);
        let mut client = Http::connect(daemon.addr());
        client.send(get(&format!("/ws/ch1?_={NOW}&{arguments}"), WEBSOCKET));
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        start(daemon, last);
        let mut got: Vec<Value> = Vec::new();
        while got.last().is_none_or(|message| message["text"] != text) {
            let frame = client.exactly(2);
            let length = match (frame[0], frame[1]) {
                (0x81, 126) => {
                    usize::from(u16::from_be_bytes(client.exactly(2).try_into().unwrap()))
                }
                (0x81, length) => length.into(),
                _ => panic!("{frame:?}"),
            };
            got.push(serde_json::from_slice(&client.exactly(length)).unwrap());
        }
        got
    });
}

/// With `channelsByArgument`, and with the arguments of a page that loads the messages of the last seconds.
#[test]
fn channels_and_a_time_in_arguments() {
    let daemon = Daemon::start(CONFIG);
    send_message(&daemon, "ch1/ch2", "old");
    let path = "/lp?channels=ch1.b1%2Fch2";
    let answer = ask(&daemon, get(&format!("{path}&{NOTHING}&_={NOW}"), ""));
    assert_eq!(texts(&messages(&answer.body)), ["old"]);
    let since = "tag=&time=Sat%2C%2028%20Nov%202020%2003%3A21%3A56%20GMT&eventid=";
    let answer = ask(&daemon, get(&format!("/lp/ch1/ch2?&{since}&_={NOW}"), ""));
    assert_eq!(texts(&messages(&answer.body)), ["old"]);
    // The clock of the page may be ahead.
    let since = since.replace("2020", "2099");
    let mut client = parked(&daemon, get(&format!("/lp/ch1/ch2?&{since}&_={NOW}"), ""));
    send_message(&daemon, "ch2", "new");
    assert_eq!(texts(&messages(&client.answer().body)), ["new"]);
}

/// `sendMessage` of a page that is connected by WebSocket: a text frame.
#[test]
fn a_websocket_publishes_where_the_settings_allow_it() {
    let allowed = Daemon::start(&(CONFIG.to_owned() + "websocket_publish = true\n"));
    let frame = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
    };
    for channel in ["ch1", "ch1", "ch2"] {
        send_message(&allowed, channel, "before");
    }
    let mut client = parked(&allowed, get("/ws/ch1.b1/ch2", WEBSOCKET));
    client.until("\r\n\r\n");
    client.until_bytes(b"\"text\":\"before\"");
    client.send(frame(""));
    client.send(frame("it%27s"));
    // No other old message comes before it.
    let between = client.until_bytes(b"\"text\":\"it%27s\"");
    let between = String::from_utf8_lossy(&between);
    assert!(!between.contains("before"), "{between}");
    assert_eq!(allowed.history("ch1")[2].1, "it%27s");
    assert_eq!(allowed.history("ch2")[1].1, "it%27s");
    send_message(&allowed, "ch2", "last");
    client.until_bytes(b"\"text\":\"last\"");
    drop(allowed);

    // Otherwise the texts are ignored.
    let daemon = Daemon::start(CONFIG);
    let mut client = parked(&daemon, get("/ws/ch1", WEBSOCKET));
    client.until("\r\n\r\n");
    client.send(frame("ignored"));
    client.send([0x89, 0x80, 0, 0, 0, 0]);
    client.until_bytes(b"\x8a\x00");
    assert!(daemon.history("ch1").is_empty());

    let closed = Daemon::start("[compat.push_stream]\nwebsocket_publish = true\n");
    let mut client = parked(&closed, get("/ws/ch1", WEBSOCKET));
    client.until("\r\n\r\n");
    client.send(frame("refused"));
    client.until_bytes(b"\x03\xf0{\"http_status\": 403, \"explain\":\"publishing over HTTP is off");
}

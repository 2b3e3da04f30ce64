//! The interface of nginx-push-stream-module: publishing, the answers of each mode, and the refusals.
//! `push_stream_client` has the requests of pushstream.js.

use serde_json::Value;

use crate::{
    daemon::{Answer, Daemon, Http},
    wire::{WEBSOCKET, ask, get, parked, post, wait_for_subscribers},
};

pub(crate) const CONFIG: &str = "[http]\npublish = true\n[compat.push_stream]\nwait = \"30s\"\n";

/// Publishes to the channels `id`, and returns the answer.
pub(crate) fn publish(daemon: &Daemon, id: &str, text: &str) -> Value {
    let answer = ask(daemon, post(&format!("/pub?id={id}"), "", text.as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.head);
    answer.json()
}

/// The messages of a long-poll's answer, which follow each other without a separator.
pub(crate) fn messages(body: &str) -> Vec<Value> {
    let messages = serde_json::Deserializer::from_str(body).into_iter();
    messages.collect::<Result<_, _>>().unwrap()
}

pub(crate) fn texts(messages: &[Value]) -> Vec<&str> {
    let texts = messages.iter().map(|message| message["text"].as_str());
    texts.collect::<Option<_>>().unwrap()
}

/// The header lines with which a client that has got `answer` polls again.
pub(crate) fn cursor(answer: &Answer) -> String {
    format!(
        "If-Modified-Since: {}\r\nIf-None-Match: {}\r\n",
        answer.header("last-modified").unwrap(),
        answer.header("etag").unwrap()
    )
}

fn explained(answer: &Answer) -> (u16, &str) {
    assert_eq!(answer.body, "");
    let reason = answer.header("x-nginx-pushstream-explain");
    (answer.status, reason.unwrap_or_default())
}

#[test]
fn a_publisher_gets_the_facts_of_its_channel() {
    let daemon = Daemon::start(CONFIG);
    let first = ask(&daemon, post("/pub?id=ch1", "", b"hello"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(
        first.body,
        "{\"channel\": \"ch1\", \"published_messages\": 1, \"stored_messages\": 1, \"subscribers\": 0}\r\n"
    );
    let _waiting = parked(&daemon, get("/lp/ch1", ""));
    let put = String::from_utf8(post("/pub?id=ch1", "Accept: text/plain\r\n", b"again")).unwrap();
    let second = ask(&daemon, put.replacen("POST", "PUT", 1));
    assert_eq!(
        (second.status, second.header("content-type")),
        (200, Some("text/plain"))
    );
    assert_eq!(
        second.body,
        "channel: ch1\r\npublished_messages: 2\r\nstored_messages: 2\r\nactive_subscribers: 1\r\n"
    );
    assert_eq!(
        ask(&daemon, get("/pub?id=ch1", "")).json()["published_messages"],
        2
    );
    // A channel of another server's name, and two channels at once.
    let both = publish(&daemon, "/ch1/a%20b", "both");
    assert_eq!(both["infos"][0]["published_messages"], 3);
    assert_eq!(both["infos"][1]["channel"], "a b");
    assert_eq!(daemon.history("a=20b")[0].1, "both");
}

#[test]
fn an_error_has_no_body_and_its_reason_in_a_header() {
    let daemon = Daemon::start(CONFIG);
    let too_many: String = (0..101).map(|i| format!("/c{i}")).collect();
    let cases = [
        (
            post("/pub?id=ch1", "", b""),
            400,
            "Empty post requests are not allowed.",
        ),
        (post("/pub", "", b"x"), 400, "No channel id provided."),
        (
            post("/pub?id=ALL", "", b"x"),
            403,
            "Channel id not authorized for this method.",
        ),
        (
            post("/pub?id=a*", "", b"x"),
            403,
            "Channel id not authorized for this method.",
        ),
        (get("/pub?id=unknown", "").into(), 404, "Channel not found."),
        (get("/sub", "").into(), 400, "No channel id provided."),
        (
            get("/lp/ALL", "").into(),
            403,
            "Channel id not authorized for this method.",
        ),
        (
            get(&format!("/lp{too_many}"), "").into(),
            403,
            "Number of channels were exceeded.",
        ),
        (
            get("/channels-stats?id=unknown", "").into(),
            404,
            "Channel not found.",
        ),
    ];
    for (request, status, reason) in cases {
        assert_eq!(explained(&ask(&daemon, &request)), (status, reason));
    }
    let answer = ask(
        &daemon,
        "DELETE /pub?id=a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_eq!(explained(&answer).0, 405);
    assert_eq!(answer.header("allow"), Some("GET, POST, PUT, OPTIONS"));
    let answer = ask(&daemon, post("/lp/a", "", b"x"));
    assert_eq!(explained(&answer).0, 405);
}

#[test]
fn nothing_is_there_without_the_table_or_with_an_empty_path() {
    let daemon = Daemon::start("[http]\npublish = true\n");
    let config =
        "[http]\npublish = true\n[compat.push_stream]\nlong_poll = \"\"\nsubscribe = \"/a/b\"\n";
    let other = Daemon::start(config);
    for path in [
        "/pub?id=a",
        "/sub/a",
        "/ev/a",
        "/lp/a",
        "/ws/a",
        "/channels-stats",
    ] {
        assert_eq!(ask(&daemon, get(path, "")).status, 404, "{path}");
    }
    for path in ["/lp/a", "/sub/a", "/a/bc", "/pub/a", "/channels-stats/a"] {
        assert_eq!(ask(&other, get(path, "")).status, 404, "{path}");
    }
    parked(&other, get("/a/b/ch1", ""));
}

#[test]
fn a_long_poll_gets_all_new_messages_joined_and_the_cursor_of_the_last() {
    let daemon = Daemon::start(CONFIG);
    let mut client = parked(&daemon, get("/lp/ch1/ch2", ""));
    publish(&daemon, "ch1", "first");
    let first = client.answer();
    assert_eq!(texts(&messages(&first.body)), ["first"]);
    publish(&daemon, "ch2", "second");
    publish(&daemon, "ch1", "third");
    client.send(get("/lp/ch1/ch2", &cursor(&first)));
    let both = client.answer();
    let got = messages(&both.body);
    assert_eq!(texts(&got), ["second", "third"]);
    assert_eq!(
        (&got[0]["channel"], &got[1]["channel"]),
        (&"ch2".into(), &"ch1".into())
    );
    assert!(got[0]["id"].as_u64() < got[1]["id"].as_u64());
    assert_eq!(got[1]["time"], both.header("last-modified").unwrap());
    let tag = got[1]["tag"].as_str().unwrap();
    assert_eq!(both.header("etag"), Some(&*format!("W/{tag}")));
    // A proxy may have changed the tag.
    let mut last = both;
    for form in ["", "\"", "W/\""] {
        let sent = last.header("etag").unwrap().to_owned();
        let tag = sent.strip_prefix("W/").unwrap();
        let changed = format!("{form}{tag}{}", form.trim_start_matches("W/"));
        let headers = cursor(&last).replace(&sent, &changed);
        let mut waiting = parked(&daemon, get("/lp/ch1/ch2", &headers));
        publish(&daemon, "ch1", &changed.replace('"', "'"));
        last = waiting.answer();
        assert_eq!(messages(&last.body).len(), 1, "{changed}");
        wait_for_subscribers(&daemon, 0);
    }
}

#[test]
fn jsonp_calls_the_function_with_an_array() {
    let daemon = Daemon::start(CONFIG);
    publish(&daemon, "ch1", "</script>");
    publish(&daemon, "ch1", "two");
    let answer = ask(&daemon, get("/lp/ch1.b2?callback=f.g_1", ""));
    assert_eq!(
        answer.header("content-type"),
        Some("application/javascript; charset=utf-8")
    );
    let array = answer
        .body
        .strip_prefix("f.g_1(")
        .and_then(|rest| rest.strip_suffix(");"));
    let array: Vec<Value> = serde_json::from_str(array.unwrap()).unwrap();
    assert_eq!(texts(&array), ["</script>", "two"]);
    assert!(!answer.body.contains('<'));
    let refused = ask(&daemon, get("/lp/ch1?callback=alert(1)", ""));
    assert_eq!(explained(&refused).0, 400);
}

/// Another site could otherwise read the channels with a visitor's browser.
#[test]
fn jsonp_is_for_pages_of_this_site_and_of_listed_origins() {
    let config = CONFIG.replace("[compat", "origins = [\"https://a.example\"]\n[compat");
    let daemon = Daemon::start(&config);
    publish(&daemon, "ch1", "x");
    for (headers, status) in [
        ("", 200),
        ("Sec-Fetch-Site: same-origin\r\n", 200),
        (
            "Sec-Fetch-Site: cross-site\r\nReferer: https://a.example/page\r\n",
            200,
        ),
        (
            "Sec-Fetch-Site: cross-site\r\nReferer: https://b.example/\r\n",
            403,
        ),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Referer: https://b.example/https://a.example\r\n", 403),
    ] {
        let answer = ask(&daemon, get("/lp/ch1.b1?callback=f", headers));
        assert_eq!(answer.status, status, "{headers}");
        // Without JSONP the browser itself checks.
        assert_eq!(ask(&daemon, get("/lp/ch1.b1", headers)).status, 200);
    }
}

#[test]
fn a_poll_without_messages_is_a_304_with_a_cursor() {
    let daemon = Daemon::start(&CONFIG.replace("30s", "1s"));
    daemon.publish("other", "x");
    let mut client = Http::connect(daemon.addr());
    let polling = "X-Nginx-PushStream-Mode: polling\r\n";
    for (headers, path) in [(polling, "/sub/ch1"), ("", "/lp/ch1")] {
        client.send(get(path, headers));
        let nothing = client.answer();
        assert_eq!((nothing.status, &*nothing.body), (304, ""), "{path}");
        assert!(nothing.header("content-length").is_none(), "{path}");
        publish(&daemon, "ch1", path);
        client.send(get(path, &(headers.to_owned() + &cursor(&nothing))));
        assert_eq!(texts(&messages(&client.answer().body)), [path]);
    }
}

#[test]
fn the_last_messages_of_a_channel_come_first() {
    let daemon = Daemon::start(CONFIG);
    for text in ["one", "two", "three"] {
        publish(&daemon, "ch1", text);
        publish(&daemon, "ch2", &format!("{text} of ch2"));
    }
    let expected = ["two", "three"];
    for path in ["ch1.b2", "ch1.b2/ch2", "ch2/ch1.b2", "ch1.b2/ch2.b0"] {
        let answer = ask(&daemon, get(&format!("/lp/{path}"), ""));
        assert_eq!(texts(&messages(&answer.body)), expected, "{path}");
        let answer = ask(
            &daemon,
            get(
                &format!("/sub/{path}"),
                "X-Nginx-PushStream-Mode: polling\r\n",
            ),
        );
        assert_eq!(texts(&messages(&answer.body)), expected, "{path}");
        for (mode, headers) in [("sub", ""), ("ev", ""), ("ws", WEBSOCKET)] {
            let mut client = Http::connect(daemon.addr());
            client.send(get(&format!("/{mode}/{path}"), headers));
            let before = String::from_utf8_lossy(&client.until_bytes(b"three")).into_owned();
            assert!(
                !before.contains("one") && !before.contains("of ch2"),
                "{mode}: {before}"
            );
            assert!(before.contains("two"), "{mode}: {before}");
            // Afterwards both channels are read.
            wait_for_subscribers(&daemon, 1);
            publish(&daemon, "ch1", "new");
            client.until_bytes(b"new");
            if path.contains("ch2") {
                publish(&daemon, "ch2", "newer");
                client.until_bytes(b"newer");
            }
            drop(client);
            wait_for_subscribers(&daemon, 0);
            for text in expected {
                publish(&daemon, "ch1", text);
            }
        }
    }
    let mixed = ask(&daemon, get("/lp/ch2.b1/ch1.b1/ch3.b9", ""));
    assert_eq!(messages(&mixed.body).len(), 2);
    let all = ask(&daemon, get("/lp/ch1.b999", ""));
    assert!(messages(&all.body).len() > 10);
}

/// Otherwise a client that polls again with the same path would get the messages again and again.
#[test]
fn a_cursor_goes_before_the_number_of_messages() {
    let daemon = Daemon::start(CONFIG);
    publish(&daemon, "ch1", "one");
    let first = ask(&daemon, get("/lp/ch1.b5", ""));
    let mut client = parked(&daemon, get("/lp/ch1.b5", &cursor(&first)));
    publish(&daemon, "ch1", "two");
    assert_eq!(texts(&messages(&client.answer().body)), ["two"]);
}

/// An event stream whose opening was read.
fn event_stream(daemon: &Daemon, path: &str, headers: &str) -> Http {
    let mut client = Http::connect(daemon.addr());
    client.send(get(path, headers));
    let head = client.until("\r\n\r\n");
    assert!(
        head.contains("content-type: text/event-stream; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(client.chunk().unwrap().starts_with(": \nid: "));
    client
}

fn event(stream: &mut Http) -> String {
    stream.chunk().unwrap()
}

#[test]
fn an_event_stream_carries_ids_types_and_lines() {
    let config = CONFIG.to_owned() + "message = \"~text~\"\n";
    let daemon = Daemon::start(&config);
    let mut events = event_stream(&daemon, "/ev/ch1", "");
    wait_for_subscribers(&daemon, 1);
    let headers = "Event-Id: my id\r\nEvent-Type: news\r\n";
    assert_eq!(
        ask(&daemon, post("/pub?id=ch1", headers, b"a\r\nb\nc")).status,
        200
    );
    let named = event(&mut events);
    assert_eq!(
        named,
        "id: my id\nevent: news\ndata: a\ndata: b\ndata: c\n\n"
    );
    publish(&daemon, "ch1", "plain");
    let plain = event(&mut events);
    let (id, data) = plain.split_once('\n').unwrap();
    assert_eq!(data, "data: plain\n\n");
    let id = id.strip_prefix("id: ").unwrap();
    // Both ids resume, by the header and by the argument.
    for (seen, next) in [("my id", "plain"), (id, "last")] {
        if next == "last" {
            publish(&daemon, "ch1", "last");
        }
        let header = format!("Last-Event-ID: {seen}\r\n");
        let argument = format!("/ev/ch1.b9?eventid={}", seen.replace(' ', "%20"));
        for (path, headers) in [("/ev/ch1.b9", &*header), (&argument, "")] {
            let resumed = event(&mut event_stream(&daemon, path, headers));
            assert!(
                resumed.ends_with(&format!("data: {next}\n\n")),
                "{path}: {resumed}"
            );
        }
    }
}

#[test]
fn streams_send_signs_of_life_and_end_with_the_daemon() {
    let config = CONFIG.replace("[compat", "heartbeat = \"1s\"\n[compat");
    let daemon = Daemon::start(&config);
    let mut stream = Http::connect(daemon.addr());
    stream.send(get("/sub/ch1", ""));
    stream.until("parent.PushStream.register(this);");
    stream.until("<script>p(-1,'','',");
    let mut events = Http::connect(daemon.addr());
    events.send(get("/ev/ch1", ""));
    events.until(": \nid: ");
    events.until(": -1\n");
    let mut socket = Http::connect(daemon.addr());
    socket.send(get("/ws/ch1", WEBSOCKET));
    socket.until_bytes(b"\x89\x00");
    let mut poll = parked(&daemon, get("/lp/ch1", ""));
    daemon.signal("TERM");
    stream.until("</body></html>");
    events.until("retry: ");
    socket.until_bytes(b"\x88\x02\x03\xe9");
    // With its cursor, pushstream.js polls again three seconds later.
    let stopping = poll.answer();
    assert_eq!((stopping.status, &*stopping.body), (503, ""));
    assert!(stopping.header("etag").is_some() && stopping.header("last-modified").is_some());
}

#[test]
fn the_statistics_are_of_all_some_or_by_prefix() {
    let daemon = Daemon::start(CONFIG);
    for channel in ["a_1", "a_2", "b%2Fc"] {
        publish(&daemon, channel, "x");
    }
    let _waiting = parked(&daemon, get("/lp/a_1", ""));
    let statistics = |id: &str| ask(&daemon, get(&format!("/channels-stats{id}"), "")).json();
    let summary = statistics("");
    assert_eq!(
        (&summary["channels"], &summary["subscribers"]),
        (&4.into(), &1.into())
    );
    assert_eq!(summary["stored_messages"], 4);
    assert_eq!(summary["by_worker"][0]["pid"], daemon.pid().to_string());
    assert_eq!(summary["time"].as_str().unwrap().len(), 19);
    let names = |id: &str| {
        let infos = statistics(id)["infos"].as_array().unwrap().clone();
        let names = infos
            .iter()
            .map(|info| info["channel"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("?id=a_*"), ["a_1", "a_2"]);
    assert_eq!(names("?id=ALL"), ["a_1", "a_2", "b", "c"]);
    assert_eq!(names("?id=b/c/unknown"), ["b", "c"]);
    let one = statistics("?id=a_1");
    assert_eq!(
        (&one["channel"], &one["subscribers"]),
        (&"a_1".into(), &1.into())
    );
    let plain = ask(
        &daemon,
        get("/channels-stats?id=ALL", "Accept: text/plain\r\n"),
    );
    assert!(
        plain
            .body
            .contains("channel: a_2\r\npublished_messages: 1\r\n"),
        "{}",
        plain.body
    );
}

#[test]
fn the_rules_of_channels_apply() {
    let config = "[http]\npublish = true\n[compat.push_stream]\n[[channel]]\nprefix = \"in.\"\nread = \"closed\"\n\
        publish = \"closed\"\n";
    let daemon = Daemon::start(config);
    daemon.publish("in.a", "secret");
    for request in [
        get("/lp/in.a.b1", ""),
        get("/sub/open/in.a", ""),
        get("/ev/in.a", ""),
        get("/ws/in.a", WEBSOCKET),
        get("/channels-stats?id=in.a", ""),
        get("/pub?id=in.a", ""),
        String::from_utf8(post("/pub?id=open/in.a", "", b"x")).unwrap(),
    ] {
        assert_eq!(explained(&ask(&daemon, &request)).0, 403, "{request}");
    }
    let all = ask(&daemon, get("/channels-stats?id=ALL", "")).json();
    assert_eq!(all["infos"], Value::Array(Vec::new()));
    let closed = Daemon::start("[compat.push_stream]\n");
    assert_eq!(explained(&ask(&closed, post("/pub?id=a", "", b"x"))).0, 403);
}

/// A text that pages can read as it is stays as it is; any other text arrives exactly.
#[test]
fn a_text_arrives_whatever_has_published_it() {
    let daemon = Daemon::start(CONFIG);
    for (sent, written) in [
        ("it%27s%20100%25", "it%27s%20100%25"),
        ("say \\\"hi\\\"", "say \"hi\""),
        ("say \"hi\" 100%", "say \"hi\" 100%25"),
    ] {
        daemon.publish("ch1", sent);
        let answer = ask(&daemon, get("/lp/ch1.b1", ""));
        assert_eq!(texts(&messages(&answer.body)), [written]);
    }
    std::fs::write(daemon.dir().join("ch1.comet"), "by \"touch\"").unwrap();
    let mut client = Http::connect(daemon.addr());
    client.send(get(
        "/lp/ch1?time=Thu%2C%2001%20Jan%202037%2000%3A00%3A00%20GMT",
        "",
    ));
    crate::daemon::wait_for("the file", || {
        let answer = ask(&daemon, get("/lp/ch1.b1", ""));
        (texts(&messages(&answer.body)) == ["by \"touch\""]).then_some(())
    });
}

#[test]
fn the_templates_are_those_of_the_settings() {
    let config = CONFIG.to_owned()
        + "message = '{\"n\":~id~,\"t\":~text~}'\nstream_header = \"<begin>\"\nstream_message = \"~channel~ ~size~ ~text~;\"\nstream_footer = \"<end>\"\n";
    let daemon = Daemon::start(&config);
    publish(&daemon, "ch1", "[1,2]");
    let answer = ask(&daemon, get("/lp/ch1.b1", ""));
    assert_eq!(answer.json()["t"], serde_json::json!([1, 2]));
    let mut stream = Http::connect(daemon.addr());
    stream.send(get("/sub/ch1.b1", ""));
    stream.until("<begin>");
    stream.until("ch1 5 [1,2];");
    daemon.signal("TERM");
    stream.until("<end>");
}

/// What is no JSON would otherwise run as a script in the page.
#[test]
fn jsonp_quotes_what_is_no_json() {
    let daemon = Daemon::start(&(CONFIG.to_owned() + "message = \"~text~\"\n"));
    publish(&daemon, "ch1", "alert(1)");
    let answer = ask(&daemon, get("/lp/ch1.b1?callback=f", ""));
    assert_eq!(answer.body, "f([\"alert(1)\"]);");
}

#[test]
fn messages_of_one_second_are_told_apart() {
    let daemon = Daemon::start(CONFIG);
    let mut client = Http::connect(daemon.addr());
    client.send(get("/lp/ch1", "X-Nginx-PushStream-Mode: polling\r\n"));
    let mut last = client.answer();
    for burst in 0..20 {
        let sent: Vec<String> = (0..3).map(|i| format!("{burst}-{i}")).collect();
        sent.iter().for_each(|text| {
            publish(&daemon, "ch1", text);
        });
        client.send(get("/lp/ch1", &cursor(&last)));
        last = client.answer();
        assert_eq!(texts(&messages(&last.body)), sent);
    }
}

#[test]
fn subscribers_are_told_that_their_channel_was_deleted() {
    let daemon = Daemon::start(&(CONFIG.to_owned() + "delete = true\n"));
    let delete = |id: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "DELETE /pub?id={id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        ask(&daemon, request)
    };
    publish(&daemon, "ch1", "old");
    let mut poll = parked(&daemon, get("/lp/ch1", ""));
    let mut script = parked(&daemon, get("/lp/ch2/ch1?callback=f", ""));
    let mut other = parked(&daemon, get("/lp/ch2", ""));
    let [mut stream, mut events, mut socket] = [
        get("/sub/ch1", ""),
        get("/ev/ch1", ""),
        get("/ws/ch1", WEBSOCKET),
    ]
    .map(|request| parked(&daemon, request));
    stream.until("<body>");
    assert_eq!(explained(&delete("ch1", "")), (200, "Channel deleted."));
    let answer = poll.answer();
    let notice = answer.json();
    assert_eq!(
        (&notice["id"], &notice["channel"]),
        (&(-2).into(), &"ch1".into())
    );
    assert_eq!(notice["text"], "Channel deleted");
    assert_eq!(notice["time"], answer.header("last-modified").unwrap());
    let notice = script.answer().body;
    assert!(
        notice.starts_with("f([{\"id\":-2,\"channel\":\"ch1\","),
        "{notice}"
    );
    stream.until("p(-2,'ch1','Channel deleted',");
    stream.until("</body></html>");
    events.until("data: {\"id\":-2,");
    events.until("0\r\n\r\n");
    socket.until_bytes(b"{\"id\":-2,");
    socket.until_bytes(b"\x88\x02\x03\xe8");
    wait_for_subscribers(&daemon, 1);
    // Nothing is left, another channel is as before, and the channel can be used again.
    assert_eq!(explained(&delete("ch1", "")).0, 404);
    assert_eq!(explained(&delete("unknown/ch1", "bye")).0, 404);
    let mut again = parked(&daemon, get("/lp/ch1.b5", &cursor(&answer)));
    publish(&daemon, "ch1/ch2", "new");
    assert_eq!(texts(&messages(&again.answer().body)), ["new"]);
    assert_eq!(texts(&messages(&other.answer().body)), ["new"]);
    assert_eq!(
        explained(&delete("unknown/ch1", "bye")),
        (200, "Channel deleted.")
    );
    let root = daemon.root();
    drop(daemon);
    let daemon = Daemon::start_in(root, CONFIG, &[]);
    assert!(daemon.history("ch1").is_empty());
    assert_eq!(daemon.history("ch2")[0].1, "new");
}

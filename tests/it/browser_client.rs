//! comet.js in a real browser, and the requests of an older client.

use std::sync::Arc;

use serde_json::Value;

use super::{
    browser::{OPEN, SHOWN, demo, shell, url},
    daemon::{Daemon, directory},
    webdriver::Browser,
};

#[test]
fn without_readable_streams_the_page_polls() {
    let (daemon, browser) = (demo(), Browser::start());
    let polls =
        "return performance.getEntriesByType('resource').some((e) => e.name.includes('wait=25'))";

    browser.open(&url(&daemon, "/touch"));
    browser.wait_for(OPEN);
    daemon.publish("hello", "streamed");
    browser.wait_for_texts(SHOWN, &["streamed"]);
    assert_eq!(
        browser.run(polls),
        false,
        "where streams can be had, nothing polls"
    );

    browser.before_pages("delete window.ReadableStream");
    browser.open(&url(&daemon, "/touch"));
    browser.wait_for_texts(SHOWN, &["streamed"]);
    assert_eq!(browser.run("return typeof ReadableStream"), "undefined");
    daemon.publish("hello", "polled");
    browser.wait_for_texts(SHOWN, &["polled", "streamed"]);
    daemon.publish("hello", "polled again");
    browser.wait_for_texts(SHOWN, &["polled again", "polled", "streamed"]);
    browser.wait_for(polls);
}

#[test]
fn a_blocked_stream_gives_way_to_polls() {
    let (daemon, browser) = (demo(), Browser::start());
    // As behind a proxy without streams: every stream is refused, and polls are answered.
    browser.before_pages(
        "const ask = window.fetch;
         const isStream = (init) => init && init.headers && init.headers.Accept === 'text/event-stream';
         window.fetch = (url, init) => isStream(init) ? Promise.reject(new TypeError('blocked')) : ask(url, init);",
    );
    browser.open(&url(&daemon, "/touch"));
    browser.wait_for(
        "return performance.getEntriesByType('resource').some((e) => e.name.includes('wait=25'))",
    );
    daemon.publish("hello", "polled");
    browser.wait_for_texts(SHOWN, &["polled"]);
    browser.wait_for(OPEN);
}

#[test]
fn names_and_odd_bytes_arrive_on_both_transports() {
    let (daemon, browser) = (demo(), Browser::start());
    for transport in ["sse", "longpoll"] {
        browser.open(&url(&daemon, "/"));
        subscribe(
            &browser,
            &format!("['a:b=c+d@e~f', 'other'], HANDLERS, {{ transport: '{transport}' }}"),
        );
        browser.wait_for("return heard.states.length === 2");
        let script = "return Comet.publish('a:b=c+d@e~f', 'hé\\n', { name: 'order paid' })";
        let id = browser.run(script);
        browser.run("return Comet.publish('other', new Uint8Array([255, 0]).buffer)");
        let messages = browser.wait_for("return heard.messages.length === 2 && heard.messages");
        assert_eq!(messages[0]["channel"], "a:b=c+d@e~f", "{messages}");
        assert_eq!(
            (&messages[0]["name"], &messages[0]["data"]),
            (&"order paid".into(), &"hé\n".into())
        );
        assert_eq!(messages[0]["id"], id);
        assert_eq!(
            (&messages[1]["data"], &messages[1]["encoding"]),
            (&"/wA=".into(), &"base64".into())
        );
        let cursor = browser.wait_for("return subscription.cursor").as_u64();
        assert!(cursor >= messages[1]["id"].as_u64(), "{cursor:?}");
    }
}

#[test]
fn a_gap_is_told_and_what_is_left_follows() {
    let (daemon, browser) = (demo(), Browser::start());
    for transport in ["sse", "longpoll"] {
        daemon.publish(transport, "kept");
        browser.open(&url(&daemon, "/"));
        // No daemon has all messages since that time.
        let subscription = |since| {
            format!("'{transport}', HANDLERS, {{ since: {since}, transport: '{transport}' }}")
        };
        subscribe(&browser, &subscription("1"));
        browser.wait_for("return heard.messages.length === 1 && heard.gaps === 1");
        // The daemon does not know ids of the future. Such a cursor belongs to another daemon.
        subscribe(&browser, &subscription("8e15"));
        browser.wait_for("return heard.gaps === 1 && heard.states.length === 2");
        daemon.publish(transport, "new");
        let messages = browser.wait_for("return heard.messages.length === 1 && heard.messages");
        assert_eq!(messages[0]["data"], "new");
        assert_eq!(browser.run("return heard.gaps"), 1);
    }
}

#[test]
fn a_connection_that_died_without_a_word_is_missed() {
    let config = "[http]\nheartbeat = \"200ms\"\n";
    let daemon = Daemon::start_in(Arc::new(directory()), config, &["--demo"]);
    let browser = Browser::start();
    browser.open(&url(&daemon, "/"));
    subscribe(&browser, "'news', HANDLERS");
    // Heartbeats move the cursor, also past messages of other channels.
    let id = daemon.publish("other", "x");
    browser.wait_for(&format!("return subscription.cursor >= {id}"));
    daemon.signal("STOP"); // the kernel holds its connections
    browser.wait_for("return heard.states.some(([state]) => state === 'away')");
    daemon.signal("CONT");
    browser.wait_for("return heard.states[heard.states.length - 1][0] === 'open'");
    daemon.publish("news", "back");
    let messages = browser.wait_for("return heard.messages.length === 1 && heard.messages");
    assert_eq!(messages[0]["data"], "back");
    assert_eq!(browser.run("return heard.gaps"), 0);
}

#[test]
fn a_gap_within_a_stream_is_told() {
    let (daemon, browser) = (demo(), Browser::start());
    daemon.publish("news", "kept");
    // The poll before the stream has no gap. The stream, with its older cursor, has one.
    browser.before_pages(
        "const ask = window.fetch;
         window.fetch = (url, init) => ask(String(url).replace(/[?]since=[0-9]+/, '?since=1'), init);",
    );
    browser.open(&url(&daemon, "/"));
    subscribe(&browser, "'news', HANDLERS");
    browser.wait_for("return heard.gaps === 1 && heard.messages.length === 1");
    daemon.publish("news", "new");
    let texts = "return heard.messages.length > 1 && heard.messages.map((m) => m.data)";
    assert_eq!(browser.wait_for(texts), serde_json::json!(["kept", "new"]));
}

#[test]
fn a_refused_subscription_says_why_and_ends() {
    let (daemon, browser) = (demo(), Browser::start());
    browser.open(&url(&daemon, "/"));
    subscribe(&browser, "'a/b', HANDLERS");
    let states = browser.wait_for("return heard.states.length === 2 && heard.states");
    assert_eq!(states[0], Value::from(vec!["connecting"]));
    assert_eq!(states[1][0], "closed");
    assert!(
        states[1][1].as_str().unwrap().contains("channel name"),
        "{states}"
    );

    let refused = "return Comet.publish('a/b', 'x').catch((e) => [e.message, e.code, e.status])";
    let refused = browser.run(refused);
    assert!(
        refused[0].as_str().unwrap().contains("channel name"),
        "{refused}"
    );
    assert_eq!((&refused[1], &refused[2]), (&"channel".into(), &400.into()));
}

#[test]
fn a_closed_subscription_is_silent() {
    let (daemon, browser) = (demo(), Browser::start());
    browser.open(&url(&daemon, "/"));
    for transport in ["sse", "longpoll"] {
        subscribe(
            &browser,
            &format!("'news', HANDLERS, {{ transport: '{transport}' }}"),
        );
        browser.run("window.former = heard; window.toClose = subscription;");
        browser.wait_for("return heard.states.length === 2");
        browser.run("toClose.close(); toClose.close();");
        // A second subscriber shows that the message had time to arrive at this page.
        subscribe(
            &browser,
            &format!("'news', HANDLERS, {{ transport: '{transport}' }}"),
        );
        browser.wait_for("return heard.states.length === 2");
        daemon.publish("news", "late");
        browser.wait_for("return heard.messages.length === 1");
        let expected = serde_json::json!([["connecting"], ["open"], ["closed"]]);
        assert_eq!(browser.run("return former.states"), expected);
        assert_eq!(browser.run("return former.messages.length"), 0);
    }
}

#[test]
fn a_page_of_another_origin_subscribes_where_that_is_configured() {
    let (ours, browser) = (demo(), Browser::start());
    let origins = format!("http.origins = [\"{}\"]", url(&ours, ""));
    let theirs = Daemon::start_in(Arc::new(directory()), &origins, &["--demo"]);
    browser.open(&url(&ours, "/demo.json")); // a document without a policy that forbids it
    browser.run(include_str!("../../web/comet.js"));
    for transport in ["sse", "longpoll"] {
        let their_channels = url(&theirs, "/ch/");
        let options = format!("{{ transport: '{transport}', url: '{their_channels}' }}");
        subscribe(&browser, &format!("'{transport}', HANDLERS, {options}"));
        browser.wait_for("return heard.states.length === 2");
        // The key's header needs a preflight. The second publish with the same key returns the id of the first.
        let publish = format!(
            "const options = {{ url: '{their_channels}', key: '{transport}' }};
             return Comet.publish('{transport}', 'hi', options)"
        );
        let id = browser.run(&publish);
        assert_eq!(browser.run(&publish), id);
        theirs.publish(transport, "last");
        let texts = "return heard.messages.length > 1 && heard.messages.map((m) => m.data)";
        assert_eq!(browser.wait_for(texts), serde_json::json!(["hi", "last"]));
    }

    browser.open(&url(&theirs, "/demo.json"));
    browser.run(include_str!("../../web/comet.js"));
    subscribe(
        &browser,
        &format!("'news', HANDLERS, {{ url: '{}' }}", url(&ours, "/ch/")),
    );
    let states = browser.wait_for("return heard.states.length === 2 && heard.states");
    assert_eq!(
        states,
        serde_json::json!([["connecting"], ["away"]]),
        "ours names no origin"
    );
}

/// Sends the requests of NovComet's client (the old PHP long-poll) from a test page: one poll after the other with the
/// last values. It stops for good after any answer that it does not understand.
const NOVCOMET: &str = "
    window.changes = [];
    window.ended = false;
    const values = { news: SEEN, idle: SEEN };
    const poll = () => {
      const ids = Object.keys(values).map((id) => `&subscribed[${id}]=${values[id]}`).join('');
      fetch(`/comet.php?${ids}&${Math.round(Date.now() / 1000)}`).then((answer) => answer.json()).then((answer) => {
        if (answer.s === 1) {
          Object.assign(values, answer.k);
          changes.push(answer.k);
        } else if (answer.s !== 0) {
          throw answer;
        }
        setTimeout(poll, 100);
      }).catch(() => { ended = true; });
    };
    poll();";

#[test]
fn the_loop_of_novcomet_hears_of_touches() {
    let (daemon, browser) = (demo(), Browser::start());
    browser.open(&url(&daemon, "/demo.json")); // a document of the daemon's origin without scripts of its own
    // A value that the page has seen. The page's own time would be rounded, so the order would be unknown.
    let seen = daemon.publish("news", "") as f64 / 1e6;
    browser.run(&NOVCOMET.replace("SEEN", &format!("{seen:.6}")));

    let file = daemon.dir().join("news.comet");
    shell(&format!("touch {}", file.display()));
    browser.wait_for("return changes.length === 1");
    // Two changes within a second are reported as two changes.
    assert_eq!(
        browser.run("return fetch('/comet.php?&publish=news').then((answer) => answer.json())"),
        true
    );
    let changes = browser.wait_for("return changes.length === 2 && changes");
    let (first, second) = (changes[0]["news"].as_f64(), changes[1]["news"].as_f64());
    assert!(Some(seen) < first && first < second, "{changes}");
    assert!(
        changes
            .as_array()
            .unwrap()
            .iter()
            .all(|k| k.as_object().unwrap().len() == 1),
        "only what changed"
    );
    assert_eq!(browser.run("return ended"), false);
}

/// Subscribes with comet.js and these arguments, and records all calls of its handlers.
pub fn subscribe(browser: &Browser, arguments: &str) {
    browser.run(&format!(
        "const heard = window.heard = {{ messages: [], gaps: 0, states: [] }};
         const handlers = {{
           message(m) {{ heard.messages.push(m); }},
           gap() {{ heard.gaps += 1; }},
           state(...said) {{ heard.states.push(said.filter((s) => s !== undefined)); }},
         }};
         window.subscription = Comet.subscribe({});",
        arguments.replace("HANDLERS", "handlers")
    ));
}

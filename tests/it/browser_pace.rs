//! comet.js pauses after every answer that came at once without a new message, whatever the server answers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    browser_client::subscribe,
    daemon::wait_for,
    fake::{Fake, Reply},
    webdriver::Browser,
};

/// Records requests and pauses in their order, and shortens the pauses. The pauses are random, so they are the only
/// times that are no whole numbers.
const WATCH: &str = "
    window.order = [];
    const [later, ask] = [window.setTimeout, window.fetch];
    window.setTimeout = (f, time) => {
      const isPause = time !== undefined && !Number.isInteger(time);
      if (isPause) { order.push(time); }
      return later(f, isPause ? 5 : time);
    };
    window.fetch = (...request) => { order.push(0); return ask(...request); };";

/// Requests without a pause before them: the subscription's own poll, and a poll beside each stream that is tried.
const FREE: usize = 5;

/// Subscribes to a server by each transport, and asserts that there is a pause before each request except the first
/// few.
fn paces(reply: fn(&str, bool) -> Reply) {
    let browser = Browser::start();
    browser.before_pages(WATCH);
    for transport in ["sse", "longpoll"] {
        let fake = Fake::start(reply);
        browser.open(&fake.url("/"));
        let arguments = format!("'news', HANDLERS, {{ since: 5, transport: '{transport}' }}");
        subscribe(&browser, &arguments);
        wait_for("the requests", || (fake.asked().len() > 20).then_some(()));
        let order = browser.run("return order");
        let order: Vec<f64> = serde_json::from_value(order).unwrap();
        let begun = order.iter().filter(|time| **time == 0.0).count();
        let pauses: Vec<f64> = order.into_iter().filter(|time| *time > 0.0).collect();
        assert!(
            begun <= pauses.len() + FREE,
            "{transport}: {begun} requests, and these pauses: {pauses:?}"
        );
        assert!(pauses.iter().all(|time| *time >= 100.0), "{pauses:?}");
        // At least one of the pauses is longer than the first one may be. By chance this fails once in 10^13 runs.
        assert!(pauses.iter().any(|time| *time > 1100.0), "{pauses:?}");
    }
}

#[test]
fn a_server_that_always_tells_a_gap_is_not_asked_on_and_on() {
    paces(|_, stream| {
        if stream {
            let gap = "event: gap\ndata: {\"gap\":true,\"cursor\":\"7\"}\n\n";
            return Reply::events(format!("{gap}{}", message(8)));
        }
        Reply::json("{\"cursor\":\"7\",\"gap\":true,\"messages\":[]}")
    });
}

#[test]
fn a_server_that_always_tells_a_gap_and_messages_is_not_asked_on_and_on() {
    paces(|_, _| {
        let body = format!(
            "{{\"cursor\":\"8\",\"gap\":true,\"messages\":[{}]}}",
            json(8)
        );
        Reply::json(body)
    });
}

#[test]
fn a_server_that_answers_nothing_at_once_is_not_asked_on_and_on() {
    paces(|_, stream| match stream {
        true => Reply::events(""),
        false => Reply::json("{\"cursor\":\"7\",\"gap\":false,\"messages\":[]}"),
    });
}

#[test]
fn a_server_that_repeats_what_was_seen_is_not_asked_on_and_on() {
    paces(|_, stream| match stream {
        true => Reply::events(message(3)),
        false => {
            let body = format!(
                "{{\"cursor\":\"7\",\"gap\":false,\"messages\":[{}]}}",
                json(3)
            );
            Reply::json(body)
        }
    });
}

#[test]
fn a_server_that_answers_errors_is_not_asked_on_and_on() {
    paces(|_, _| Reply("502 Bad Gateway", "text/html", "<h1>".into()));
}

#[test]
fn a_server_that_answers_what_no_daemon_does_is_not_asked_on_and_on() {
    for reply in [
        |_: &str, _| Reply("200 OK", "text/html", "<h1>Please log in</h1>".into()),
        |_: &str, _| Reply::json("null"),
        |_: &str, _| Reply::json("{}"),
        |_: &str, _| Reply::json("{\"cursor\":\"x\",\"messages\":[]}"),
    ] {
        paces(reply);
    }
}

#[test]
fn a_stream_that_says_at_once_that_the_token_has_expired_is_not_asked_on_and_on() {
    paces(|_, stream| match stream {
        true => Reply::events("event: expired\ndata: {\"expired\":true,\"cursor\":\"7\"}\n\n"),
        false => Reply::json("{\"cursor\":\"7\",\"gap\":false,\"messages\":[]}"),
    });
}

#[test]
fn new_messages_at_once_are_asked_for_without_a_pause() {
    static LAST: AtomicU64 = AtomicU64::new(8);
    let fake = Fake::start(|_, _| {
        let id = LAST.fetch_add(1, Ordering::SeqCst);
        let messages = json(id);
        Reply::json(format!(
            "{{\"cursor\":\"{id}\",\"gap\":false,\"messages\":[{messages}]}}"
        ))
    });
    let browser = Browser::start();
    browser.before_pages(WATCH);
    browser.open(&fake.url("/"));
    subscribe(&browser, "'news', HANDLERS, { transport: 'longpoll' }");
    browser.wait_for("return heard.messages.length > 50");
    assert_eq!(
        browser.run("return order.filter((time) => time > 0)"),
        serde_json::json!([])
    );
}

#[test]
fn streams_that_only_say_when_to_come_back_are_believed() {
    let fake = Fake::start(|_, stream| match stream {
        true => Reply::events("retry: 4000\n\n"),
        false => Reply::json("{\"cursor\":\"7\",\"gap\":false,\"messages\":[]}"),
    });
    let browser = Browser::start();
    browser.before_pages(WATCH);
    browser.open(&fake.url("/"));
    subscribe(&browser, "'news', HANDLERS");
    wait_for("200 streams", || (fake.asked().len() > 200).then_some(()));
    let order = browser.run("return order.slice(0, 200)");
    let order: Vec<f64> = serde_json::from_value(order).unwrap();
    assert_eq!(order[..2], [0.0, 0.0], "the poll, and the first stream");
    for (place, time) in order.iter().enumerate().skip(2) {
        let as_told = (4000.0..=6000.0).contains(time);
        assert!(
            if place % 2 == 0 {
                as_told
            } else {
                *time == 0.0
            },
            "{order:?}"
        );
    }
    let polls = fake
        .asked()
        .iter()
        .filter(|target| target.contains("wait="))
        .count();
    assert_eq!(polls, 1, "streams are not given up");
}

#[test]
fn a_page_that_reloads_itself_at_each_gap_does_so_more_and_more_rarely() {
    let fake = Fake::start(|_, _| Reply::json("{\"cursor\":\"7\",\"gap\":true,\"messages\":[]}"));
    let browser = Browser::start();
    browser.before_pages(
        "const kept = (name) => JSON.parse(sessionStorage[name] || '[]');
         const note = (name, value) => { sessionStorage[name] = JSON.stringify([...kept(name), value]); };
         note('loads', 1);
         const later = window.setTimeout;
         // At least a second has passed when a pause of two seconds begins.
         window.setTimeout = (f, time) => { if (/tellGap/.test(f)) { note('pauses', time); } return later(f, time); };
         addEventListener('load', () => Comet.subscribe('news', { gap() { location.reload(); } }, { since: 5 }));",
    );
    browser.open(&fake.url("/"));
    browser.wait_for("return kept('loads').length === 4");
    let pauses = browser.run("return kept('pauses')");
    let pauses: Vec<f64> = serde_json::from_value(pauses).unwrap();
    assert!(
        pauses[0] <= 1000.0 && pauses[1] > 1000.0 && pauses[1] <= 2000.0,
        "{pauses:?}"
    );
    // Each subscription of the page has its own gaps.
    subscribe(&browser, "'other', HANDLERS, { since: 5 }");
    browser.wait_for("return heard.gaps === 1");
}

fn json(id: u64) -> String {
    format!("{{\"channel\":\"news\",\"id\":{id},\"name\":\"\",\"data\":\"\"}}")
}

fn message(id: u64) -> String {
    format!("id: {id}\ndata: {}\n\n", json(id))
}

//! Events of the browser about network and page make subscriptions reconnect at once.

use serde_json::json;

use super::{
    browser::{demo, url},
    browser_client::subscribe,
    daemon::Daemon,
    fake::{Fake, Reply},
    webdriver::Browser,
};

/// Pauses never end in this test, so a page reconnects only because of an event.
const NEVER: &str = "
    window.pauses = [];
    const later = window.setTimeout;
    window.setTimeout = (f, time) => {
      const isPause = time !== undefined && !Number.isInteger(time) && /^\\(\\) => this\\.end\\(\\)$/.test(f);
      if (isPause) { pauses.push(time); }
      return isPause ? 0 : later(f, time);
    };";

const OPEN: &str =
    "return heard.states.length && heard.states[heard.states.length - 1][0] === 'open'";

fn hide(browser: &Browser, is_hidden: bool) {
    browser.run(&format!(
        "Object.defineProperty(document, 'visibilityState', {{ value: '{}', configurable: true }});
         document.dispatchEvent(new Event('visibilitychange'));",
        if is_hidden { "hidden" } else { "visible" }
    ));
}

/// Stops the daemon and starts it again. The page learns of it only by this script.
fn comes_back_by(script: &str) {
    for transport in ["sse", "longpoll"] {
        let browser = Browser::start();
        browser.before_pages(NEVER);
        let daemon = demo();
        browser.open(&url(&daemon, "/chat"));
        subscribe(
            &browser,
            &format!("'news', HANDLERS, {{ transport: '{transport}' }}"),
        );
        browser.wait_for(OPEN);
        let (root, listen) = (daemon.root(), daemon.addr().to_string());
        drop(daemon); // killed, so it tells no time to come back
        browser.wait_for("return pauses.length > 0");
        let daemon = Daemon::start_in(root, "", &["--demo", "--listen", &listen]);
        daemon.publish("news", "meanwhile");
        browser.run(script);
        browser.wait_for("return heard.messages.length === 1");
        browser.wait_for(OPEN);
    }
}

#[test]
fn a_network_that_is_back_ends_the_pause() {
    comes_back_by("dispatchEvent(new Event('online'));");
}

#[test]
fn a_page_that_is_shown_again_ends_the_pause() {
    comes_back_by("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));");
}

#[test]
fn a_page_that_was_hidden_for_long_ends_the_pause() {
    comes_back_by(
        "const show = (state) => {
           Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
           document.dispatchEvent(new Event('visibilitychange'));
         };
         show('hidden');
         const now = Date.now;
         Date.now = () => now() + 20000;
         show('visible');",
    );
}

#[test]
fn a_page_that_was_hidden_for_a_moment_goes_on_waiting() {
    let browser = Browser::start();
    browser.before_pages(NEVER);
    let fake = Fake::start(|_, _| Reply("502 Bad Gateway", "text/html", String::new()));
    browser.open(&fake.url("/"));
    subscribe(&browser, "'news', HANDLERS");
    browser.wait_for("return pauses.length === 1");
    hide(&browser, true);
    hide(&browser, false);
    // Waits as long as the longest random delay.
    browser.run("return new Promise((resolve) => later(resolve, 1100))");
    assert_eq!(fake.asked().len(), 1);
}

#[test]
fn a_stream_that_died_without_a_word_is_opened_anew_when_the_network_is_back() {
    let browser = Browser::start();
    let daemon = demo();
    browser.before_pages(
        "window.asked = 0;
         const ask = window.fetch;
         window.fetch = (url, init) => { asked += String(url).includes('news?') ? 1 : 0; return ask(url, init); };",
    );
    browser.open(&url(&daemon, "/chat"));
    for transport in ["sse", "longpoll"] {
        subscribe(
            &browser,
            &format!("'news', HANDLERS, {{ transport: '{transport}' }}"),
        );
        browser.wait_for(OPEN);
        let before = browser.run("return asked").as_u64().unwrap();
        browser.run("dispatchEvent(new Event('online'));");
        browser.wait_for(&format!("return asked > {before}"));
        daemon.publish("news", "x");
        browser.wait_for("return heard.messages.length === 1");
        assert_eq!(
            browser.run("return heard.states"),
            json!([["connecting"], ["open"]])
        );
        browser.run("subscription.close();");
    }
}

#[test]
fn without_a_network_no_pause_grows() {
    let browser = Browser::start();
    // Pauses have their longest length, and end at once.
    browser.before_pages(
        "Math.random = () => 0.9991;
         window.pauses = [];
         const later = window.setTimeout;
         window.setTimeout = (f, time) => {
           const isPause = time !== undefined && !Number.isInteger(time);
           if (isPause) { pauses.push(time); }
           return later(f, isPause ? 5 : time);
         };",
    );
    let fake = Fake::start(|_, _| Reply::json("{}"));
    browser.open(&fake.url("/"));
    let offline = |is_offline: bool| {
        browser.cdp(
            "Network.emulateNetworkConditions",
            json!({"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}),
        );
    };
    offline(true);
    browser.wait_for("return navigator.onLine === false");
    subscribe(&browser, "'news', HANDLERS");
    browser.wait_for("return pauses.length > 10");
    assert_eq!(
        browser.run("return pauses.every((time) => time < 1100)"),
        true
    );
    offline(false);
    browser.wait_for("return pauses.some((time) => time > 10000)");
}

#[test]
fn a_slow_network_is_given_time_while_something_comes() {
    let browser = Browser::start();
    // The time limits for the head of an answer and for a silent stream are 20 times shorter.
    browser.before_pages(
        "const later = window.setTimeout;
         const short = { 10000: 500, 40000: 2000 };
         window.setTimeout = (f, time) => later(f, short[time] || time);",
    );
    let daemon = demo();
    browser.open(&url(&daemon, "/demo.json"));
    browser.run(include_str!("../../web/comet.js"));
    subscribe(&browser, "'news', HANDLERS");
    browser.wait_for(OPEN);
    // The message takes three seconds to arrive.
    browser.cdp("Network.enable", json!({}));
    browser.cdp(
        "Network.emulateNetworkConditions",
        json!({"offline": false, "latency": 0, "downloadThroughput": 300_000, "uploadThroughput": -1}),
    );
    daemon.publish("news", &"x".repeat(900_000));
    let heard = "return heard.messages.length === 1";
    let away = "return heard.states.some(([state]) => state === 'away')";
    browser.wait_for(heard);
    assert_eq!(browser.run(away), false, "by a stream");
    subscribe(&browser, "'news', HANDLERS, { since: 0 }");
    browser.wait_for(heard);
    assert_eq!(browser.run(away), false, "by a poll");
}

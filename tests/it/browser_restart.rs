//! A real browser while one daemon stops and the next one starts: with comet.js, and with EventSource alone.

use super::{
    browser::{demo, url},
    daemon::Daemon,
    webdriver::Browser,
};

/// Stops a daemon and starts the next one at the same address.
fn restart(daemon: Daemon, meanwhile: impl FnOnce()) -> Daemon {
    let (root, listen) = (daemon.root(), daemon.addr().to_string());
    assert!(daemon.stop().success());
    meanwhile();
    Daemon::start_in(root, "", &["--demo", "--listen", &listen])
}

#[test]
fn comet_js_comes_back_when_the_daemon_asked_it_to() {
    let browser = Browser::start();
    browser.before_pages(
        "window.pauses = [];
         const later = window.setTimeout;
         window.setTimeout = (f, time) => { pauses.push(time); return later(f, time); };",
    );
    for transport in ["sse", "longpoll"] {
        let first = demo();
        browser.open(&url(&first, "/"));
        browser.run(&format!(
            "window.heard = []; window.states = [];
             Comet.subscribe('news', {{
               message(m) {{ heard.push(m.data); }},
               state(s) {{ states.push(s); }},
             }}, {{ transport: '{transport}' }});"
        ));
        browser.wait_for("return states.at(-1) === 'open'");
        first.publish("news", "before");
        browser.wait_for("return heard.length === 1");
        // The page's own pauses are never whole numbers, so 500 is the daemon's value.
        assert_eq!(browser.run("return pauses.includes(500)"), false);
        let second = restart(first, || {
            browser.wait_for("return pauses.includes(500)");
        });
        second.publish("news", "after");
        browser.wait_for("return heard.length === 2 && heard[1] === 'after'");
        browser.wait_for("return states.at(-1) === 'open'");
    }
}

#[test]
fn an_event_source_reconnects_by_itself_and_misses_nothing() {
    let (first, browser) = (demo(), Browser::start());
    browser.open(&url(&first, "/demo.json"));
    browser.run(
        "window.heard = []; window.opened = 0;
         window.source = new EventSource('/ch/news');
         source.onopen = () => { opened += 1; };
         source.onmessage = (event) => { heard.push(JSON.parse(event.data).data); };",
    );
    browser.wait_for("return opened === 1");
    let second = restart(first, || {});
    second.publish("news", "while it was away");
    browser.wait_for("return opened === 2");
    browser.wait_for("return heard.length === 1 && heard[0] === 'while it was away'");
    second.publish("news", "and since");
    browser.wait_for("return heard.length === 2");
}

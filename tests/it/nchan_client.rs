//! NchanSubscriber.js, nchan's own client from npm, in Chromium.

use std::{fs, path::Path};

use crate::{
    browser::url,
    daemon::{Daemon, directory},
    nchan::{kill, publish},
    webdriver::Browser,
    wire::wait_for_subscribers,
};

const CONFIG: &str = "[http]\npublish = true\n[compat.nchan]\ntimeout = \"1s\"\n";

/// Loads NchanSubscriber.js into a page that the daemon serves.
fn load(browser: &Browser, daemon: &Daemon) {
    let client = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/clients/node_modules/nchan/NchanSubscriber.js"
    );
    let client = fs::read_to_string(Path::new(client))
        .unwrap_or_else(|e| panic!("{client}: {e}; scripts/clients installs it"));
    browser.open(&url(daemon, "/demo/demo.css"));
    browser.run(&client);
}

/// Subscribes, and notes messages with their ids, and errors.
fn subscribe(browser: &Browser, options: &str) {
    browser.run(&format!(
        "window.got = []; window.ids = []; window.errors = [];
         window.sub = new NchanSubscriber('/nchan/sub/a', {options});
         sub.on('message', (message, meta) => {{ got.push(message); ids.push(meta.id); }});
         sub.on('error', (code) => errors.push(code));
         sub.start();"
    ));
}

/// The page gets each message once: one that is stored, one that is published while it waits, and one that is published after the
/// daemon was killed and started again.
fn every_message_arrives_once(transport: &str) {
    let browser = Browser::start();
    let start =
        |root, listen: &str| Daemon::start_in(root, CONFIG, &["--demo", "--listen", listen]);
    let daemon = start(directory().into(), "127.0.0.1:0");
    publish(&daemon, "a", "first");
    load(&browser, &daemon);
    subscribe(&browser, &format!("{{ subscriber: '{transport}' }}"));
    browser.wait_for("return got.length === 1");
    if transport == "longpoll" {
        // The client takes the 408 at the end of a wait for an error, and starts again.
        browser.wait_for("return errors.includes(408)");
    }
    wait_for_subscribers(&daemon, 1);
    publish(&daemon, "a", "second\n");
    browser.wait_for("return got.length === 2");

    let listen = daemon.addr().to_string();
    let daemon = start(kill(daemon), &listen);
    publish(&daemon, "a", "third");
    browser.wait_for("return got.length >= 3");
    wait_for_subscribers(&daemon, 1);
    publish(&daemon, "a", "last");
    browser.wait_for("return got.includes('last')");
    let got = browser.run("return got");
    assert_eq!(
        got,
        serde_json::json!(["first", "second\n", "third", "last"])
    );
    let ids = browser.run("return ids");
    let seconds = |id: &serde_json::Value| {
        let (second, tag) = id.as_str().unwrap().split_once(':').unwrap();
        (second.parse::<u64>().unwrap(), tag.parse::<u64>().unwrap())
    };
    let ids: Vec<_> = ids.as_array().unwrap().iter().map(seconds).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[test]
fn the_client_gets_every_message_once_by_websocket() {
    every_message_arrives_once("websocket");
}

#[test]
fn the_client_gets_every_message_once_by_event_source() {
    every_message_arrives_once("eventsource");
}

#[test]
fn the_client_gets_every_message_once_by_long_poll() {
    every_message_arrives_once("longpoll");
}

/// A client that is loaded again by long-poll has its last id only in the request header `Etag`.
#[test]
fn a_page_that_is_loaded_again_goes_on_where_it_was() {
    let browser = Browser::start();
    let daemon = Daemon::start_in(directory().into(), CONFIG, &["--demo"]);
    publish(&daemon, "a", "first");
    for transport in ["websocket", "eventsource", "longpoll"] {
        load(&browser, &daemon);
        browser.run("localStorage.clear()");
        let options = format!("{{ subscriber: '{transport}', reconnect: 'persist' }}");
        subscribe(&browser, &options);
        browser.wait_for("return got.length > 0");
        let last = browser.run("return got[got.length - 1]");
        browser.open("about:blank");
        publish(&daemon, "a", transport);
        load(&browser, &daemon);
        subscribe(&browser, &options);
        browser.wait_for(&format!("return got.includes('{transport}')"));
        let got = browser.run("return got");
        assert_eq!(got[got.as_array().unwrap().len() - 1], *transport);
        assert!(
            !got.as_array().unwrap().contains(&last),
            "{transport}: {got}"
        );
    }
}

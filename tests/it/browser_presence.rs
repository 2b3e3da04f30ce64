//! comet.js with the option `presence`.

use std::sync::Arc;

use serde_json::json;

use crate::{
    daemon::{Daemon, directory},
    webdriver::Browser,
    wire::Events,
};

/// Anyone can be a member. A member who left is gone at once, except `slow.` ones, which stay for longer than the test.
const CONFIG: &str = "[[channel]]\nprefix = \"\"\nread = \"public\"\npresence = \"anyone\"\npresence_grace = 0\n\
    [[channel]]\nprefix = \"slow.\"\npresence_grace = \"1h\"\n";

fn start() -> (Daemon, Browser) {
    let daemon = Daemon::start_in(Arc::new(directory()), CONFIG, &["--demo"]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", daemon.addr()));
    (daemon, browser)
}

fn subscribe(browser: &Browser, channel: &str, options: &str) {
    browser.run(&format!(
        "window.seen = []; window.texts = [];
         window.news = Comet.subscribe('{channel}', {{
           presence(change) {{ seen.push(change); }},
           message(m) {{ texts.push(m.data); }},
         }}, {{ presence: true, {options} }});"
    ));
    browser.wait_for("return seen.length > 0");
}

fn the_page_hears_of_members(options: &str) {
    let (daemon, browser) = start();
    subscribe(&browser, "slow.a", options);
    let list = browser.run("return seen[0]");
    assert_eq!(
        (&list["channel"], &list["count"]),
        (&json!("slow.a"), &json!(1))
    );
    assert_eq!(list["members"][0]["id"], "ann");
    let bob = Events::open(&daemon, "/ch/slow.a?presence=1&member=bob", "");
    browser.wait_for("return seen.some((change) => change.joined && change.joined.id === 'bob')");
    daemon.publish("slow.a", "hi");
    browser.wait_for("return texts.includes('hi')");
    drop(bob);
    // Another subscription of the page, which is another member.
    browser.run(
        "window.other = []; Comet.subscribe('a', { presence(change) { other.push(change); } }, { presence: true });",
    );
    browser.wait_for("return other.length > 0");
    assert_eq!(
        browser.run("return other[0].members"),
        json!([]),
        "it only watches"
    );
    let bob = Events::open(&daemon, "/ch/a?presence=1&member=bob", "");
    browser.wait_for("return other.some((change) => change.joined && change.joined.id === 'bob')");
    drop(bob);
    browser.wait_for("return other.some((change) => change.left && change.left.id === 'bob' && change.count === 0)");
    assert_eq!(
        browser.run("return seen.filter((change) => change.left).length"),
        0
    );
}

#[test]
fn a_page_hears_of_members_by_streams() {
    the_page_hears_of_members("member: 'ann'");
}

#[test]
fn a_page_hears_of_members_by_polls() {
    the_page_hears_of_members("member: 'ann', transport: 'longpoll'");
}

#[test]
fn a_page_that_is_loaded_again_is_no_change() {
    let (daemon, browser) = start();
    let mut watcher = Events::open(&daemon, "/ch/slow.a?presence=1", "");
    for _ in 0..3 {
        subscribe(&browser, "slow.a", "member: 'ann'");
        browser.open(&format!("http://{}/", daemon.addr()));
    }
    assert_eq!(watcher.message().2["presence"]["joined"]["id"], "ann");
    assert_eq!(watcher.message_of(daemon.publish("slow.a", "end")), "end");
}

#[test]
fn a_page_asks_again_when_only_the_number_has_come_and_not_with_many_members() {
    let (daemon, browser) = start();
    subscribe(&browser, "slow.a", "member: 'ann'");
    let mut client = crate::daemon::Http::connect(daemon.addr());
    for number in 0..1100 {
        client.get(&format!("/ch/slow.a?wait=0&presence=1&member=m{number}"));
        assert_eq!(client.answer().status, 200);
    }
    browser.wait_for("return seen.some((change) => change.count === 1101 && !change.joined)");
    let last = browser.run("return seen.at(-1)");
    assert_eq!(last, json!({"channel": "slow.a", "count": 1101}));
}

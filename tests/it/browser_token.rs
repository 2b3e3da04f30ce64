//! The page's token function, streams with a token, and cookies for a daemon of another origin.

use std::sync::Arc;

use serde_json::json;

use super::{
    browser_client::subscribe,
    daemon::{Daemon, directory},
    fake::{Fake, Reply},
    tokens::{start_with, token, vectors},
    webdriver::Browser,
};

/// Subscribes with a token function that works at the third call, and checks the states that the page gets meanwhile.
fn a_bad_function(body: &str, reason: &str) {
    let daemon = start_with("demo = true\n", "");
    let browser = Browser::start();
    browser.before_pages(
        "window.uncaught = [];
         addEventListener('error', (event) => { uncaught.push(event.message); });
         const later = window.setTimeout;
         window.setTimeout = (f, time) => later(f, time === 10000 ? 100 : time);",
    );
    browser.open(&format!("http://{}/", daemon.addr()));
    let good = token(&json!({"s": ["chat.7"]}), 600);
    browser.run(&format!(
        "window.asked = 0;
         window.token = () => {{ asked += 1; if (asked < 3) {{ {body} }} return '{good}'; }};"
    ));
    subscribe(&browser, "'chat.7', HANDLERS, { token }");
    browser.wait_for("return heard.states.some(([state]) => state === 'open')");
    let states = browser.run("return heard.states");
    assert_eq!(
        states,
        json!([
            ["connecting"],
            ["away", format!("no token: {reason}")],
            ["open"]
        ])
    );
    let uncaught = browser.run("return uncaught");
    let uncaught: Vec<String> = serde_json::from_value(uncaught).unwrap();
    assert_eq!(uncaught.len(), 2, "{uncaught:?}");
    assert!(
        uncaught.iter().all(|message| message.contains(reason)),
        "{uncaught:?}"
    );
}

#[test]
fn a_token_function_that_throws_is_reported() {
    a_bad_function("throw new Error('out of tokens');", "out of tokens");
}

#[test]
fn a_token_function_that_rejects_is_reported() {
    a_bad_function(
        "return Promise.reject(new Error('no session'));",
        "no session",
    );
}

#[test]
fn a_token_function_that_never_answers_is_reported() {
    a_bad_function(
        "return new Promise(() => {});",
        "the token function took longer than 10 s",
    );
}

#[test]
fn a_token_function_that_gives_a_page_instead_is_reported() {
    a_bad_function(
        "return '<h1>Not Found</h1>\\n';",
        "what the page gave as a token is none",
    );
}

#[test]
fn a_failing_publish_tells_its_caller_alone() {
    let fake = Fake::start(|_, _| Reply::json("{}"));
    let browser = Browser::start();
    browser.before_pages(
        "window.uncaught = []; addEventListener('error', (e) => { uncaught.push(e.message); });",
    );
    browser.open(&fake.url("/"));
    let publish = "return Comet.publish('a', 'x', { token() { throw new Error('none') } }).catch((e) => e.message)";
    assert_eq!(browser.run(publish), "no token: none");
    assert_eq!(browser.run("return uncaught"), json!([]));
    assert!(fake.asked().is_empty());
}

#[test]
fn a_token_is_brought_to_a_stream_and_renewed_there() {
    let daemon = start_with("demo = true\n", "");
    let browser = Browser::start();
    browser.open(&format!("http://{}/", daemon.addr()));
    let grant = json!({"s": ["chat.7"]});
    let tokens = json!([token(&grant, 3), token(&grant, 600)]);
    browser.run(&format!(
        "window.tokens = {tokens}; window.token = () => tokens.shift();"
    ));
    // Both subscriptions have the same function, so they share one token.
    subscribe(&browser, "'chat.7', HANDLERS, { token }");
    browser.run("window.one = heard;");
    subscribe(&browser, "'chat.7', HANDLERS, { token }");
    browser
        .wait_for("return [one, heard].every((h) => h.states.some(([state]) => state === 'open'))");
    assert_eq!(browser.run("return tokens.length"), 1);
    browser.wait_for("return tokens.length === 0");
    daemon.publish("chat.7", "by the second");
    browser.wait_for("return one.messages.length === 1 && heard.messages.length === 1");
    assert_eq!(
        browser.run("return one.states"),
        json!([["connecting"], ["open"]])
    );
    let polls = "return performance.getEntriesByType('resource').some((e) => /chat.7.wait=(1|25)/.test(e.name))";
    assert_eq!(browser.run(polls), false);
}

#[test]
fn cookies_go_to_another_origin_where_the_page_asks_for_it() {
    let ours = super::browser::demo();
    let secret = &vectors()["keys"][0]["secret"];
    let config = format!(
        "[[channel]]\nprefix = \"\"\nread = \"token\"\npublish = \"token\"\n[http]\norigins = [\"http://{}\"]\n\
         [[auth.key]]\nkid = \"hs\"\nalg = \"HS256\"\nsecret = {secret}\n",
        ours.addr()
    );
    let theirs = Daemon::start_in(Arc::new(directory()), &config, &[]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/demo.json", ours.addr()));
    browser.run(include_str!("../../web/comet.js"));
    let token = token(&json!({"s": ["news"], "p": ["news"]}), 600);
    // Cookies do not depend on ports, so the other origin has the same cookie.
    browser.run(&format!(
        "document.cookie = '__Host-comet={token}; Secure; Path=/; SameSite=Strict';"
    ));
    for transport in ["sse", "longpoll"] {
        let options = format!(
            "url: 'http://{}/ch/', transport: '{transport}'",
            theirs.addr()
        );
        subscribe(
            &browser,
            &format!("'news', HANDLERS, {{ {options}, credentials: true }}"),
        );
        browser.wait_for("return heard.states.some(([state]) => state === 'open')");
        browser.run(&format!(
            "return Comet.publish('news', 'hi', {{ {options}, credentials: true }})"
        ));
        browser.wait_for("return heard.messages.length === 1");
        browser.run("subscription.close();");
        subscribe(&browser, &format!("'news', HANDLERS, {{ {options} }}"));
        browser.wait_for("return heard.states.some(([state]) => state === 'closed')");
    }
}

//! A session in Chromium.

use serde_json::json;

use crate::{
    tokens::{start_with, token},
    webdriver::Browser,
};

#[test]
fn a_page_subscribes_adds_a_channel_and_publishes() {
    let daemon = start_with("demo = true\n", "");
    let browser = Browser::start();
    browser.open(&format!("http://{}/", daemon.addr()));
    let good = token(&json!({"s": ["chat.*"], "p": ["chat.*"], "h": 1}), 600);
    browser.run(&format!(
        "window.frames_ = []; window.ends = [];\
         window.session = new WebSocket('ws://{}/session', ['comet', 'comet.token.{good}']);\
         session.onmessage = (event) => frames_.push(JSON.parse(event.data));\
         session.onclose = (event) => ends.push([event.code, event.wasClean].join());\
         window.ask = (request) => session.send(JSON.stringify(request));\
         window.reply = (ref) => frames_.find((frame) => frame.ref === ref) || {{}};\
         window.data = () => frames_.filter((frame) => frame.id && !('ok' in frame)).map((frame) => frame.data).join();\
         session.onopen = () => ask({{op: 'subscribe', channels: ['chat.1'], ref: 1}});",
        daemon.addr()
    ));
    browser.wait_for("return session.protocol === 'comet' && reply(1).ok");
    daemon.publish("chat.2", "not yet");
    daemon.publish("chat.1", "theirs");
    browser.wait_for("return data() === 'theirs'");
    browser.run("ask({op: 'subscribe', channels: ['chat.2'], ref: 2})");
    browser.wait_for("return reply(2).ok");
    browser.run("ask({op: 'publish', channel: 'chat.2', data: 'mine \\u{1f600}', ref: 3})");
    browser.wait_for("return data() === 'theirs,mine \\u{1f600}' && reply(3).id > 0");
    daemon.publish("chat.2", "theirs again");
    browser.wait_for("return data().endsWith(',theirs again')");
    browser.run("ask({op: 'publish', channel: 'box.x', ref: 4}); ask({op: 'publish', channel: 'closed.x', ref: 5})");
    browser.wait_for("return reply(4).ok === true && reply(5).error === 'forbidden'");
    browser.run("session.close()");
    browser.wait_for("return ends.join() === '1005,true'");
}

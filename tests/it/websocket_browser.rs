//! WebSocket in Chromium.

use serde_json::json;

use crate::{
    tokens::{start_with, token},
    webdriver::Browser,
};

/// A browser closes a socket whose answer selects none of the offered subprotocols.
#[test]
fn a_page_offers_subprotocols_and_brings_its_token_as_one() {
    let daemon = start_with("demo = true\n", "");
    let browser = Browser::start();
    browser.open(&format!("http://{}/", daemon.addr()));
    let good = token(&json!({"s": ["chat.7"], "h": 1}), 600);
    let url = |channel: &str| format!("ws://{}/ch/{channel}", daemon.addr());
    let open = |name: &str, channel: &str, protocols: serde_json::Value| {
        let url = url(channel);
        browser.run(&format!(
            "window.{name} = {{heard: [], ends: []}};\
             const socket = new WebSocket('{url}', {protocols});\
             socket.onopen = () => {{ {name}.protocol = socket.protocol; }};\
             socket.onmessage = (event) => {name}.heard.push(JSON.parse(event.data).data);\
             socket.onclose = (event) => {name}.ends.push(event.code);"
        ));
    };
    open("none", "open.a", json!([]));
    open("one", "open.a", json!("comet"));
    open("many", "open.a", json!(["json", "comet"]));
    open(
        "tokened",
        "chat.7",
        json!(["comet", format!("comet.token.{good}")]),
    );
    open("other", "open.a", json!("json"));
    open("tokenless", "chat.7", json!("comet"));
    browser.wait_for(
        "return none.protocol === '' && one.protocol === 'comet' && many.protocol === 'comet'",
    );
    browser.wait_for("return tokened.protocol === 'comet'");
    browser.wait_for("return other.ends.length === 1 && tokenless.ends.length === 1");
    daemon.publish("open.a", "hello");
    daemon.publish("chat.7", "secret");
    browser.wait_for("return [none, one, many].every((it) => it.heard.join() === 'hello')");
    browser.wait_for("return tokened.heard.join() === 'secret'");
    assert_eq!(
        browser.run("return other.heard.length + tokenless.heard.length"),
        0
    );
    assert_eq!(
        browser.run(
            "return none.ends.length + one.ends.length + many.ends.length + tokened.ends.length"
        ),
        0
    );
    // The page begins the closing handshake.
    browser.run(
        "const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ch/open.a');\
         window.clean = null;\
         socket.onclose = (event) => { clean = [event.code, event.reason, event.wasClean].join(); };\
         socket.onopen = () => { socket.send('\\u{1f600} is dropped'); socket.close(4999, 'b\\u00fd'); };",
    );
    browser.wait_for("return clean === '4999,b\\u00fd,true'");
}

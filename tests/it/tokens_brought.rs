//! Tokens as sites and clients use them: signed by PHP, and sent by a page and by the command line.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    daemon::wait_for,
    tokens::{assert_unauthorized, bearer, start, start_with, token, vectors},
    webdriver::Browser,
    wire::{ask, data, get, post},
};

/// With real PHP, which signs the token as a site does.
#[test]
fn a_token_that_php_has_minted_is_taken() {
    let daemon = start("");
    daemon.publish("chat.7", "x");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/php/token.php");
    let secret = vectors()["keys"][0]["secret"].as_str().unwrap().to_owned();
    let output = Command::new("php")
        .arg(script)
        .arg(secret)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<&str> = text.lines().collect();
    let ([good, short, other, forged, many], refused) = lines.split_first_chunk().unwrap();
    let poll = |token: &str| ask(&daemon, get("/ch/chat.7?since=0&wait=0", &bearer(token)));

    assert_eq!(data(&poll(good)), ["x"]);
    assert_eq!(
        ask(&daemon, post("/ch/chat.7", &bearer(good), b"y")).status,
        201
    );
    assert_eq!(
        ask(&daemon, get("/ch/user.42.mail?wait=0", &bearer(good))).status,
        200
    );
    assert_eq!(
        ask(&daemon, get("/ch/user.43?wait=0", &bearer(good))).status,
        403
    );
    assert_eq!(
        ask(&daemon, post("/ch/any", &bearer(many), b"y")).status,
        201
    );
    assert_unauthorized(&poll(other), "token", "audience");
    assert_unauthorized(&poll(forged), "token", "signature");
    wait_for("the token to expire", || {
        (poll(short).status == 401).then_some(())
    });
    assert_unauthorized(&poll(short), "token_expired", "expired");

    let rules = ["32 bytes", "a second", "64 patterns", "4096 bytes", "UTF-8"];
    for (line, rule) in refused.iter().zip(rules.iter().chain([&"no channel"; 9])) {
        assert!(line.contains(rule), "{rule}: {line}");
    }
    assert_eq!(refused.len(), 14);
}

/// The page's function returns the first token, and a new one when the daemon says that the first has expired.
#[test]
fn a_page_goes_on_with_a_new_token() {
    let daemon = start_with("demo = true\n", "");
    let browser = Browser::start();
    browser.open(&format!("http://{}/", daemon.addr()));
    let grant = json!({"s": ["chat.7"], "h": 1});
    let tokens = json!([token(&grant, 3), token(&grant, 600)]);
    browser.run(&format!(
        "window.tokens = {tokens}; window.heard = []; window.states = [];\
         window.subscription = Comet.subscribe('chat.7', {{\
           message(m) {{ heard.push(m.data); }},\
           state(s, why) {{ states.push(why ? s + ': ' + why : s); }},\
         }}, {{ token: async () => tokens.shift() }});"
    ));
    browser.wait_for("return states.includes('open')");
    daemon.publish("chat.7", "by the first");
    browser.wait_for("return heard.includes('by the first')");
    browser.wait_for("return tokens.length === 0");
    daemon.publish("chat.7", "by the second");
    browser.wait_for("return heard.includes('by the second')");
    let states = browser.run("return states.join()");
    assert_eq!(states, "connecting,open", "no break is shown");

    // A new token that is refused ends the subscription, with the reason.
    browser.run(
        "window.asked = 0; states.length = 0;\
         Comet.subscribe('chat.8', { state(s, why) { states.push(s + ': ' + why); } },\
           { token: () => { asked += 1; return 'nonsense'; } });",
    );
    browser.wait_for("return states.includes('closed: token: it is no JWT')");
    assert_eq!(browser.run("return asked"), 1);
}

#[test]
fn the_command_line_brings_a_token() {
    let daemon = start("");
    let url = format!("http://{}", daemon.addr());
    let good = token(&json!({"s": ["chat.7"], "h": 1}), 600);
    daemon.publish("chat.7", "for the bearer");
    let subscribe = |token: Option<&str>| {
        let mut command = daemon.comet(&["subscribe", "chat.7", "--since", "0", "--url", &url]);
        if let Some(token) = token {
            command.env("COMET_TOKEN", token);
        }
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut child = subscribe(Some(&good));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let _ = child.kill();
    child.wait().unwrap();
    assert!(line.contains("for the bearer"), "{line}");
    for (token, reason) in [
        (None, "needs a token"),
        (Some("nonsense"), "no JWT"),
        (Some("a\nb"), "COMET_TOKEN"),
    ] {
        let output = subscribe(token).wait_with_output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && errors.contains(reason),
            "{errors}"
        );
    }
}

//! Pusher Channels with the clients that users have: pusher-js, Laravel Echo and Pusher's library for Node.js, in
//! `tests/clients/pusher.js`. Each test runs one of its scenarios and compares what the application and the pages got.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::daemon::{Daemon, directory, wait_for};

const CONFIG: &str = "[compat.pusher]\n\
    [[compat.pusher.app]]\nid = \"1\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n\
    [[compat.pusher.app]]\nid = \"2\"\nkey = \"other-key\"\nsecret = \"other-secret\"\n";

fn start(daemon: &Daemon, scenario: &str) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients/pusher.js");
    let mut node = Command::new("node");
    node.arg(script)
        .args([daemon.addr().port().to_string(), scenario.into()]);
    node.stdout(Stdio::piped()).spawn().expect("node")
}

/// The values that the scenario has printed.
fn values(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect(text)
}

/// Runs a scenario against a new daemon.
fn run(scenario: &str) -> Vec<Value> {
    let daemon = Daemon::start(CONFIG);
    let output = start(&daemon, scenario).wait_with_output().unwrap();
    assert!(output.status.success());
    values(&String::from_utf8(output.stdout).unwrap())
}

/// Starts a scenario that waits for others, and returns when it is ready. The function returns what the scenario prints later.
fn begin(daemon: &Daemon, scenario: &str) -> impl FnOnce() -> Vec<Value> + use<> {
    let mut child = start(daemon, scenario);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    lines.read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    move || {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert!(child.wait().unwrap().success());
        values(&rest)
    }
}

#[test]
fn an_event_arrives_with_its_data_unchanged() {
    let got = json!([
        ["shipped", {"id": 1}],
        ["text", "plain"],
        // pusher-js parses the data.
        ["text", "quoted"],
        ["text", 1],
        ["text", "it's {\"half\": "],
        ["text", ""],
        ["many", "x"]
    ]);
    assert_eq!(run("events"), [json!("{}"), got]);
}

#[test]
fn a_name_with_every_character_is_a_channel_of_its_own() {
    let channels = json!({"channels": {"a,b;c@=.1": {}}});
    assert_eq!(run("names"), [json!([["shipped", "x"]]), channels]);
}

#[test]
fn the_page_that_causes_an_event_can_be_left_out() {
    let all = json!([
        [["to unknown", "x"]],
        [["to others", "x"], ["to unknown", "x"]]
    ]);
    assert_eq!(run("excluded"), [all]);
}

#[test]
fn a_private_channel_needs_the_signature_of_the_application() {
    let [error, events] = &run("private")[..] else {
        panic!()
    };
    assert_eq!(
        (&error["type"], &error["status"]),
        (&json!("AuthError"), &json!(401))
    );
    assert_eq!(events, &json!([]), "the other channels go on");
}

#[test]
fn pages_of_a_private_channel_send_events_to_each_other() {
    let data = json!({"a": [1, "b"]});
    let all = json!([[], [["client-typing", data]]]);
    assert_eq!(run("whispers"), [data, json!(4301), all]);
}

#[test]
fn pages_of_a_presence_channel_know_each_other() {
    let [seven, eight] = ["user 7", "user 8"].map(|name| json!({"name": name}));
    let expected = [
        json!([seven]),
        json!([eight, [seven, eight]]),
        json!([2, "7"]),
        json!({"occupied": true, "subscription_count": 3, "user_count": 2}),
        json!({"users": [{"id": "7"}, {"id": "8"}]}),
        json!(["x", {"user_id": "8"}]),
        json!([seven, 1]),
    ];
    assert_eq!(run("presence"), expected);
}

#[test]
fn a_page_that_is_refused_is_no_member() {
    let expected = [
        json!("101 channels are over the limit of 100"),
        json!({"users": []}),
    ];
    assert_eq!(run("too_many"), expected);
}

#[test]
fn a_cache_channel_begins_with_its_last_event() {
    let later = json!([
        ["pusher:subscription_succeeded", {}],
        ["last", {"id": 2}]
    ]);
    assert_eq!(run("cached"), [json!({}), later]);
}

#[test]
fn encrypted_events_arrive_clear() {
    assert_eq!(run("encrypted"), [json!({"number": 42})]);
}

#[test]
fn the_application_asks_about_channels() {
    let batch: Vec<Value> = (0..10)
        .map(|number| match number {
            0 | 1 => json!({"subscription_count": 2}),
            _ => json!({}),
        })
        .collect();
    let expected = [
        json!({"channels": {}}),
        json!({"channels": {"orders": {"subscription_count": 2}, "private-1": {"subscription_count": 1}}}),
        json!({"channels": {"private-1": {}}}),
        json!({"occupied": true, "subscription_count": 2}),
        json!({"occupied": false}),
        json!({"batch": batch}),
    ];
    assert_eq!(run("asks"), expected);
}

#[test]
fn a_user_who_has_signed_in_gets_events_until_the_application_ends_the_connections() {
    let expected = [json!({"to": 7}), json!({}), json!("disconnected")];
    assert_eq!(run("users"), expected);
}

#[test]
fn wrong_requests_are_refused_with_the_status_that_the_libraries_know() {
    let expected = [
        json!(401),
        json!(404),
        json!(413),
        json!(400),
        json!(400),
        json!("disconnected"),
    ];
    assert_eq!(run("refused"), expected);
}

#[test]
fn an_idle_page_stays_connected() {
    assert_eq!(run("idle"), [json!("connected")]);
}

#[test]
fn laravel_echo_listens() {
    let rest = [json!(["notification", {"type": "x"}]), json!(["end", {}])];
    let first = json!(["OrderShipped", {"id": 1}]);
    let custom = json!(["custom", {"id": 2}]);
    let one = json!([first, rest[0], rest[1]]);
    let other = json!([first, custom, rest[0], rest[1]]);
    assert_eq!(run("echo"), [json!([one, other])]);
}

#[test]
fn other_interfaces_publish_to_the_same_channels() {
    let daemon = Daemon::start(CONFIG);
    let rest = begin(&daemon, "other_interfaces");
    std::fs::write(daemon.dir().join("orders.comet"), "by file").unwrap();
    wait_for("the file", || {
        (!daemon.history("orders").is_empty()).then_some(())
    });
    for (label, data) in [("shipped", "{\"id\":1}"), ("end", "")] {
        let mut publish = daemon.comet(&["publish", "orders", "--name", label, data]);
        assert!(publish.stdout(Stdio::null()).status().unwrap().success());
    }
    let expected = json!([["message", "by file"], ["shipped", {"id": 1}]]);
    assert_eq!(rest(), [expected]);
}

#[test]
fn all_pages_come_back_after_a_restart() {
    let daemon = Daemon::start_in(Arc::new(directory()), CONFIG, &[]);
    let rest = begin(&daemon, "restart");
    let (root, address) = (daemon.root(), daemon.addr().to_string());
    drop(daemon);
    let daemon = Daemon::start_in(root, CONFIG, &["--listen", &address]);
    assert_eq!(rest(), [json!(true)]);
    drop(daemon);
}

//! NovComet's `comet.php`, requested as NovComet's page does: the URL begins with `?&`, names are not encoded, and the
//! query ends with the second as a parameter without a value. The page stops for good after any answer except a 200
//! with JSON.

use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    daemon::{Answer, Daemon, Http, wait_for},
    wire::{ask, get, parked, wait_for_subscribers},
};

const PUBLISHING: &str = "[http]\npublish = true\n";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The state of the page: ids, and the last value of each as it arrived.
struct Page {
    values: Vec<(String, String)>,
}

impl Page {
    /// `subscribe(id)` of a page whose clock shows `seconds`.
    fn subscribe(ids: &[&str], seconds: u64) -> Self {
        let values = ids
            .iter()
            .map(|id| ((*id).to_owned(), seconds.to_string()))
            .collect();
        Self { values }
    }

    fn request(&self) -> String {
        let subscribed: String = self
            .values
            .iter()
            .map(|(id, value)| format!("&subscribed[{id}]={value}"))
            .collect();
        get(
            &format!("/comet.php?{subscribed}&{}", now()),
            "X-Requested-With: XMLHttpRequest\r\n",
        )
    }

    /// Keeps the new values as JavaScript does. Returns the ids. An unexpected answer would end the page's loop.
    fn take(&mut self, answer: &Answer) -> Vec<String> {
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json"))
        );
        let json = answer.json();
        if json["s"] == 0 {
            return Vec::new();
        }
        assert_eq!(json["s"], 1, "{json}");
        let changed = json["k"].as_object().unwrap();
        for (id, value) in changed {
            let known = self.values.iter_mut().find(|(known, _)| known == id);
            // A JavaScript number, written in its shortest form.
            let number = value.as_f64().unwrap();
            known.unwrap_or_else(|| panic!("foreign id {id}")).1 = number.to_string();
        }
        changed.keys().cloned().collect()
    }
}

fn touch(daemon: &Daemon, id: &str) {
    let status = Command::new("touch")
        .arg(daemon.dir().join(format!("{id}.comet")))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_page_hears_of_touches_and_publishes() {
    let daemon = Daemon::start(PUBLISHING);
    let mut page = Page::subscribe(&["customAlert", "other"], 0);
    let by_touch: &dyn Fn() = &|| touch(&daemon, "customAlert");
    let by_url: &dyn Fn() = &|| {
        let answer = ask(&daemon, get("/comet.php?&publish=customAlert", ""));
        assert_eq!((answer.status, &*answer.body), (200, "true"));
    };
    let by_socket: &dyn Fn() = &|| {
        daemon.publish("customAlert", "");
    };
    let mut client = Http::connect(daemon.addr());
    for publish in [by_touch, by_url, by_socket, by_touch, by_touch] {
        client.send(page.request());
        wait_for_subscribers(&daemon, 1);
        publish();
        assert_eq!(page.take(&client.answer()), ["customAlert"]);
        wait_for_subscribers(&daemon, 0);
    }
}

#[test]
fn values_are_seconds_with_six_decimals() {
    let daemon = Daemon::start("");
    let id = daemon.publish("a", "x");
    let answer = ask(
        &daemon,
        get("/comet.php?&subscribed[a]=1300000000&1300000001", ""),
    );
    let expected = format!(
        "{{\"s\":1,\"k\":{{\"a\":{}.{:06}}}}}",
        id / 1_000_000,
        id % 1_000_000
    );
    assert_eq!(answer.body.trim_end(), expected);
}

/// The original server reported full seconds, and lost the second of two changes in a second.
#[test]
fn two_touches_within_a_second_are_two_changes() {
    let daemon = Daemon::start("");
    let mut page = Page::subscribe(&["a"], 0);
    let mut client = parked(&daemon, page.request());
    let mut last = 0.0;
    for _ in 0..10 {
        touch(&daemon, "a");
        assert_eq!(page.take(&client.answer()), ["a"]);
        let value: f64 = page.values[0].1.parse().unwrap();
        assert!(value > last && value < now() as f64 + 1.0);
        last = value;
        client.send(page.request());
        wait_for_subscribers(&daemon, 1);
    }
}

/// The page pauses for a second between polls.
#[test]
fn what_happens_between_polls_is_told_by_the_next() {
    let daemon = Daemon::start("");
    let mut page = Page::subscribe(&["a", "b", "c"], now() - 1000);
    let mut client = Http::connect(daemon.addr());
    client.send(page.request());
    assert_eq!(page.take(&client.answer()), ["a", "b", "c"]); // older than the daemon
    daemon.publish("b", "");
    daemon.publish("a", "");
    daemon.publish("a", "");
    client.send(page.request());
    assert_eq!(page.take(&client.answer()), ["a", "b"]);
    // All changes were reported before.
    client.send(page.request());
    wait_for_subscribers(&daemon, 1);
    daemon.publish("c", "");
    assert_eq!(page.take(&client.answer()), ["c"]);
}

#[test]
fn a_time_of_the_future_and_0_count_as_now() {
    let daemon = Daemon::start("");
    daemon.publish("a", "before");
    for seconds in [now() + 1, now() + 100_000, 99_999_999_999_999, u64::MAX, 0] {
        let mut page = Page::subscribe(&["a"], seconds);
        let mut client = parked(&daemon, page.request());
        daemon.publish("a", "after");
        assert_eq!(page.take(&client.answer()), ["a"], "{seconds}");
        wait_for_subscribers(&daemon, 0);
    }
}

#[test]
fn whatever_is_subscribed_the_poll_is_held_and_answered() {
    let daemon = Daemon::start("");
    daemon.publish("b", "before");
    let ts = now() + 10;
    let queries = [
        format!("?&subscribed[a]={ts}&{ts}"),
        format!("?&subscribed%5Ba%5D={ts}&{ts}"),
        format!("?subscribed[a]=1&subscribed[a]={ts}"), // the last counts
        format!("?&subscribed[never]={ts}&subscribed[a]={ts}"),
        format!("?&subscribed[../etc/passwd]=1&subscribed[a]={ts}"),
        format!(
            "?&subscribed[it's]=1&subscribed[%3Cb%3E]=1&subscribed[%ff]=1&subscribed[]=1&subscribed[a]={ts}"
        ),
        format!("?&subscribed[a]={ts}&subscribed=1&subscribed[b=1&[a]=1&publish="),
        "?&subscribed[a]=x".into(),
        "?&subscribed[a]=".into(),
        "?&subscribed[a]".into(),
        "?&subscribed[a]=-5".into(),
        "?&subscribed[a]=1e9".into(),
        "?&subscribed[a]=99999999999999999999999999".into(),
        format!(
            "?&subscribed[a]={ts}{}",
            (0..200)
                .map(|n| format!("&subscribed[x{n}]={ts}"))
                .collect::<String>()
        ),
    ];
    for query in queries {
        let mut client = parked(&daemon, get(&format!("/comet.php{query}"), ""));
        daemon.publish("a", "x");
        let answer = client.answer();
        let changed: Vec<String> = answer.json()["k"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(
            (answer.status, changed),
            (200, vec!["a".to_owned()]),
            "{query}"
        );
        wait_for_subscribers(&daemon, 0);
    }
}

/// The original server printed a warning, did not wait, and answered. The page continues.
#[test]
fn a_poll_without_valid_ids_waits_too() {
    let daemon = Daemon::start("");
    let queries = ["", "?", "?&1300000000", "?&subscribed[../x]=1", "?publish="];
    let clients: Vec<Http> = queries
        .iter()
        .map(|query| parked(&daemon, get(&format!("/comet.php{query}"), "")))
        .collect();
    daemon.publish("x", "");
    let status = daemon.stop();
    assert!(status.success());
    for (mut client, query) in clients.into_iter().zip(queries) {
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.json()["s"].as_u64()),
            (200, Some(0)),
            "{query:?}"
        );
    }
}

#[test]
fn a_publish_says_true_or_false_and_wins_over_a_poll() {
    let daemon = Daemon::start(PUBLISHING);
    let long = "x".repeat(201);
    let cases = [
        ("?&publish=a", "true"),
        ("?&publish=a&1300000000", "true"),
        ("?&subscribed[a]=1&publish=a", "true"),
        ("?publish=a+b", "false"), // a space: the page does not encode
        ("?publish=../evil", "false"),
        ("?publish=.hidden", "false"),
        ("?publish=a/b", "false"),
        ("?publish=%00", "false"),
        ("?publish=%ff", "false"),
        (&format!("?publish={long}"), "false"),
    ];
    for (query, reply) in cases {
        let answer = ask(&daemon, get(&format!("/comet.php{query}"), ""));
        assert_eq!((answer.status, &*answer.body), (200, reply), "{query}");
        assert_eq!(
            answer.header("cache-control"),
            Some("no-store, no-transform")
        );
    }
    assert_eq!(daemon.history("a").len(), 3);
    assert!(!daemon.root().path().join("evil.comet").exists());
}

#[test]
fn a_page_that_is_older_than_the_daemon_is_told_once() {
    let daemon = Daemon::start("");
    let mut page = Page::subscribe(&["a", "b"], now() - 1000);
    let mut client = Http::connect(daemon.addr());
    client.send(page.request());
    assert_eq!(page.take(&client.answer()), ["a", "b"]); // it may have missed something
    client.send(page.request());
    wait_for_subscribers(&daemon, 1);
    daemon.publish("b", "");
    assert_eq!(page.take(&client.answer()), ["b"]);
}

#[test]
fn the_path_can_be_set_and_switched_off() {
    let daemon = Daemon::start("[compat]\nnovcomet = \"/old/poll.php\"\n");
    daemon.publish("a", "");
    let poll = |path: &str| ask(&daemon, get(&format!("{path}?&subscribed[a]=1&99"), ""));
    assert_eq!(poll("/old/poll.php").json()["s"], 1);
    assert_eq!(poll("/comet.php").status, 404);
    let off = Daemon::start("[compat]\nnovcomet = \"\"\n");
    assert_eq!(
        ask(&off, get("/comet.php?&subscribed[a]=1", "")).status,
        404
    );
}

#[test]
fn a_restart_in_between_does_not_end_the_pages_loop() {
    let daemon = Daemon::start("");
    let root = daemon.root();
    let mut page = Page::subscribe(&["a"], 0);
    let mut client = parked(&daemon, page.request());
    touch(&daemon, "a");
    assert_eq!(page.take(&client.answer()), ["a"]);
    client.send(page.request());
    wait_for_subscribers(&daemon, 1);
    assert!(daemon.stop().success());
    assert!(page.take(&client.answer()).is_empty()); // {"s":0}: it comes back in a second

    let daemon = Daemon::start_in(root, "", &[]);
    wait_for("a poll that is told", || {
        let before = page.values.clone();
        let mut client = Http::connect(daemon.addr());
        client.send(page.request());
        touch(&daemon, "a");
        let told: Value = page.take(&client.answer()).into();
        (told == serde_json::json!(["a"]) && before != page.values).then_some(())
    });
}

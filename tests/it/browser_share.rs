//! Subscriptions of one page share a connection, and report `open` when they get messages.

use std::sync::Arc;

use serde_json::json;

use super::{
    browser::{demo, url},
    daemon::{Daemon, directory, wait_for},
    fake::{Fake, Reply},
    webdriver::Browser,
};

/// `many(names, options)` subscribes to each name separately and records the calls of each subscription's handlers.
const MANY: &str = "
    window.many = (names, options) => names.map((channels) => {
      const heard = { messages: [], gaps: 0, states: [] };
      heard.subscription = Comet.subscribe(channels, {
        message(m) { heard.messages.push(m.data); },
        gap() { heard.gaps += 1; },
        state(...said) { heard.states.push(said); },
      }, options);
      return heard;
    });
    window.areOpen = (all) => all.every((one) => one.states.length && one.states[one.states.length - 1][0] === 'open');
    const ask = window.fetch;
    window.asked = [];
    window.fetch = (...request) => { asked.push(request[0]); return ask(...request); };";

/// Names of channels, as a JavaScript expression.
fn names(count: usize) -> String {
    let names: Vec<String> = (1..=count).map(|n| format!("n{n}")).collect();
    json!(names).to_string()
}

fn page(daemon: &Daemon) -> Browser {
    let browser = Browser::start();
    browser.before_pages(MANY);
    browser.open(&url(daemon, "/"));
    browser
}

#[test]
fn twelve_subscriptions_of_a_page_hear_all_and_leave_room_for_its_requests() {
    let daemon = demo();
    let browser = page(&daemon);
    for transport in ["sse", "longpoll"] {
        let names = names(12);
        browser.run(&format!(
            "window.all = many({names}, {{ transport: '{transport}' }});"
        ));
        browser.wait_for("return areOpen(all)");
        for n in 1..=12 {
            daemon.publish(&format!("n{n}"), &format!("{transport}{n}"));
        }
        browser.wait_for("return all.every((one) => one.messages.length === 1)");
        let expected: Vec<_> = (1..=12)
            .map(|n| json!([format!("{transport}{n}")]))
            .collect();
        assert_eq!(
            browser.run("return all.map((one) => one.messages)"),
            json!(expected)
        );
        assert_eq!(
            browser.run("return fetch('/healthz').then((answer) => answer.text())"),
            "ok\n"
        );
        assert_eq!(
            browser.run("return all.map((one) => one.states).flat().length"),
            24
        );
        browser.run("all.forEach((one) => one.subscription.close());");
    }
}

#[test]
fn open_is_said_when_the_stream_is_answered_and_not_before() {
    // The server answers polls and never answers streams.
    let fake = Fake::start(|_, stream| {
        if stream {
            std::thread::park();
        }
        Reply::json("{\"cursor\":\"7\",\"gap\":false,\"messages\":[]}")
    });
    let browser = Browser::start();
    browser.before_pages(MANY);
    browser.open(&fake.url("/"));
    browser.run("window.all = many(['a', 'b']);");
    browser.wait_for("return asked.some((url) => !url.includes('wait='))");
    // The page detects that the stream is held back. Then the waiting poll is answered.
    browser.wait_for("return areOpen(all)");
    let order = browser.run("return asked");
    let order: Vec<String> = serde_json::from_value(order).unwrap();
    assert!(order.iter().any(|url| url.contains("wait=1")), "{order:?}");
}

#[test]
fn a_subscription_that_joins_loses_nothing_and_gets_nothing_from_before_its_start() {
    let daemon = demo();
    for transport in ["sse", "longpoll"] {
        let browser = page(&daemon);
        let options = format!("{{ transport: '{transport}' }}");
        browser.run(&format!("window.first = many(['steady'], {options})[0];"));
        browser.wait_for("return areOpen([first])");
        let mut expected = Vec::new();
        for n in 0..20 {
            let before = format!("before {n}");
            daemon.publish("steady", &before);
            daemon.publish(&format!("late{n}"), &before);
            // `since` 0: a message that is published at once is among the messages.
            browser.run(&format!(
                "window.late = many([['late{n}', 'steady']], {options})[0];
                 return new Promise((resolve) => {{
                   const look = () => late.subscription.cursor === null ? setTimeout(look, 1) : resolve(true);
                   look();
                 }});"
            ));
            let after = format!("after {n}");
            daemon.publish("steady", &after);
            daemon.publish(&format!("late{n}"), &after);
            browser.wait_for("return late.messages.length >= 2");
            let heard = browser.run("return late.messages");
            assert_eq!(heard, json!([after, after]), "{transport}");
            expected.extend([before, after]);
            if n % 2 == 0 {
                browser.run("late.subscription.close();");
            }
        }
        browser.wait_for("return first.messages.length >= 40");
        assert_eq!(browser.run("return first.messages"), json!(expected));
        assert_eq!(browser.run("return first.gaps"), 0);
        assert_eq!(
            browser.run("return first.states"),
            json!([["connecting"], ["open"]])
        );
    }
}

#[test]
fn each_subscription_has_its_own_since_and_its_own_gap() {
    let daemon = demo();
    let browser = page(&daemon);
    browser.run("window.now = many(['news'])[0];");
    browser.wait_for("return areOpen([now])");
    daemon.publish("news", "one");
    daemon.publish("news", "two");
    browser.wait_for("return now.messages.length === 2");
    browser.run("window.all = many(['news'], { since: 0 })[0]; window.old = many(['news'], { since: 1 })[0];");
    browser.wait_for("return areOpen([all, old])");
    daemon.publish("news", "three");
    browser.wait_for("return [now, all, old].every((one) => one.messages.length === 3)");
    let heard = browser.run("return [now, all, old].map((one) => one.messages)");
    let each = json!(["one", "two", "three"]);
    assert_eq!(heard, json!([each, each, each]));
    assert_eq!(
        browser.run("return [now.gaps, all.gaps, old.gaps]"),
        json!([0, 0, 1])
    );
}

#[test]
fn a_refused_subscription_does_not_disturb_the_others() {
    let config = "[[channel]]\nprefix = \"\"\nread = \"public\"\n[[channel]]\nprefix = \"shut\"\nread = \"closed\"\n";
    let daemon = Daemon::start_in(Arc::new(directory()), config, &["--demo"]);
    let browser = page(&daemon);
    browser.run("window.all = many(['a', 'shut.b', 'c/d', 'e']);");
    browser.wait_for("return areOpen([all[0], all[3]])");
    daemon.publish("e", "x");
    browser.wait_for("return all[3].messages.length === 1");
    let last = browser.run("return all.map((one) => one.states[one.states.length - 1][0])");
    assert_eq!(last, json!(["open", "closed", "closed", "open"]));
}

#[test]
fn a_channel_that_is_closed_later_ends_its_subscription_alone() {
    let open = "[[channel]]\nprefix = \"\"\nread = \"public\"\n";
    let daemon = Daemon::start_in(Arc::new(directory()), open, &["--demo"]);
    let (root, listen) = (daemon.root(), daemon.addr().to_string());
    let browser = page(&daemon);
    browser.run("window.all = many(['a', 'shut', 'c']);");
    browser.wait_for("return areOpen(all)");
    assert!(daemon.stop().success());
    let shut = format!("{open}[[channel]]\nprefix = \"shut\"\nread = \"closed\"\n");
    let daemon = Daemon::start_in(root, &shut, &["--demo", "--listen", &listen]);
    browser.wait_for("return all[1].states.some(([state]) => state === 'closed')");
    daemon.publish("a", "x");
    daemon.publish("c", "x");
    browser.wait_for(
        "return areOpen([all[0], all[2]]) && all[0].messages.length + all[2].messages.length === 2",
    );
    assert_eq!(browser.run("return all[0].gaps + all[2].gaps"), 0);
}

#[test]
fn more_channels_than_one_request_may_name_are_heard_by_several_connections() {
    let daemon = demo();
    let browser = page(&daemon);
    browser.run(&format!("window.all = many({});", names(150)));
    browser.wait_for("return areOpen(all)");
    for n in [1, 75, 150] {
        daemon.publish(&format!("n{n}"), "x");
    }
    browser.wait_for("return [0, 74, 149].every((n) => all[n].messages.length === 1)");
}

#[test]
fn what_a_page_no_longer_wants_is_no_longer_asked_for() {
    let daemon = demo();
    let browser = page(&daemon);
    browser.run("window.all = many(['a', 'b']);");
    browser
        .wait_for("return areOpen(all) && asked.some((url) => url.includes('hello,a,b?since='))");
    browser.run("all[0].subscription.close(); asked.length = 0;");
    browser.wait_for("return asked.some((url) => url.includes('/ch/hello,b?since='))");
    daemon.publish("b", "x");
    browser.wait_for("return all[1].messages.length === 1");
    assert_eq!(
        browser.run("return all[1].states"),
        json!([["connecting"], ["open"]])
    );
}

#[test]
fn a_quiet_subscription_is_told_no_gap_of_a_busy_one() {
    let config = "[history]\nmessages = 10\n";
    let daemon = Daemon::start_in(Arc::new(directory()), config, &["--demo"]);
    let browser = page(&daemon);
    for transport in ["sse", "longpoll"] {
        let options = format!("{{ transport: '{transport}' }}");
        browser.run(&format!("window.all = many(['quiet', 'busy'], {options});"));
        browser.wait_for("return areOpen(all)");
        let first = daemon.publish("busy", "first");
        let mut count = 1;
        // The daemon removes messages that are older than a second.
        wait_for("a gap after the first message", || {
            count += 1;
            daemon.publish("busy", "next");
            let oldest = daemon.history("busy")[0].0;
            (oldest > first + 1_000).then_some(())
        });
        browser.wait_for(&format!("return all[1].messages.length === {count}"));
        // A third subscription makes the connection start again.
        browser.run(&format!(
            "all.push(...many(['third'], {options})); asked.length = 0;"
        ));
        browser.wait_for("return areOpen(all) && asked.some((url) => url.includes(',third?'))");
        daemon.publish("quiet", "x");
        daemon.publish("third", "x");
        browser.wait_for("return [0, 2].every((n) => all[n].messages.length === 1)");
        assert_eq!(
            browser.run("return all.map((one) => one.gaps)"),
            json!([0, 0, 0]),
            "{transport}"
        );
        browser.run("all.forEach((one) => one.subscription.close());");
    }
}

#[test]
fn after_a_refusal_the_others_share_again() {
    let open = "[[channel]]\nprefix = \"\"\nread = \"public\"\n";
    let daemon = Daemon::start_in(Arc::new(directory()), open, &["--demo"]);
    let (root, listen) = (daemon.root(), daemon.addr().to_string());
    let browser = page(&daemon);
    browser.run("window.all = many(['a', 'shut', 'c', 'd']);");
    browser.wait_for("return areOpen(all)");
    assert!(daemon.stop().success());
    let shut = format!("{open}[[channel]]\nprefix = \"shut\"\nread = \"closed\"\n");
    let daemon = Daemon::start_in(root, &shut, &["--demo", "--listen", &listen]);
    browser.wait_for("return all[1].states.some(([state]) => state === 'closed')");
    // The page's own subscription to `hello` continues as well.
    browser.run("all.splice(1, 1); asked.length = 0; all.push(...many(['e', 'f', 'g', 'h']));");
    browser.wait_for("return areOpen(all) && asked.some((url) => /(,[^,]+){4}.since=/.test(url))");
    daemon.publish("c", "x");
    browser.wait_for("return all[1].messages.length === 1");
}

#[test]
fn numbers_may_name_channels() {
    let daemon = demo();
    let browser = page(&daemon);
    browser.run("window.all = many([42, [7, 'a', 'a']]);");
    browser.wait_for("return areOpen(all)");
    for channel in ["42", "7", "a"] {
        daemon.publish(channel, channel);
    }
    browser.wait_for("return all[0].messages.length + all[1].messages.length === 3");
    assert_eq!(
        browser.run("return all.map((one) => one.messages)"),
        json!([["42"], ["7", "a"]])
    );
}

#[test]
fn a_content_type_may_be_written_in_any_case_and_name_its_charset() {
    let fake = Fake::start(|_, stream| match stream {
        true => Reply(
            "200 OK",
            "Text/Event-Stream; Charset=UTF-8",
            "id: 9\ndata: {\"channel\":\"a\",\"id\":9,\"name\":\"\",\"data\":\"x\"}\n\n".into(),
        ),
        false => Reply::json("{\"cursor\":\"7\",\"gap\":false,\"messages\":[]}"),
    });
    let browser = Browser::start();
    browser.before_pages(MANY);
    browser.open(&fake.url("/"));
    browser.run("window.all = many(['a']);");
    browser.wait_for("return all[0].messages.length === 1");
    assert_eq!(fake.asked()[1], "/ch/a?since=7", "{:?}", fake.asked());
}

/// The connection has both channels, and the daemon sends the message once.
#[test]
fn a_message_of_several_channels_reaches_each_subscription_with_its_own_channels() {
    let daemon = demo();
    let browser = page(&daemon);
    for transport in ["sse", "longpoll"] {
        browser.run(&format!(
            "window.told = [];
             window.all = [['a'], ['b'], ['b', 'a'], ['c']].map((channels, n) => {{
               const one = {{ states: [] }};
               one.subscription = Comet.subscribe(channels, {{
                 message(m) {{ told.push([n, m.channel, m.channels || null, m.attributes || null]); }},
                 state(...said) {{ one.states.push(said); }},
               }}, {{ transport: '{transport}' }});
               return one;
             }});"
        ));
        browser.wait_for("return areOpen(all)");
        browser.run("return Comet.publish(['a', 'b', 'hidden'], 'hi')");
        browser.run("return Comet.publish('c', 'last')");
        browser.wait_for("return told.some(([n]) => n === 3)");
        let both = ["a", "b"];
        assert_eq!(
            browser.run("return told.sort()"),
            json!([
                [0, "a", null, null],
                [1, "b", null, null],
                [2, "a", both, null],
                [3, "c", null, null]
            ]),
            "{transport}"
        );
        browser.run("all.forEach((one) => one.subscription.close())");
    }
}

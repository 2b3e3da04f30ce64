//! The loader page of dklab_realplexor's pages in a real browser, behind nginx as docs/compat/realplexor.md sets it up.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
};

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, wait_for},
    proxies::{Kind, Proxy, free_address},
    realplexor::sent,
    webdriver::Browser,
    wire::wait_for_subscribers,
};

const MANUAL: &str = include_str!("../../docs/compat/realplexor.md");

/// A page that makes the calls of the original's page script: it opens the loader in an iframe, and calls `execute` there.
const BARE: &str = "<!doctype html><title>bare</title><body><script>
    var got = [], map = {}, errors = 0;
    function listen(id, cursor) { map[id] = { cursor: cursor, callbacks: [function (data, id, cursor) { got.push([id, data, cursor]); }] }; }
    function call(callback, values) { try { callback.apply(null, values); return null; } catch (e) { errors++; return '' + e; } }
    var frame = document.createElement('iframe');
    frame.src = '/realplexor/?identifier=IFRAME&version=1.32';
    frame.onload = function () { window.loader = frame.contentWindow.Dklab_Realplexor_Loader; };
    document.body.appendChild(frame);
    </script>";

/// A page with the script of the daemon.
const SCRIPTED: &str = "<!doctype html><title>scripted</title><body><script src='/realplexor/?identifier=SCRIPT'></script><script>
    var got = [];
    var realplexor = new Dklab_Realplexor(location.protocol + '//' + location.host + '/realplexor/', 'demo_');
    function take(data, id, cursor) { got.push([id, data]); }
    realplexor.subscribe('a', function () { throw 'a fault of the page'; }).subscribe('a', take).execute();
    </script>";

/// A daemon whose WAIT line has this address.
fn lines(wait: SocketAddr) -> String {
    format!("[compat.realplexor]\nlisten_in = \"127.0.0.1:0\"\nlisten_wait = \"{wait}\"\n")
}

/// nginx with the block of the manual and this page. The address of the page comes second.
fn site(daemon: &Daemon, wait: SocketAddr, page: &str) -> (Proxy, String, tempfile::TempDir) {
    let root = tempfile::Builder::new()
        .prefix("comet-page-")
        .tempdir()
        .unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(root.path().join("page.html"), page).unwrap();
    let (_, block) = MANUAL.split_once("```nginx\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let block = block.replace("127.0.0.1:8088", &wait.to_string());
    let page = format!(
        "location = /page.html {{ default_type text/html; alias {}/page.html; }}",
        root.path().display()
    );
    let proxy = Proxy::start(Kind::Nginx, daemon, |configuration| {
        configuration.replacen("location ", &format!("{page}\n{block}\nlocation "), 1)
    });
    let url = format!("http://{}/page.html", proxy.addr);
    (proxy, url, root)
}

fn got(browser: &Browser, count: usize) -> Value {
    browser.wait_for(&format!("return got.length >= {count} && got"))
}

#[test]
fn a_page_that_calls_the_loader_gets_each_block_once() {
    let wait = free_address();
    let (daemon, browser) = (Daemon::start(&lines(wait)), Browser::start());
    let (_proxy, url, _root) = site(&daemon, wait, BARE);
    sent(&daemon, "me_ns_a", "\"before\"");
    browser.open(&url);
    browser.wait_for("return !!window.loader");
    browser.run("listen('a', null); listen('b', '0'); listen('unheard', null); map.unheard.callbacks = []; loader.execute(map, call, 'me_ns_')");
    wait_for_subscribers(&daemon, 1);
    // The second block comes while the page does not wait.
    for number in 0..10 {
        sent(&daemon, "me_ns_a,me_ns_b", &number.to_string());
        sent(
            &daemon,
            "me_ns_b",
            &format!("{{\"x\":\n\"{number}\u{2028}\"}}"),
        );
    }
    let all = got(&browser, 30);
    let of = |id: &str| -> Vec<Value> {
        let blocks = all.as_array().unwrap().iter();
        blocks
            .filter(|block| block[0] == id)
            .map(|block| block[1].clone())
            .collect()
    };
    assert_eq!(of("a"), (0..10).map(Value::from).collect::<Vec<_>>());
    let expected = (0..10).flat_map(|n| [json!(n), json!({"x": format!("{n}\u{2028}")})]);
    assert_eq!(of("b"), expected.collect::<Vec<_>>());
    assert!(all[0][2].is_string(), "a cursor stays a text: {all}");
    // A page may change its ids at any time.
    wait_for_subscribers(&daemon, 1);
    sent(&daemon, "me_ns_c", "\"earlier\"");
    browser.run("got = []; listen('c', '0'); delete map.b; loader.execute(map, call, 'me_ns_')");
    let all = got(&browser, 1);
    assert_eq!((&all[0][0], &all[0][1]), (&json!("c"), &json!("earlier")));
    // After a restart, also by a crash, nothing is missing and nothing comes twice.
    wait_for_subscribers(&daemon, 1);
    let root = daemon.root();
    daemon.signal("KILL");
    drop(daemon);
    let daemon = Daemon::start_in(root, &lines(wait), &[]);
    sent(&daemon, "me_ns_a", "\"after\"");
    let all = got(&browser, 2);
    assert_eq!(
        (all.as_array().unwrap().len(), &all[1][1]),
        (2, &json!("after"))
    );
    assert_eq!(browser.run("return errors"), 0);
}

#[test]
fn the_script_of_the_daemon_works_on_a_page_with_a_port() {
    let wait = free_address();
    let (daemon, browser) = (Daemon::start(&lines(wait)), Browser::start());
    let (_proxy, url, _root) = site(&daemon, wait, SCRIPTED);
    browser.open(&url);
    wait_for_subscribers(&daemon, 1);
    sent(&daemon, "demo_a", "1");
    assert_eq!(got(&browser, 1), json!([["a", 1]]));
    wait_for_subscribers(&daemon, 1);
    browser.run("realplexor.subscribe('long', take); for (var i = 0; i < 200; i++) realplexor.subscribe('an_id_with_a_long_name_' + i, take); realplexor.execute()");
    // The list of ids is so long that the request is a POST.
    wait_for("the ids", || {
        let online = crate::realplexor::publish(&daemon, "", "online demo_an_id\n");
        (online.lines().filter(|line| line.ends_with(" 1")).count() == 200).then_some(())
    });
    sent(&daemon, "demo_an_id_with_a_long_name_199,demo_long", "2");
    let all = got(&browser, 3);
    assert_eq!(
        all.as_array().unwrap()[1..],
        [json!(["an_id_with_a_long_name_199", 2]), json!(["long", 2])]
    );
    browser.run("realplexor.unsubscribe('a').unsubscribe('long', take).execute()");
    wait_for_subscribers(&daemon, 1);
    sent(&daemon, "demo_long,demo_a", "3");
    sent(&daemon, "demo_an_id_with_a_long_name_0", "4");
    let all = got(&browser, 4);
    assert_eq!(all[3], json!(["an_id_with_a_long_name_0", 4]));
}

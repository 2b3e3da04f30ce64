//! Tests examples/web/form.php on a whole site, in each way that README.md describes.

use super::{
    super::support::{Daemon, wait_for},
    relay::Relay,
    server::{Setup, Site},
};

fn site(setup: Setup, daemon: &Daemon) -> (Site, Relay) {
    let root = tempfile::Builder::new()
        .prefix("comet-site-")
        .tempdir()
        .unwrap();
    let socket = root.path().join("comet.sock");
    let relay = Relay::start(socket.clone(), &daemon.socket());
    relay.allow(0o666);
    (Site::start(setup, daemon, root, &socket), relay)
}

#[test]
fn what_a_form_publishes_comes_to_every_browser_through_nginx() {
    let daemon = Daemon::start();
    let (site, relay) = site(Setup::Easy, &daemon);
    assert!(
        site.get("/form.php")
            .all()
            .contains("<form method=\"post\">")
    );
    assert!(site.get("/comet.js").all().starts_with("HTTP/1.1 200"));

    let now = site.get("/ch/news?wait=0").all();
    let cursor = now
        .split("\"cursor\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let poll = site.get(&format!("/ch/news?since={cursor}&wait=60"));
    let mut stream = site.get(&format!("/ch/news?since={cursor}&as=sse"));
    let answer = site.submit("from+PHP");
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("X-Message-Id: "))
        .unwrap();
    let message =
        format!("{{\"channel\":\"news\",\"id\":{id},\"name\":\"\",\"data\":\"from PHP\"}}");
    let polled = poll.all();
    assert!(polled.contains(&message), "{polled}");
    stream.until(&message);

    // One worker and one connection serve any number of requests.
    for text in ["two", "three"] {
        assert!(site.submit(text).starts_with("HTTP/1.1 303"));
        stream.until(&format!("\"data\":\"{text}\""));
    }
    assert_eq!(relay.accepted(), 1);
}

#[test]
fn a_socket_that_is_closed_to_php_tells_how_to_open_it() {
    let daemon = Daemon::start();
    let (site, relay) = site(Setup::Easy, &daemon);
    relay.allow(0o600);
    let answer = site.submit("hi");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("Permission denied") && answer.contains("usermod -aG comet www-data"),
        "{answer}"
    );
    relay.allow(0o666);
    assert!(site.submit("hi").starts_with("HTTP/1.1 303"));
    assert_eq!(daemon.data("news"), ["hi"]);
}

fn publishes_over_one_connection(site: &Site, relay: &Relay, daemon: &Daemon) {
    for text in ["one", "two", "three"] {
        let answer = site.submit(text);
        assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    }
    assert_eq!(daemon.data("news"), ["one", "two", "three"]);
    assert_eq!(relay.accepted(), 1);
}

#[test]
fn preloaded_the_client_works_and_ffi_stays_closed_to_the_rest() {
    let daemon = Daemon::start();
    let (site, relay) = site(Setup::Strict, &daemon);
    let page = "<?php try { FFI::cdef('int getpid(void);'); echo 'open'; } catch (Throwable $e) { echo $e->getMessage(); }";
    site.page("own.php", page);
    let answer = site.get("/own.php").all();
    assert!(answer.contains("FFI API is restricted"), "{answer}");
    publishes_over_one_connection(&site, &relay, &daemon);
}

#[test]
fn the_extension_needs_no_ffi() {
    let daemon = Daemon::start();
    let (site, relay) = site(Setup::Extension, &daemon);
    publishes_over_one_connection(&site, &relay, &daemon);
}

#[test]
fn a_page_does_not_fail_while_the_daemon_is_away() {
    for setup in [Setup::Easy, Setup::Extension] {
        let mut daemon = Daemon::start();
        daemon.admit("www-data");
        let root = tempfile::Builder::new().prefix("comet-site-").tempdir();
        let site = Site::start(setup, &daemon, root.unwrap(), &daemon.socket());
        let spooled = |text| site.submit(text).contains("\r\nX-Message-Id: spooled\r\n");
        assert!(!spooled("before"), "{setup:?}");
        daemon.pause();
        assert!(spooled("stopped") && spooled("stopped, too"), "{setup:?}");
        daemon.resume();
        wait_for("the spool to be taken", || {
            (daemon.data("news").len() == 3).then_some(())
        });
        assert_eq!(daemon.data("news"), ["before", "stopped", "stopped, too"]);
        daemon.kill();
        assert!(spooled("one") && spooled("two"), "{setup:?}");
        let poll = site.get("/ch/news").all();
        assert!(poll.starts_with("HTTP/1.1 502"), "{setup:?}: {poll}");
        let stream = site.get_as("text/event-stream", "/ch/news").all();
        assert!(stream.starts_with("HTTP/1.1 200"), "{setup:?}: {stream}");
        assert!(stream.ends_with("retry: 2000\n\n"), "{setup:?}: {stream}");
        daemon.go();
        daemon.admit("www-data");
        assert!(!spooled("three"), "{setup:?}");
        let data = daemon.data("news");
        let last = ["one", "two", "three"].map(String::from);
        assert!(data.ends_with(&last), "{setup:?}: {data:?}");
    }
}

#[test]
fn without_a_set_up_the_page_says_what_is_missing() {
    let daemon = Daemon::start();
    let (site, relay) = site(Setup::Nothing, &daemon);
    let answer = site.submit("hi");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("FFI API is restricted") && answer.contains("/share/php/README.md"),
        "{answer}"
    );
    assert_eq!(relay.accepted(), 0);
}

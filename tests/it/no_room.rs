//! A daemon without room for an event stream tells the client when to come back, by an answer that does not end a
//! browser's EventSource (HTML standard, section 9.2.3).

use std::{net::SocketAddr, sync::Arc};

use crate::{
    ceiling::own_address,
    daemon::{Answer, Daemon, Http, directory, wait_for},
    webdriver::Browser,
    wire::{data, get, metric, parked, post, refusal, send_some},
};

const PAGE: &str = "https://page.example";
const STREAM: &str = "Accept: text/event-stream\r\n";

/// A daemon with room for two connections, and the clients that use it up.
fn full(origin: &str) -> (Daemon, Vec<Http>) {
    let daemon = Daemon::start(&format!(
        "workers = 1\n[http]\nmax_connections = 2\npublish = true\norigins = [\"{origin}\"]\n"
    ));
    let wait = |_| {
        let mut client = Http::connect(daemon.addr());
        client.send(get("/ch/a", ""));
        client
    };
    let waiting = (0..2).map(wait).collect();
    wait_for("both to wait", || {
        (figure(&daemon, "subscribers") == 2).then_some(())
    });
    (daemon, waiting)
}

/// A figure, read without an HTTP connection.
fn figure(daemon: &Daemon, name: &str) -> u64 {
    let out = daemon.comet(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    status["metrics"][name].as_u64().unwrap()
}

fn ask(addr: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Http::connect(addr);
    send_some(&mut client, request.as_ref());
    let answer = client.answer();
    assert!(client.is_closed());
    answer
}

/// Checks that the answer is an event stream that ends at once and says when to come back.
fn asks_back(answer: &Answer, shown: &str) {
    assert_eq!(answer.status, 200, "{shown}: {answer:?}");
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("text/event-stream; charset=utf-8"), "{shown}");
    assert!(
        answer.body.starts_with("retry: 5000\n"),
        "{shown}: {answer:?}"
    );
    assert!(answer.body.ends_with("\n\n"), "{shown}: {answer:?}");
    assert!(!answer.body.contains("data:"), "{shown}: {answer:?}");
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store, no-transform"),
        "{shown}"
    );
}

#[test]
fn a_full_daemon_asks_event_streams_to_come_back() {
    let (daemon, mut waiting) = full(PAGE);
    let origin = format!("{STREAM}Origin: {PAGE}\r\n");
    for (path, headers) in [
        ("/ch/a", STREAM),
        ("/ch/a?since=0", "accept: Text/Event-Stream;q=0.5\r\n"),
        ("/ch/a?as=sse", ""),
        ("/ch/a?as=sse", "Accept: */*\r\n"),
        ("/ch/a?%61s=sse&x=y", ""),
        ("/%63h/%61", STREAM),
        ("/ch/a", &*origin),
    ] {
        let answer = ask(daemon.addr(), get(path, headers));
        asks_back(&answer, &format!("{path} {headers}"));
        let allowed = headers.contains("Origin").then_some(PAGE);
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
    let old = "GET /ch/a?as=sse HTTP/1.0\r\n\r\n";
    asks_back(&ask(daemon.addr(), old), old);
    let absolute = "GET http://localhost/ch/a?as=sse HTTP/1.1\r\nHost: localhost\r\n\r\n";
    asks_back(&ask(daemon.addr(), absolute), absolute);
    // The head arrives in pieces, long after the connection was refused.
    let mut client = Http::connect(daemon.addr());
    client.send("GET /ch/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/ev");
    client.send("ent-stream\r\n\r\n");
    asks_back(&client.answer(), "in pieces");
    // HEAD has the same head and no body.
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/a", STREAM).replacen("GET", "HEAD", 1));
    let told = String::from_utf8(client.rest()).unwrap();
    assert!(
        told.starts_with("HTTP/1.1 200 ") && told.ends_with("\r\n\r\n"),
        "{told}"
    );

    // NovComet's page would not ask again after an error either.
    for (path, body) in [
        ("/comet.php?&subscribed[a]=1&99", "{\"s\":0}"),
        ("/%63omet.php", "{\"s\":0}"),
        ("/comet.php?publish=a", "false"),
    ] {
        let answer = ask(daemon.addr(), get(path, ""));
        assert_eq!((answer.status, &*answer.body), (200, body), "{path}");
    }

    // Other clients get an error status.
    for request in [
        get("/ch/a", "").into_bytes(),
        get("/ch/a", "Accept: text/event-stream;q=0\r\n").into(),
        get("/ch/a?as=poll", STREAM).into(),
        get("/ch/a?as=sse&as=poll", "").into(),
        get("/healthz", STREAM).into(),
        post("/ch/a", STREAM, b"x"),
        get("/ch/a?as=iframe&callback=f", "").into(),
        b"garbage\r\n\r\n".into(),
        Vec::new(), // after a while
    ] {
        let answer = ask(daemon.addr(), &request);
        let told = refusal(&answer);
        assert_eq!((told.0, &*told.1), (503, "connections"), "{request:?}");
        assert!(told.2.contains("more than 2 connections"), "{}", told.2);
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    assert!(daemon.history("a").is_empty());
    // A freed connection can be used by the next client, although others are still being refused.
    let before = figure(&daemon, "http_refused");
    let silent: Vec<Http> = (0..5).map(|_| Http::connect(daemon.addr())).collect();
    wait_for("all to be refused", || {
        (figure(&daemon, "http_refused") == before + 5).then_some(())
    });
    drop(waiting.pop());
    wait_for("room", || {
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, get("/healthz", "").as_bytes());
        (client.answer().status == 200).then_some(())
    });
    drop(silent);
    daemon.publish("a", "told");
    assert_eq!(data(&waiting[0].answer()), ["told"]);
}

/// The number of such connections is limited. Beyond the limit the daemon answers without waiting for the request.
#[test]
fn silent_connections_that_are_refused_hold_up_nobody() {
    let (daemon, mut waiting) = full(PAGE);
    let mut silent: Vec<Http> = (0..200).map(|_| Http::connect(daemon.addr())).collect();
    let told: Vec<u16> = silent
        .iter_mut()
        .map(|client| client.answer().status)
        .collect();
    assert!(told.iter().all(|status| *status == 503), "{told:?}");
    daemon.publish("a", "told");
    for client in &mut waiting {
        assert_eq!(data(&client.answer()), ["told"]);
    }
    drop((silent, waiting));
    wait_for("room", || {
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, get("/healthz", "").as_bytes());
        (client.answer().status == 200).then_some(())
    });
    assert!(metric(&daemon, "comet_http_refused_total") >= 200);
    wait_for("all to leave", || {
        (metric(&daemon, "comet_http_connections") == 1).then_some(())
    });
}

#[test]
fn the_ceiling_of_memory_asks_event_streams_to_come_back() {
    let daemon = Daemon::start("workers = 1\n[http]\nmax_memory = \"1MiB\"\n");
    let mut open = Vec::new();
    loop {
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, get("/ch/a?as=sse", "").as_bytes());
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        if head.contains("content-length") {
            break;
        }
        open.push(client);
        assert!(open.len() < 1000, "no ceiling");
    }
    asks_back(&ask(daemon.addr(), get("/ch/a", STREAM)), "memory");
    let told = refusal(&ask(daemon.addr(), get("/ch/a", "")));
    assert!(
        told.0 == 503 && told.2.contains("of the 1048576 bytes"),
        "{told:?}"
    );
}

#[test]
fn the_limit_of_an_address_asks_event_streams_to_come_back() {
    let Some(ip) = own_address() else {
        return eprintln!("this machine has no address but loopback: nothing to test");
    };
    let config = "[http]\nmax_per_address = 1\n[[channel]]\nprefix = \"\"\nread = \"public\"\n";
    let daemon = Daemon::start_in(Arc::new(directory()), config, &["--listen", "0.0.0.0:0"]);
    let addr = SocketAddr::from((ip, daemon.addr().port()));
    let mut one = Http::connect(addr);
    one.send(get("/ch/a?as=sse", "").replace("comet.localhost", &ip.to_string()));
    one.until("event: cursor");
    asks_back(&ask(addr, get("/ch/a", STREAM)), "address");
    let answer = ask(addr, get("/ch/a", ""));
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("5"))
    );
}

/// A head that arrives too late is a temporary error as well. A permanent error still gets an error status.
#[test]
fn permanent_refusals_stay_statuses() {
    let daemon = Daemon::start(
        "[http]\nheader_time = \"300ms\"\n[[channel]]\nprefix = \"shut\"\nread = \"closed\"\n",
    );
    let mut client = Http::connect(daemon.addr());
    client.send("GET /ch/a?as=sse HTTP/1.1\r\nHost: localhost\r\n");
    asks_back(&client.answer(), "late");
    for (path, status) in [
        ("/ch/..", 400),
        ("/ch/a?since=x", 400),
        ("/ch/shut", 403),
        ("/nowhere", 404),
    ] {
        let mut client = Http::connect(daemon.addr());
        client.send(get(path, STREAM));
        assert_eq!(client.answer().status, status, "{path}");
    }
}

#[test]
fn a_daemon_that_stops_asks_event_streams_to_come_back() {
    let daemon = Daemon::start("workers = 1\ngrace = \"20s\"\n");
    let mut late = Http::connect(daemon.addr());
    late.send("GET /ch/a HTTP/1.1\r\nHost: localhost\r\n");
    let mut witness = parked(&daemon, get("/ch/a", ""));
    daemon.signal("TERM");
    assert_eq!(witness.answer().status, 200); // from here on the worker is stopping
    late.send(format!("{STREAM}\r\n"));
    let told = late.answer();
    assert_eq!(told.status, 200);
    assert!(told.body.contains("\nretry: "), "{}", told.body);
    assert!(daemon.stop().success());
}

/// Only a browser can show what ends its EventSource.
#[test]
fn a_browser_comes_back_when_there_is_room() {
    let pages = Daemon::start("");
    let page = format!("http://{}", pages.addr());
    let (daemon, waiting) = full(&page);
    let browser = Browser::start();
    browser.open(&format!("{page}/healthz"));
    let url = format!("http://{}/ch/a?as=sse&since=0", daemon.addr());
    browser.run(&format!(
        "window.heard = []; window.errors = 0;\
         window.source = new EventSource('{url}');\
         source.onerror = () => {{ errors += 1; }};\
         source.onmessage = (e) => heard.push(JSON.parse(e.data).data);"
    ));
    browser.wait_for("return errors > 0");
    assert_eq!(
        browser.run("return source.readyState"),
        0,
        "it is to try again"
    );
    drop(waiting);
    daemon.publish("a", "one");
    browser.wait_for("return heard.join() === 'one'");
}

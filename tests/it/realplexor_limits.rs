//! Who may use the lines of dklab_realplexor, limits, the static pages, and the end of the daemon.

use std::{io::Write, net::Shutdown};

use crate::{
    daemon::{Daemon, Http, wait_for},
    ports::{connect, talk},
    realplexor::{LINES, OK, ask, blocks, head, listen, publish, request, sent},
    reload::reload,
    wire::{metric, send_some},
};

#[test]
fn a_stop_ends_the_wait_with_the_last_blocks() {
    let daemon = Daemon::start(LINES);
    let mut client = listen(&daemon, "abc");
    let (mut asking, mut publisher) = (
        Http::connect(daemon.port("realplexor_wait")),
        connect(daemon.port("realplexor_in")),
    );
    asking.send("GET /?identifier=abc");
    publisher.write_all(b"POST / HTTP/1.1\r\n").unwrap();
    assert!(daemon.stop().success());
    assert_eq!(client.rest(), b"");
    assert_eq!(asking.rest(), b"");
}

#[test]
fn rules_of_channels_decide_who_reads_and_publishes() {
    let rule = "[[channel]]\nprefix = \"secret_\"\nread = \"closed\"\npublish = \"closed\"\n";
    let daemon = Daemon::start(&format!("{LINES}{rule}"));
    let mut client = ask(
        &daemon,
        "GET /?identifier=secret_a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_eq!(client.answer().status, 403);
    let mut client = listen(&daemon, "0:secret_a,0:open");
    let reply = publish(&daemon, "secret_a,open", "1");
    assert!(reply.starts_with("HTTP/1.0 403 "), "{reply}");
    daemon.publish("secret_a", "1");
    sent(&daemon, "open", "2");
    assert_eq!(blocks(&mut client)[0].1, 2);
    // A reload ends the wait of a client that may not read any more.
    let mut client = listen(&daemon, "open");
    reload(
        &daemon,
        &format!("{LINES}[[channel]]\nprefix = \"open\"\nread = \"closed\"\n"),
    );
    assert_eq!(client.rest(), b"");
}

#[test]
fn another_machine_reads_only_channels_with_a_rule() {
    let open = LINES.replace(
        "listen_wait = \"127.0.0.1:0\"",
        "listen_wait = \"0.0.0.0:0\"",
    );
    let daemon = Daemon::start(&format!(
        "{open}[[channel]]\nprefix = \"public_\"\nread = \"public\"\n"
    ));
    let port = daemon.port("realplexor_wait").port();
    let status = |id: &str| {
        let mut client = Http::connect(([127, 0, 0, 1], port).into());
        client.send(format!(
            "GET /?identifier=0:{id} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        client
            .until("\r\n\r\n")
            .split(' ')
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        (status("public_a"), status("a")),
        ("200".into(), "403".into())
    );
    let open = LINES.replace("listen_in = \"127.0.0.1:0\"", "listen_in = \"0.0.0.0:0\"");
    let refused = Daemon::try_start_in(crate::daemon::directory().into(), &open, &[]);
    let log = refused.map(|_| ()).unwrap_err();
    assert!(
        log.contains("compat.realplexor.listen_in: 0.0.0.0:0 is not a loopback address"),
        "{log}"
    );
}

#[test]
fn a_request_for_another_host_is_refused() {
    let daemon = Daemon::start(LINES);
    let mut client = ask(
        &daemon,
        "GET /?identifier=abc HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    );
    assert_eq!(client.answer().status, 421);
    let daemon = Daemon::start(&format!("[http]\nhosts = [\"example.org\"]\n{LINES}"));
    let mut client = ask(
        &daemon,
        "GET /?identifier=abc HTTP/1.1\r\nHost: example.org\r\n\r\n",
    );
    head(&mut client);
}

#[test]
fn requests_that_are_too_long_or_incomplete_are_told_so() {
    let daemon = Daemon::start(LINES);
    let long = format!("GET /?identifier={} HTTP/1.1\r\n", "a,".repeat(10_000));
    let mut client = ask(&daemon, &long);
    assert!(client.answer().body.contains("more than 16384 bytes"));
    let long = format!("\"{}\"", "x".repeat(210_000));
    sent(&daemon, "abc", &long);
    let longer = format!("\"{}\"", "x".repeat(300_000));
    let mut publisher = Http::connect(daemon.port("realplexor_in"));
    send_some(&mut publisher, request("abc", &longer).as_bytes());
    assert!(publisher.answer().body.contains("more than 262144 bytes"));
    let mut publisher = Http::connect(daemon.port("realplexor_in"));
    publisher.send(&request("abc", "\"hello\"")[..60]);
    publisher.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(publisher.rest(), b"");
    assert_eq!(daemon.history("abc").len(), 1);
}

#[test]
fn incomplete_requests_cannot_fill_the_memory() {
    let daemon = Daemon::start(&format!("[http]\nmax_memory = \"1MiB\"\n{LINES}"));
    let long = request("abc", &format!("\"{}\"", "x".repeat(250_000)));
    let publishers: Vec<Http> = (0..10)
        .map(|_| {
            let mut publisher = Http::connect(daemon.port("realplexor_in"));
            send_some(&mut publisher, &long.as_bytes()[..200_000]);
            publisher
        })
        .collect();
    wait_for("a refusal", || {
        (metric(&daemon, "comet_http_shed_total") > 0).then_some(())
    });
    drop(publishers);
    wait_for("room", || {
        (publish(&daemon, "abc", "1") == OK).then_some(())
    });
}

#[test]
fn a_web_page_cannot_publish() {
    let daemon = Daemon::start(LINES);
    let request =
        request("abc", "1").replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n");
    let reply = talk(daemon.port("realplexor_in"), request);
    assert!(reply.contains("web pages may not publish here"), "{reply}");
    assert_eq!(daemon.history("abc").len(), 0);
}

#[test]
fn the_loader_page_and_the_script_can_be_kept_by_browsers() {
    let daemon = Daemon::start(LINES);
    let get = |id: &str| {
        let path = format!("/?identifier={id}&HOST=example.org&version=1.32");
        ask(
            &daemon,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        )
        .answer()
    };
    let loader = get("IFRAME");
    assert_eq!(loader.header("origin-agent-cluster"), Some("?0"));
    assert_eq!(
        loader.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(
        loader.header("cache-control"),
        Some("public, max-age=86400")
    );
    assert!(loader.body.contains("window.Dklab_Realplexor_Loader = {"));
    let own = "GET /?identifier=IFRAME&HOST=localhost HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(
        ask(&daemon, own).answer().header("origin-agent-cluster"),
        None
    );
    let script = get("SCRIPT");
    assert_eq!(
        script.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(
        script.header("cache-control"),
        Some("public, max-age=86400")
    );
    assert!(script.body.contains("window.Dklab_Realplexor = "));
}

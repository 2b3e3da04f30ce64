//! The commands and logins of dklab_realplexor's publishers. The requests are the bytes that the PHP class sends.

use std::{fs, process::Command};

use crate::{
    daemon::{Daemon, directory, wait_for},
    ports::talk,
    realplexor::{LINES, listen, publish, request, sent},
};

/// The lines of the reply to a command, which the PHP class sends with this login and a line feed. All namespaces are part
/// of the prefixes.
fn command(daemon: &Daemon, login: &str, command: &str) -> String {
    let reply = publish(daemon, login, &format!("{command}\n"));
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{command}: {reply}"));
    let length = body.len();
    assert_eq!(
        head,
        format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}")
    );
    body.to_owned()
}

#[test]
fn commands_see_a_connected_client() {
    let daemon = Daemon::start(LINES);
    assert_eq!(command(&daemon, "", "watch 0"), "FAKE 10:FAKE\n");
    let _client = listen(&daemon, "onl1,ns_a");
    let _another = listen(&daemon, "onl1");
    assert_eq!(command(&daemon, "", "online"), "ns_a 1\nonl1 2\n");
    assert_eq!(command(&daemon, "", "online ns_ x"), "ns_a 1\n");
    assert_eq!(
        command(&daemon, "", "watch 1"),
        "online 10:ns_a\nonline 11:onl1\n"
    );
    assert_eq!(command(&daemon, "", "watch 10 onl"), "online 11:onl1\n");
    assert_eq!(command(&daemon, "", "watch 11"), "");
    assert_eq!(command(&daemon, "", "watch 0"), "FAKE 12:FAKE\n");
    assert!(command(&daemon, "", "stats").starts_with("[wait]\nids 2\nconnections 3\n"));
    // Without HTTP.
    let lines = daemon.port("realplexor_in");
    assert!(talk(lines, "ONLINE onl").ends_with("\r\n\r\nonl1 2\n"));
    assert!(talk(lines, "A: b\n\nOnline\n\n").ends_with("\r\n\r\nns_a 1\nonl1 2\n"));
    assert_eq!(talk(lines, "\r\nONLINE onl"), "");
}

#[test]
fn an_id_is_online_for_the_grace_time_after_its_last_client() {
    let daemon = Daemon::start(&format!("{LINES}offline = \"2s\"\n"));
    drop(listen(&daemon, "onl1"));
    wait_for("the end of the client", || {
        (command(&daemon, "", "online") == "onl1 0\n").then_some(())
    });
    assert_eq!(command(&daemon, "", "watch 1"), "online 10:onl1\n");
    wait_for("the grace time", || {
        command(&daemon, "", "online").is_empty().then_some(())
    });
    assert_eq!(command(&daemon, "", "watch 1"), "offline 11:onl1\n");
    assert_eq!(command(&daemon, "", "watch 11"), "");
    // A client that gets a block at once was online, too.
    sent(&daemon, "onl2", "1");
    listen(&daemon, "0:onl2").rest();
    assert_eq!(command(&daemon, "", "watch 11"), "online 12:onl2\n");
}

/// A daemon with the logins `me` and `you`, whose password is `secret`.
fn with_logins(lines: &str) -> Result<Daemon, String> {
    let root = directory();
    let file = root.path().join("logins");
    fs::write(&file, lines).unwrap();
    let config = format!("{LINES}logins = {file:?}\n");
    Daemon::try_start_in(root.into(), &config, &[])
}

fn hash(scheme: &str) -> String {
    let output = Command::new("openssl")
        .args(["passwd", scheme, "secret"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn a_login_publishes_to_its_own_ids() {
    let daemon = with_logins(&format!("me:{}you:{}", hash("-6"), hash("-5"))).unwrap();
    let mut client = listen(&daemon, "me_a,you_a,a");
    let denied = |identifier: &str, reason: &str| {
        let reply = publish(&daemon, identifier, "1");
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.0 403 Access Deined\r\nContent-Type: text/plain\r\n"),
            "{head}"
        );
        assert_eq!(body, reason);
    };
    denied("him:secret@him_a", "unknown login: him\n");
    denied("me:Secret@me_a", "invalid password for login: me\n");
    denied("me_a", "access denied for guest user\n");
    sent(&daemon, "me:secret@you_a,a,*me_a", "1");
    sent(&daemon, "me:secret@a,me_a", "2");
    denied("me:secre@me_a", "invalid password for login: me\n");
    assert_eq!(crate::realplexor::blocks(&mut client)[0].1, 2);
    sent(&daemon, "you:secret@you_a", "3");
    let _client = listen(&daemon, "me_b,you_b");
    assert_eq!(command(&daemon, "me:secret@", "online"), "");
    assert_eq!(
        command(&daemon, "me:secret@", "online me_b you_ me"),
        "me_b 1\n"
    );
    let events = command(&daemon, "me:secret@", "watch 1 me_");
    assert!(
        events.lines().all(|line| line.contains(":me_")) && events.lines().count() == 2,
        "{events}"
    );
    assert_eq!(
        publish(&daemon, "me:secret@", "stats\n"),
        "",
        "for guests alone"
    );
}

#[test]
fn a_login_replaces_the_rules_of_channels_and_guests_do_not() {
    let root = directory();
    let file = root.path().join("logins");
    fs::write(&file, format!(":\nme:{}", hash("-6"))).unwrap();
    let rule = "[[channel]]\nprefix = \"me_\"\npublish = \"closed\"\n";
    let daemon = Daemon::start_in(
        root.into(),
        &format!("{LINES}logins = {file:?}\n{rule}"),
        &[],
    );
    sent(&daemon, "me:secret@me_a", "1");
    let reply = publish(&daemon, "me_a", "1");
    assert!(reply.starts_with("HTTP/1.0 403 "), "{reply}");
    sent(&daemon, "a", "1");
}

#[test]
fn many_publishers_log_in_at_once() {
    let daemon = with_logins(&format!("me:{}", hash("-6"))).unwrap();
    let address = daemon.port("realplexor_in");
    let publishers = (0..20).map(|number| {
        std::thread::spawn(move || talk(address, request("me:secret@me_a", &number.to_string())))
    });
    for publisher in publishers.collect::<Vec<_>>() {
        assert!(publisher.join().unwrap().starts_with("HTTP/1.0 200 OK\r\n"));
    }
    assert_eq!(daemon.history("me_a").len(), 20);
}

#[test]
fn a_file_that_cannot_be_used_stops_the_start() {
    let refused = |lines: &str| with_logins(lines).map(|_| ()).unwrap_err();
    let log = refused(&format!("# logins\nme:{}", hash("-1")));
    assert!(
        log.contains("logins, line 2: the hash must begin with $6$ or $5$"),
        "{log}"
    );
    assert!(log.contains("openssl passwd -6"), "{log}");
    let root = directory();
    let file = root.path().join("check.toml");
    fs::write(&file, format!("{LINES}logins = \"/nowhere/logins\"\n")).unwrap();
    let check = crate::cli::comet(&["check", "--config", file.to_str().unwrap()]);
    let (exit, _, text) = crate::cli::run(check);
    assert_eq!(exit, Some(1));
    assert!(
        text.contains("compat.realplexor.logins: cannot read"),
        "{text}"
    );
    let missing = format!("{LINES}logins = \"/nowhere/logins\"\n");
    let log = Daemon::try_start_in(directory().into(), &missing, &[])
        .map(|_| ())
        .unwrap_err();
    assert!(
        log.contains("compat.realplexor.logins: cannot read /nowhere/logins"),
        "{log}"
    );
}

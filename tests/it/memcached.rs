//! memcached's text protocol, spoken by the clients that PHP's users have, and by `nc`.

use std::process::Command;

use crate::{
    daemon::{Daemon, feed},
    ports::talk,
    reload::reload,
    wire::{data, get, parked},
};

const PORT: &str = "[compat.memcached]\nlisten = \"127.0.0.1:0\"\n";

/// Runs a PHP script, in which `PORT` is the port. Returns what the script prints.
fn php(daemon: &Daemon, script: &str) -> String {
    let port = daemon.port("memcached").port().to_string();
    let script = script.replace("PORT", &port);
    let output = feed(
        Command::new("php")
            .args(["-d", "display_errors=1", "-r"])
            .arg(script),
        b"",
    );
    String::from_utf8(output.stdout).unwrap()
}

fn ask(daemon: &Daemon, commands: &str) -> String {
    talk(daemon.port("memcached"), commands)
}

#[test]
fn phps_memcached_publishes_to_a_page() {
    let daemon = Daemon::start(PORT);
    let mut page = parked(&daemon, get("/ch/news", ""));
    let printed = php(
        &daemon,
        "$m = new Memcached(); $m->addServer('127.0.0.1', PORT);
        var_dump($m->get('news'));
        echo json_encode($m->set('news', 'hi')), $m->getResultMessage(), \"\\n\";
        $first = $m->get('news'); $m->touch('news', 0); $second = $m->get('news');
        $third = $m->increment('news');
        echo json_encode([is_numeric($first), $first <= time(), $first < $second, $second < $third]), \"\\n\";
        echo json_encode($third == $m->get('news')), \"\\n\";
        $m->get('news', null, Memcached::GET_EXTENDED)['cas'] > 1e15 || print('no cas');
        echo json_encode($m->getMulti(['news', 'other']) == ['news' => $m->get('news')]), \"\\n\";
        echo json_encode(array_values($m->getStats())[0]['cmd_set']), json_encode(array_values($m->getVersion())), \"\\n\";
        echo json_encode($m->setMulti(['a' => '1', 'b' => '2'])), \"\\n\";",
    );
    let expected =
        "bool(false)\ntrueSUCCESS\n[true,true,true,true]\ntrue\ntrue\n3[\"1.6.0\"]\ntrue\n";
    assert_eq!(printed, expected);
    assert_eq!(data(&page.answer()), ["hi"]);
    assert_eq!(daemon.history("b")[0].1, "2");
}

#[test]
fn phps_memcache_publishes_and_asks() {
    let daemon = Daemon::start(PORT);
    let printed = php(
        &daemon,
        "$m = new Memcache(); $m->connect('127.0.0.1', PORT);
        echo json_encode([$m->get('news'), $m->set('news', 'hi'), $m->get('news') > 1e9, $m->increment('news') > 1e9]), \"\\n\";
        echo $m->getVersion(), \"\\n\";
        echo json_encode($m->set('news', str_repeat('x', 30000), MEMCACHE_COMPRESSED));",
    );
    let version = concat!("1.6.0-comet-", env!("CARGO_PKG_VERSION"));
    assert!(
        printed.starts_with(&format!("[false,true,true,true]\n{version}\n")),
        "{printed}"
    );
    assert!(printed.ends_with("false"), "{printed}");
    assert_eq!(daemon.history("news").len(), 2);
}

/// NovComet's `setCallbackCheck` gets a channel and returns a time, which NovComet compares with the time that the page sent.
#[test]
fn the_check_of_the_old_article_sees_every_publish() {
    let daemon = Daemon::start(PORT);
    let printed = php(
        &daemon,
        "$memcache = new Memcached(); $memcache->addServer('127.0.0.1', PORT);
        $check = function($id) use ($memcache) { return $memcache->get($id); };
        $seen = time() - 1;
        for ($i = 0; $i < 5; $i++) {
            touch('DIR/user:12.comet');
            for ($try = 0; $try < 1000 && !($check('user:12') > $seen); $try++) usleep(2000);
            echo json_encode($check('user:12') > $seen); $seen = (int) $check('user:12');
            echo json_encode($check('user:12') > $seen);
        }"
        .replace("DIR", daemon.dir().to_str().unwrap())
        .as_str(),
    );
    assert_eq!(printed, "truefalse".repeat(5));
}

#[test]
fn a_shell_publishes_with_nc() {
    let daemon = Daemon::start(PORT);
    let port = daemon.port("memcached").port().to_string();
    let nc = |commands: &[u8]| {
        let output = feed(
            Command::new("nc.openbsd").args(["-N", "127.0.0.1", &port]),
            commands,
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(nc(b"set news 0 0 2\r\nhi\r\nquit\r\n"), "STORED\r\n");
    assert_eq!(nc(b"touch news 0\n"), "TOUCHED\r\n");
    let bodies: Vec<String> = daemon
        .history("news")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert_eq!(bodies, ["hi", ""]);
}

#[test]
fn each_command_gets_its_reply_in_order() {
    let daemon = Daemon::start(PORT);
    let replies = ask(
        &daemon,
        "set a 0 0 1\r\nx\r\nadd a 0 0 1\r\nx\r\nset a 0 0 1 noreply\r\ny\r\nno\r\nverbosity 1\r\ndelete a\r\n\
         set a 0 0 1\r\nxyz\r\ntouch a 0\r\nset a 0 0 x\r\nget\r\nset a 0 0 2000000\r\n",
    );
    let lines: Vec<&str> = replies
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let expected = [
        "STORED",
        "SERVER_ERROR",
        "ERROR",
        "OK",
        "SERVER_ERROR",
        "CLIENT_ERROR",
        "ERROR", // the rest of the value
        "TOUCHED",
        "CLIENT_ERROR",
        "ERROR",
        "SERVER_ERROR",
    ];
    assert_eq!(lines, expected, "{replies}");
    assert_eq!(daemon.history("a").len(), 3);
}

#[test]
fn many_publishes_in_one_write_are_all_answered_and_kept() {
    let daemon = Daemon::start(&format!("[store]\ndurability = \"disk\"\n{PORT}"));
    let replies = ask(&daemon, &"set a 0 0 3\r\nabc\r\n".repeat(90));
    assert_eq!(replies, "STORED\r\n".repeat(90));
    assert_eq!(daemon.history("a").len(), 90);
}

#[test]
fn a_large_value_arrives_and_a_larger_one_is_refused() {
    let daemon = Daemon::start(PORT);
    let set = |size: usize| format!("set a 0 0 {size}\r\n{}\r\n", "x".repeat(size));
    let replies = ask(
        &daemon,
        &format!("{}{}verbosity 1\r\n", set(1 << 20), set((1 << 20) + 1)),
    );
    let lines: Vec<&str> = replies.lines().collect();
    assert!(
        lines[1].starts_with("SERVER_ERROR object too large"),
        "{replies}"
    );
    assert_eq!((lines[0], lines[2]), ("STORED", "OK"));
    assert_eq!(daemon.history("a")[0].1.len(), 1 << 20);
}

#[test]
fn keys_become_channels_by_the_common_mapping() {
    let daemon = Daemon::start(PORT);
    let long = "/".repeat(100);
    ask(
        &daemon,
        &format!("set a/b,c 0 0 1\r\nx\r\nset {long} 0 0 1\r\ny\r\n"),
    );
    assert_eq!(daemon.history("a=2Fb=2Cc").len(), 1);
    assert!(ask(&daemon, &format!("get {long}\r\n")).starts_with("VALUE /////"));
}

#[test]
fn the_binary_protocol_gets_an_error() {
    let daemon = Daemon::start(PORT);
    let printed = php(
        &daemon,
        "$m = new Memcached(); $m->setOption(Memcached::OPT_BINARY_PROTOCOL, true); $m->addServer('127.0.0.1', PORT);
        echo json_encode($m->set('news', 'hi')), $m->getResultCode() == Memcached::RES_SUCCESS ? 'success' : 'error';",
    );
    assert_eq!(printed, "falseerror");
    let noop = [&[0x80, 10][..], &[0; 22]].concat();
    let answer = talk(daemon.port("memcached"), noop);
    assert!(
        answer.contains("the binary protocol is not supported"),
        "{answer:?}"
    );
}

#[test]
fn the_key_comes_first_and_is_never_published() {
    let daemon = Daemon::start(&format!(
        "{PORT}key = \"s e c\"\n[[channel]]\nprefix = \"a\"\npublish = \"closed\"\n"
    ));
    let auth = "set any 0 0 11\r\nuser s e c!\r\nset any 0 0 10\r\nuser s e c\r\n";
    let replies = ask(
        &daemon,
        &format!("get a\r\n{auth}set a 0 0 1\r\nx\r\nset any 0 0 10\r\nuser s e c\r\n"),
    );
    let lines: Vec<&str> = replies.lines().collect();
    assert!(
        lines[0].starts_with("CLIENT_ERROR unauthenticated"),
        "{replies}"
    );
    assert_eq!(
        lines[1..],
        [
            "CLIENT_ERROR authentication failure",
            "STORED",
            "STORED",
            "STORED"
        ]
    );
    assert_eq!(
        (daemon.history("a").len(), daemon.history("any").len()),
        (1, 0)
    );
}

#[test]
fn rules_hold_without_a_key_and_change_by_a_reload() {
    let rules = "[[channel]]\nprefix = \"a\"\nread = \"closed\"\npublish = \"closed\"\n";
    let daemon = Daemon::start(&format!("{PORT}{rules}"));
    let replies = ask(&daemon, "set a 0 0 1\r\nx\r\nget a\r\nset b 0 0 1\r\nx\r\n");
    let lines: Vec<&str> = replies.lines().collect();
    assert!(
        lines[0].starts_with("SERVER_ERROR a may not be published to without a key"),
        "{replies}"
    );
    assert!(
        lines[1].starts_with("SERVER_ERROR a may not be read without a key"),
        "{replies}"
    );
    assert_eq!(lines[2], "STORED");
    reload(&daemon, PORT);
    crate::daemon::wait_for("the new rules", || {
        (ask(&daemon, "set a 0 0 1\r\nx\r\n") == "STORED\r\n").then_some(())
    });
}

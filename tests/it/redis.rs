//! Redis' protocol, spoken by the clients that people have: PHP's extension, Predis, redis-cli and redis-py.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::{
    daemon::{Daemon, feed, wait_for},
    ports::{connect, talk},
    reload::reload,
    wire::{data, get, metric, parked},
};

const PORT: &str = "[compat.redis]\nlisten = \"127.0.0.1:0\"\n";

/// The script of Laravel's broadcaster.
const LARAVEL: &str = "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend";

fn port(daemon: &Daemon) -> String {
    daemon.port("redis").port().to_string()
}

/// Runs a program, and returns what the program prints. `PORT` in its arguments is the port.
fn run(daemon: &Daemon, program: &str, arguments: &[&str]) -> String {
    let arguments = arguments
        .iter()
        .map(|text| text.replace("PORT", &port(daemon)));
    let output = feed(Command::new(program).args(arguments), b"");
    String::from_utf8(output.stdout).unwrap()
}

fn php(daemon: &Daemon, script: &str) -> String {
    run(daemon, "php", &["-d", "display_errors=1", "-r", script])
}

fn ask(daemon: &Daemon, commands: &str) -> String {
    talk(daemon.port("redis"), commands)
}

/// One command as clients send it.
fn command(words: &[&str]) -> String {
    let bulks = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), bulks.collect::<String>())
}

/// A client that prints lines until it is dropped.
struct Client {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Client {
    fn start(daemon: &Daemon, program: &str, arguments: &[&str]) -> Self {
        let arguments = arguments
            .iter()
            .map(|text| text.replace("PORT", &port(daemon)));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn phps_redis_publishes_to_a_page() {
    let daemon = Daemon::start(PORT);
    let mut page = parked(&daemon, get("/ch/news", ""));
    let script = format!(
        "$r = new Redis(); $r->connect('127.0.0.1', PORT);
        echo json_encode([$r->ping(), $r->select(2), $r->publish('news', 'hi'), $r->publish('nobody', 'x')]), \"\\n\";
        echo json_encode($r->eval(\"{LARAVEL}\", ['to both', 'a', 'b'], 0)), json_encode($r->getLastError()), \"\\n\";
        echo json_encode($r->pipeline()->publish('p', '1')->publish('p', '2')->exec()), \"\\n\";
        echo json_encode($r->multi()->publish('p', '3')->publish('p', '4')->exec()), \"\\n\";
        $sha = $r->script('load', \"{LARAVEL}\");
        $r->evalSha($sha, ['by sha', 'a'], 0);
        echo json_encode($r->eval('return 1')), $r->getLastError(), \"\\n\";
        try {{ $r->set('key', 'value'); }} catch (RedisException $e) {{ }}
        echo $r->getLastError(), \"\\n\"; echo $r->info()['redis_mode'];",
    );
    let printed = php(&daemon, &script);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines[..4],
        ["[true,true,1,0]", "falsenull", "[0,0]", "[0,0]"],
        "{printed}"
    );
    assert!(
        lines[4].starts_with("falseERR this is Comet, which runs no scripts"),
        "{printed}"
    );
    assert!(
        lines[5].starts_with("ERR unknown command 'SET'"),
        "{printed}"
    );
    assert_eq!(lines[6], "standalone");
    assert_eq!(data(&page.answer()), ["hi"]);
    let bodies = |channel| -> Vec<String> {
        daemon
            .history(channel)
            .into_iter()
            .map(|(_, data)| data)
            .collect()
    };
    assert_eq!(bodies("a"), ["to both", "by sha"]);
    assert_eq!(bodies("b"), ["to both"]);
    assert_eq!(bodies("p"), ["1", "2", "3", "4"]);
    assert_eq!(
        daemon.history("a")[0].0,
        daemon.history("b")[0].0,
        "one message"
    );
}

#[test]
fn phps_redis_subscribes() {
    let daemon = Daemon::start(PORT);
    let script = "$r = new Redis(); $r->connect('127.0.0.1', PORT); $r->setOption(Redis::OPT_READ_TIMEOUT, -1);
        echo \"ready\\n\";
        $r->subscribe(['news', 'a/b'], function ($r, $channel, $data) {
            echo \"$channel $data\\n\"; if ($data == 'end') exit; });";
    let mut client = Client::start(&daemon, "php", &["-r", script]);
    assert_eq!(client.line(), "ready");
    wait_for("the subscription", || {
        (metric(&daemon, "comet_subscribers") == 1).then_some(())
    });
    wait_for("both channels", || {
        (ask(&daemon, "PUBSUB NUMSUB a/b\r\n").ends_with(":1\r\n")).then_some(())
    });
    daemon.publish("news", "one");
    daemon.publish("a=2Fb", "two");
    daemon.publish("news", "end");
    let lines = [client.line(), client.line(), client.line()];
    assert_eq!(lines, ["news one", "a/b two", "news end"]);
}

#[test]
fn predis_publishes_and_subscribes() {
    let daemon = Daemon::start(PORT);
    let script = format!(
        "require 'Predis/autoload.php'; $c = ['host' => '127.0.0.1', 'port' => PORT, 'read_write_timeout' => 0];
        $p = new Predis\\Client($c); $s = new Predis\\Client($c); $loop = $s->pubSubLoop();
        $loop->subscribe('news'); $loop->current();
        echo $p->publish('news', 'hi'), $loop->current()->payload, \"\\n\";
        $p->eval(\"{LARAVEL}\", 0, 'by script', 'news'); echo $loop->current()->payload, \"\\n\";
        echo json_encode($p->pipeline(fn($pipe) => $pipe->publish('a', '1') && $pipe->publish('a', '2'))), \"\\n\";
        echo json_encode($p->transaction(fn($tx) => $tx->publish('a', '3'))), \"\\n\";
        $loop->unsubscribe(); echo $loop->current()->kind;",
    );
    let printed = php(&daemon, &script);
    assert_eq!(printed, "1hi\nby script\n[0,0]\n[0]\nunsubscribe");
}

#[test]
fn redis_cli_publishes_and_subscribes() {
    let daemon = Daemon::start(PORT);
    for resp in ["-2", "-3"] {
        let mut client = Client::start(
            &daemon,
            "redis-cli",
            &[resp, "-p", "PORT", "subscribe", "news"],
        );
        while client.line() != "1" {}
        let printed = run(
            &daemon,
            "redis-cli",
            &["-p", "PORT", "publish", "news", "hello world"],
        );
        assert_eq!(printed, "1\n");
        assert_eq!(
            [client.line(), client.line(), client.line()],
            ["message", "news", "hello world"]
        );
        drop(client);
        wait_for("its end", || {
            let left = ask(&daemon, "PUBSUB NUMSUB news\r\n").ends_with(":0\r\n");
            left.then_some(())
        });
    }
    let printed = run(&daemon, "redis-cli", &["-p", "PORT", "psubscribe", "n*"]);
    assert!(printed.contains("patterns are not supported"), "{printed}");
}

#[test]
fn redis_py_publishes_and_subscribes() {
    let daemon = Daemon::start(PORT);
    let script = format!(
        "import redis\nr = redis.Redis(port=PORT, client_name='test', db=3)\np = r.pubsub()\np.subscribe('news', 'other')\n\
         print(p.get_message(timeout=20)['type'], p.get_message(timeout=20)['data'])\n\
         print(r.publish('news', 'hi'), p.get_message(timeout=20)['data'])\n\
         print(r.pipeline().publish('news', '1').publish('other', '2').execute())\n\
         print(p.get_message(timeout=20)['data'], p.get_message(timeout=20)['data'])\n\
         s = r.register_script({LARAVEL:?})\nprint(s(args=['by sha', 'other']), p.get_message(timeout=20)['data'])\n\
         p.unsubscribe()\nprint(p.get_message(timeout=20)['type'])\nprint(r.client_getname(), r.pubsub_numsub('news')[0][0])\n\
         p.close()\n"
    );
    let printed = run(&daemon, "/usr/bin/python3", &["-c", &script]);
    let expected =
        "subscribe 2\n1 b'hi'\n[1, 1]\nb'1' b'2'\nNone b'by sha'\nunsubscribe\ntest b'news'\n";
    assert_eq!(printed, expected);
}

/// Laravel's broadcaster as Debian has it, with both of its clients.
#[test]
fn laravels_broadcaster_publishes() {
    let daemon = Daemon::start(&format!("{PORT}prefix = \"laravel_database_\"\n"));
    let mut page = parked(&daemon, get("/ch/orders,private-user.1", ""));
    let printed = php(
        &daemon,
        "require 'Illuminate/Broadcasting/autoload.php'; require 'Illuminate/Redis/autoload.php';
        require_once 'Predis/autoload.php';
        foreach (['phpredis', 'predis'] as $client) {
            $server = ['host' => '127.0.0.1', 'port' => PORT, 'database' => 0];
            $config = ['options' => ['prefix' => 'laravel_database_'], 'comet' => $server];
            $redis = new Illuminate\\Redis\\RedisManager(null, $client, $config);
            $broadcaster = new Illuminate\\Broadcasting\\Broadcasters\\RedisBroadcaster($redis, 'comet', 'laravel_database_');
            $private = new Illuminate\\Broadcasting\\PrivateChannel('user.1');
            $broadcaster->broadcast(['orders', $private], 'Shipped', ['by' => $client]);
        }",
    );
    assert_eq!(printed, "");
    let event = |client: &str| {
        format!("{{\"event\":\"Shipped\",\"data\":{{\"by\":\"{client}\"}},\"socket\":null}}")
    };
    assert_eq!(data(&page.answer()), [event("phpredis")], "once");
    for channel in ["orders", "private-user.1"] {
        let bodies: Vec<String> = daemon
            .history(channel)
            .into_iter()
            .map(|(_, data)| data)
            .collect();
        assert_eq!(bodies, [event("phpredis"), event("predis")]);
    }
}

#[test]
fn the_prefix_of_laravel_is_removed() {
    let daemon = Daemon::start(&format!("{PORT}prefix = \"laravel_database_\"\n"));
    let printed = php(
        &daemon,
        "$r = new Redis(); $r->connect('127.0.0.1', PORT); $r->setOption(Redis::OPT_PREFIX, 'laravel_database_');
        $r->publish('private-orders', 'x'); $r->publish('plain', 'y');",
    );
    assert_eq!(printed, "");
    assert_eq!(daemon.history("private-orders")[0].1, "x");
    ask(&daemon, "PUBLISH other z\r\n");
    assert_eq!(daemon.history("other")[0].1, "z");
    // A subscriber gets the name that it has used.
    let mut client = connect(daemon.port("redis"));
    client
        .write_all(b"SUBSCRIBE laravel_database_news news\r\n")
        .unwrap();
    wait_for("the subscription", || {
        ask(&daemon, "PUBSUB NUMSUB news\r\n")
            .ends_with(":1\r\n")
            .then_some(())
    });
    daemon.publish("news", "hi");
    client.shutdown(Shutdown::Write).unwrap();
    let mut replies = String::new();
    client.read_to_string(&mut replies).unwrap();
    let names: Vec<&str> = replies
        .lines()
        .filter(|line| line.ends_with("news"))
        .collect();
    assert_eq!(names.len(), 4, "{replies}");
    assert!(replies.ends_with("$4\r\nnews\r\n$2\r\nhi\r\n"), "{replies}");
}

#[test]
fn a_key_is_asked_for() {
    let daemon = Daemon::start(&format!(
        "{PORT}key = \"secret\"\n[[channel]]\nprefix = \"a\"\nread = \"closed\"\npublish = \"closed\"\n"
    ));
    let printed = php(
        &daemon,
        "$r = new Redis(); $r->connect('127.0.0.1', PORT);
        try { $r->publish('a', 'x'); } catch (RedisException $e) { echo $e->getMessage(), \"\\n\"; }
        try { $r->auth('wrong'); } catch (RedisException $e) { echo $e->getMessage(), \"\\n\"; }
        echo json_encode([$r->auth('secret'), $r->publish('a', 'x'), $r->auth(['user', 'secret'])]);",
    );
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("NOAUTH"), "{printed}");
    assert!(lines[1].starts_with("WRONGPASS"), "{printed}");
    assert_eq!(lines[2], "[true,0,true]");
    let hello = ask(
        &daemon,
        "HELLO 3\r\nHELLO 3 AUTH u wrong\r\nHELLO 3 AUTH u secret SETNAME me\r\nCLIENT GETNAME\r\n",
    );
    assert!(hello.starts_with("-NOAUTH HELLO"), "{hello}");
    assert!(hello.contains("-WRONGPASS"), "{hello}");
    assert!(
        hello.ends_with("$2\r\nme\r\n") && hello.contains("%7\r\n"),
        "{hello}"
    );
    let reset = ask(&daemon, "AUTH secret\r\nRESET\r\nPING\r\n");
    assert_eq!(
        reset,
        "+OK\r\n+RESET\r\n-NOAUTH Authentication required.\r\n"
    );
    let open = Daemon::start(PORT);
    assert!(
        ask(&open, "AUTH secret\r\n")
            .starts_with("-ERR AUTH <password> called without any password")
    );
}

#[test]
fn rules_hold_and_a_subscription_ends_with_its_right() {
    let closed = "[[channel]]\nprefix = \"a\"\nread = \"closed\"\npublish = \"closed\"\n";
    let daemon = Daemon::start(PORT);
    let mut client = connect(daemon.port("redis"));
    client.write_all(b"SUBSCRIBE b a\r\n").unwrap();
    let mut replies = [0; 60];
    client.read_exact(&mut replies).unwrap();
    reload(&daemon, &format!("{PORT}{closed}"));
    let mut end = String::new();
    client.read_to_string(&mut end).unwrap();
    assert!(end.contains("-NOPERM a may not be read any more"), "{end}");
    let replies = ask(&daemon, "PUBLISH a x\r\nSUBSCRIBE b a\r\n");
    assert!(
        replies.starts_with("-NOPERM a may not be published to"),
        "{replies}"
    );
    assert!(
        replies.contains("-NOPERM a may not be read without a key"),
        "{replies}"
    );
}

#[test]
fn a_subscriber_that_missed_messages_is_told_and_disconnected() {
    let config = format!("[history]\nmessages = 10\nbytes = \"1MiB\"\n{PORT}");
    let daemon = Daemon::start(&config);
    let mut client = connect(daemon.port("redis"));
    client.write_all(b"SUBSCRIBE news\r\n").unwrap();
    wait_for("the subscription", || {
        ask(&daemon, "PUBSUB NUMSUB news\r\n")
            .ends_with(":1\r\n")
            .then_some(())
    });
    // More than the socket's buffers and the history can hold.
    let large = "x".repeat(200_000);
    for _ in 0..100 {
        daemon.publish("news", &large);
    }
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    let end = String::from_utf8_lossy(&all[all.len() - 200..]).into_owned();
    assert!(end.contains("-ERR messages were missed"), "{end}");
    assert!(all.len() < 100 * large.len());
}

#[test]
fn only_subscribing_is_possible_in_a_subscription_of_resp2() {
    let daemon = Daemon::start(PORT);
    let replies = ask(
        &daemon,
        "SUBSCRIBE a\r\nPUBLISH a x\r\nPING\r\nUNSUBSCRIBE\r\nPUBLISH a x\r\n",
    );
    assert!(
        replies.contains("-ERR Can't execute 'publish': only"),
        "{replies}"
    );
    assert!(
        replies.contains("*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        "{replies}"
    );
    // The last number may still count the subscriber that has left.
    let (_, published) = replies
        .split_once("$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n")
        .unwrap();
    assert!(published.starts_with(':'), "{replies}");
    let replies = ask(&daemon, "HELLO 3\r\nSUBSCRIBE a\r\nECHO x\r\n");
    assert!(
        replies.ends_with(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n$1\r\nx\r\n"),
        "{replies}"
    );
}

#[test]
fn transactions_are_run_or_discarded() {
    let daemon = Daemon::start(PORT);
    let replies = ask(&daemon, "MULTI\r\nPUBLISH a 1\r\nPING\r\nEXEC\r\nEXEC\r\n");
    assert_eq!(
        replies,
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:0\r\n+PONG\r\n-ERR EXEC without MULTI\r\n"
    );
    let replies = ask(
        &daemon,
        "MULTI\r\nPUBLISH a 2\r\nDISCARD\r\nMULTI\r\nPUBLISH a 3\r\nSUBSCRIBE a\r\nEXEC\r\n",
    );
    assert!(
        replies.ends_with("-EXECABORT Transaction discarded because of previous errors.\r\n"),
        "{replies}"
    );
    assert_eq!(daemon.history("a").len(), 1);
}

#[test]
fn many_publishes_in_one_write_are_all_answered_and_kept() {
    let daemon = Daemon::start(&format!("[store]\ndurability = \"disk\"\n{PORT}"));
    let replies = ask(&daemon, &command(&["PUBLISH", "a", "abc"]).repeat(90));
    assert_eq!(replies, ":0\r\n".repeat(90));
    assert_eq!(daemon.history("a").len(), 90);
}

#[test]
fn a_large_message_arrives_and_a_larger_one_is_refused() {
    let daemon = Daemon::start(PORT);
    let publish = |size: usize| command(&["PUBLISH", "a", &"x".repeat(size)]);
    assert_eq!(ask(&daemon, &publish(1 << 20)), ":0\r\n");
    assert_eq!(daemon.history("a")[0].1.len(), 1 << 20);
    let mut client = connect(daemon.port("redis"));
    client
        .write_all(&publish((1 << 20) + 1).as_bytes()[..60])
        .unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert!(
        reply.starts_with("-ERR Protocol error: invalid bulk length: a message has at most 1 MiB"),
        "{reply}"
    );
}

/// Browsers do not let pages send to port 6379, but this port may be any.
#[test]
fn a_web_page_cannot_publish_with_the_body_of_a_request() {
    let daemon = Daemon::start(&format!(
        "{PORT}[compat.memcached]\nlisten = \"127.0.0.1:0\"\n"
    ));
    for (port, body) in [
        ("redis", "PUBLISH a x\r\n"),
        ("memcached", "set a 0 0 1\r\nx\r\n"),
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20\r\n\r\n{body}");
        let reply = talk(daemon.port(port), request);
        assert!(reply.contains("not HTTP"), "{reply}");
    }
    assert_eq!(daemon.history("a").len(), 0);
}

#[test]
fn a_daemon_that_stops_writes_the_last_messages_and_ends_subscriptions() {
    let daemon = Daemon::start(PORT);
    let mut client = connect(daemon.port("redis"));
    client.write_all(b"SUBSCRIBE a\r\n").unwrap();
    let mut idle = connect(daemon.port("redis"));
    wait_for("the subscription", || {
        ask(&daemon, "PUBSUB NUMSUB a\r\n")
            .ends_with(":1\r\n")
            .then_some(())
    });
    daemon.publish("a", "last");
    assert!(daemon.stop().success());
    let (mut replies, mut nothing) = (String::new(), String::new());
    client.read_to_string(&mut replies).unwrap();
    idle.read_to_string(&mut nothing).unwrap();
    assert!(replies.ends_with("$4\r\nlast\r\n"), "{replies}");
    assert_eq!(nothing, "");
}

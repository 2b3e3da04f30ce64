//! The limit on memory for connections (`max_memory`), reached by real connections: what the daemon sheds, in which
//! order, and that publishers are never affected.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
};

use serde_json::json;

use crate::{
    daemon::{Daemon, Http, Lines, wait_for},
    wire::{data, get, metric, parked, post, refusal, send_some},
};

/// A figure of `status` over the socket, which needs no HTTP connection.
fn status(daemon: &Daemon, name: &str) -> u64 {
    let out = daemon.comet(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|error| panic!("{error}: {out:?}, daemon: {}", daemon.log()));
    let figure = &status["metrics"][name];
    figure
        .as_u64()
        .unwrap_or_else(|| panic!("no {name}: {status}"))
}

/// Polls. Returns a client whose poll waits, or the answer if the daemon refuses by 503 or 429.
fn try_poll(daemon: &Daemon, addr: SocketAddr) -> Result<Http, (u16, String, String)> {
    let before = status(daemon, "subscribers");
    let mut client = Http::connect(addr);
    send_some(&mut client, get("/ch/a", "").as_bytes());
    client.stream.set_nonblocking(true).unwrap();
    wait_for("a poll, or an answer", || {
        let nothing = |e: &std::io::Error| e.kind() == ErrorKind::WouldBlock;
        let came = !client.stream.peek(&mut [0; 1]).is_err_and(|e| nothing(&e));
        (came || status(daemon, "subscribers") > before).then_some(())
    });
    client.stream.set_nonblocking(false).unwrap();
    if status(daemon, "subscribers") > before {
        return Ok(client);
    }
    let answer = client.answer();
    assert!(answer.header("retry-after").is_some(), "{}", answer.head);
    Err(refusal(&answer))
}

#[test]
fn near_the_ceiling_new_connections_are_refused_and_publishes_go_on() {
    // 1 MiB has room for 460 connections of 2 KiB below nine tenths.
    let daemon = Daemon::start("[http]\nmax_memory = \"1MiB\"\n");
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let mut open: Vec<Http> = Vec::new();
    let refused = loop {
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, get("/ch/a", "").as_bytes());
        open.push(client);
        if open.len().is_multiple_of(50) {
            match try_poll(&daemon, daemon.addr()) {
                Ok(client) => open.push(client),
                Err(refused) => break refused,
            }
        }
        assert!(open.len() < 1000, "no ceiling");
    };
    assert_eq!((refused.0, &*refused.1), (503, "connections"));
    assert!(refused.2.contains("of the 1048576 bytes"), "{}", refused.2);
    let waiting = status(&daemon, "subscribers");
    assert!((400..=470).contains(&waiting), "{waiting}");
    assert!(daemon.log().contains("http.max_memory"), "{}", daemon.log());

    // Publishes are acknowledged, and all waiting clients get the message.
    for n in 0..100 {
        daemon.publish("other", &n.to_string());
    }
    assert_eq!(daemon.history("other").len(), 100);
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
    daemon.publish("a", "told");
    let told = open
        .iter_mut()
        .map(|client| u64::from(is_told(client, "told")));
    assert_eq!(told.sum::<u64>(), waiting - 1);

    // Memory that was freed is used again.
    drop(open);
    wait_for("room", || try_poll(&daemon, daemon.addr()).ok());
    assert!(status(&daemon, "http_refused") > 0);
}

/// Whether the client gets the text and no refusal.
fn is_told(client: &mut Http, text: &str) -> bool {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match client.stream.read(&mut chunk) {
            Ok(n @ 1..) => bytes.extend_from_slice(&chunk[..n]),
            _ => return false,
        }
        let got = String::from_utf8_lossy(&bytes);
        if got.contains(text) || got.contains("503 Service") {
            return got.contains(text);
        }
    }
}

/// With few connections, unread answers are what needs memory.
#[test]
fn at_the_ceiling_slow_clients_are_cut_and_come_back_with_their_cursors() {
    let daemon = Daemon::start(
        "[http]\nmax_memory = \"4MiB\"\n[history]\nmessages = 1000\nbytes = \"64MiB\"\n",
    );
    let text = "x".repeat(200_000);
    let first = daemon.publish("a", &text);
    for n in 0..40 {
        daemon.publish("a", &format!("{n} {text}"));
    }
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    // Each client requests large answers again and again and reads none. Bytes that the kernel does not accept stay in
    // the daemon.
    let request = get(&format!("/ch/a?since={first}"), "").repeat(100);
    let slow: Vec<Http> = (0..60)
        .map_while(|_| {
            let mut client = Http::connect(daemon.addr());
            send_some(&mut client, request.as_bytes());
            (status(&daemon, "http_shed") == 0).then_some(client)
        })
        .collect();
    wait_for("the first that is cut", || {
        (status(&daemon, "http_shed") > 0).then_some(())
    });
    assert!(slow.len() > 2);
    // Publishers and waiting clients are never shed.
    let id = daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
    assert_eq!(daemon.history("bystander"), [(id, "undisturbed".into())]);
    drop(slow);
    // A client that was closed lost no message.
    let back = wait_for("room", || {
        let mut client = Http::connect(daemon.addr());
        send_some(
            &mut client,
            get(&format!("/ch/a?since={first}"), "").as_bytes(),
        );
        let answer = client.answer();
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(data(&back)[0], format!("0 {text}"));
    assert_eq!(back.json()["gap"], false);
}

#[test]
fn bodies_that_would_pass_the_ceiling_are_refused() {
    let daemon = Daemon::start("[http]\npublish = true\nmax_memory = \"1MiB\"\n");
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let body = vec![b'x'; 1 << 20];
    let large = post("/ch/a", "", &body);
    let mut clients: Vec<Http> = (0..4).map(|_| Http::connect(daemon.addr())).collect();
    for client in &mut clients {
        client.send(get("/healthz", ""));
        assert_eq!(client.answer().status, 200); // it is in
    }
    // All bytes except the last of each body, so that all bodies are read at the same time.
    for client in &mut clients {
        send_some(client, &large[..large.len() - 1]);
    }
    let told = clients.iter_mut().map(|client| {
        let _ = std::io::Write::write_all(&mut client.stream, b"x");
        refusal(&client.answer())
    });
    for told in told {
        assert_eq!((told.0, &*told.1), (503, "memory"), "{}", told.2);
    }
    assert!(daemon.history("a").is_empty());
    // A small request needs no further memory.
    let mut client = Http::connect(daemon.addr());
    client.send(post("/ch/a", "", b"small"));
    assert_eq!(client.answer().status, 201);
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
    wait_for("all of it", || {
        (metric(&daemon, "comet_http_memory_bytes") < 100_000).then_some(())
    });
}

/// The daemon reaches its own limit before the limit of the address space, so it is never killed.
#[test]
fn the_ceiling_holds_before_the_memory_ends() {
    let daemon = Daemon::start(
        "workers = 1\n[http]\npublish = true\nmax_body = \"64MiB\"\nmax_memory = \"64MiB\"\n",
    );
    // The remaining address space is less than the 800 MiB that the clients would use. It has room for threads that have
    // not started yet: the allocator reserves up to 128 MiB for each.
    let size = daemon.memory("VmSize") + (512 << 20);
    let limit = Command::new("prlimit")
        .args(["--pid", &daemon.pid().to_string(), &format!("--as={size}")])
        .status();
    assert!(limit.unwrap().success());
    let mut clients: Vec<Http> = (0..40).map(|_| Http::connect(daemon.addr())).collect();
    let head = get("/", "").replace("GET / ", "POST /ch/a ");
    let head = head.replace(
        "\r\n\r\n",
        &format!("\r\nContent-Length: {}\r\n\r\n", 64 << 20),
    );
    for client in &mut clients {
        send_some(client, head.as_bytes());
    }
    // 20 MiB for each client: 800 MiB in all.
    let piece = vec![b'x'; 4 << 20];
    for _ in 0..5 {
        for client in &mut clients {
            let reset = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            let sent = std::io::Write::write_all(&mut client.stream, &piece);
            assert!(sent.is_ok() || reset.contains(&sent.unwrap_err().kind()));
        }
    }
    assert!(status(&daemon, "http_shed") > 0);
    assert!(daemon.memory("VmHWM") < 160 << 20);
    daemon.publish("a", "alive");
    drop(clients);
    wait_for("an answer", || {
        (daemon.get("/healthz").status == 200).then_some(())
    });
    assert_eq!(daemon.history("a").len(), 1);
}

/// An address of this machine that is not loopback. No packet is sent.
pub(crate) fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.254:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn an_address_has_its_share_and_others_go_on() {
    let Some(ip) = own_address() else {
        return eprintln!("this machine has no address but loopback: nothing to test");
    };
    let config = "[http]\nmax_per_address = 5\n[[channel]]\nprefix = \"\"\nread = \"public\"\n";
    let root = std::sync::Arc::new(crate::daemon::directory());
    let daemon = Daemon::start_in(root, config, &["--listen", "0.0.0.0:0"]);
    let (theirs, ours) = (
        SocketAddr::from((ip, daemon.addr().port())),
        SocketAddr::from(([127, 0, 0, 1], daemon.addr().port())),
    );
    let poll = |addr| try_poll(&daemon, addr).map_err(|refused| refused.2);
    let mut open: Vec<Http> = (0..5).map(|_| poll(theirs).unwrap()).collect();
    let message = "more than 5 connections of your address are open".to_owned();
    let refused = try_poll(&daemon, theirs).err();
    assert_eq!(refused, Some((429, "connections".into(), message)));
    // A loopback address may be a proxy's, so it has no limit.
    let local: Vec<Http> = (0..10).map(|_| poll(ours).unwrap()).collect();
    daemon.publish("a", "told");
    for client in open.iter_mut().chain(&mut { local }) {
        assert_eq!(data(&client.answer()), ["told"]);
    }
    drop(open.pop());
    wait_for("its place", || try_poll(&daemon, theirs).ok());
    assert!(status(&daemon, "http_refused_by_address") > 0);
}

/// The order of shedding, with publishers and connections at the same time.
#[test]
fn history_is_shed_first_and_connections_next_and_publishes_never() {
    let daemon = Daemon::start(
        "[history]\nmessages = 100000\nbytes = \"64MiB\"\ntotal = \"1MiB\"\n[http]\nmax_memory = \"1MiB\"\n",
    );
    let first = daemon.publish("loud", "first");
    let text = "x".repeat(10_000);
    for n in 0..300 {
        daemon.publish("loud", &format!("{n} {text}")); // 3 MB: each is acknowledged
    }
    assert!(metric(&daemon, "comet_history_bytes") <= 1 << 20);
    assert_eq!(metric(&daemon, "comet_http_refused_total"), 0); // so far nobody
    let late = daemon.get(&format!("/ch/loud?since={first}"));
    assert_eq!(late.json()["gap"], true); // who missed more is told

    let mut open: Vec<Http> = Vec::new();
    while status(&daemon, "http_refused") == 0 {
        let mut client = Http::connect(daemon.addr());
        send_some(&mut client, get("/ch/loud", "").as_bytes());
        open.push(client);
        assert!(open.len() < 1000, "no ceiling");
    }
    let waiting = wait_for("all that were let in", || {
        let waiting = status(&daemon, "subscribers");
        (waiting == status(&daemon, "http_connections")).then_some(waiting)
    });
    for n in 300..400 {
        daemon.publish("loud", &format!("{n} {text}"));
    }
    let told = open
        .iter_mut()
        .map(|client| u64::from(is_told(client, "300 x")));
    assert_eq!(told.sum::<u64>(), waiting);
    drop(open);
    wait_for("room", || try_poll(&daemon, daemon.addr()).ok());
}

/// A flood of channel names: each channel exists only while it has a subscriber.
#[test]
fn names_that_nobody_publishes_to_leave_nothing_behind() {
    let daemon = Daemon::start("");
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let mut client = Http::connect(daemon.addr());
    for n in 0..500 {
        let names: Vec<String> = (0..100).map(|m| format!("flood-{n}-{m}")).collect();
        client.send(get(&format!("/ch/{}?wait=0", names.join(",")), ""));
        assert_eq!(client.answer().status, 200);
    }
    wait_for("the names", || {
        (metric(&daemon, "comet_channels") <= 1).then_some(())
    });
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
}

/// Starts the daemon with this limit on its address space.
fn limited(space: usize, config: &str) -> Daemon {
    let limit = format!("--as={space}");
    let root = std::sync::Arc::new(crate::daemon::directory());
    let started = Daemon::try_start_by(&["prlimit", &limit], root, config, &[]);
    started.unwrap_or_else(|log| panic!("it did not start: {log}"))
}

#[test]
fn with_little_memory_history_goes_and_publishes_never_fail() {
    for space in [200 << 20, 64 << 20] {
        let daemon = limited(space, "");
        assert!(!daemon.log().contains("history.total"), "{}", daemon.log());
        let data = "x".repeat(1_000_000);
        for n in 0..260 {
            daemon.publish(&format!("c{n}"), &data);
        }
        assert_eq!(daemon.history("c259").len(), 1);
        assert_eq!(daemon.history("c0").len(), 0);
        assert_eq!(daemon.get("/healthz").status, 200);
    }
}

#[test]
fn with_little_memory_many_large_publishes_at_once_never_fail() {
    for space in [200 << 20, 64 << 20] {
        let daemon = limited(space, "");
        let path = daemon.socket_path();
        let data = "x".repeat(1_000_000);
        let publish = &|number: usize| {
            let mut client = Lines::connect(&path);
            let line = json!({"op": "publish", "channel": format!("c{number}"), "data": data});
            assert_eq!(client.ask(&line.to_string())["ok"], true);
        };
        thread::scope(|scope| {
            (0..64).for_each(|number| _ = scope.spawn(move || publish(number)));
        });
        assert_eq!(daemon.get("/healthz").status, 200);
    }
}

#[test]
fn limits_that_are_more_than_the_memory_are_told() {
    let daemon = limited(256 << 20, "[history]\ntotal = \"256MiB\"\n");
    let log = wait_for("the line", || {
        Some(daemon.log()).filter(|log| log.contains(" under [http]\n"))
    });
    let proposed = log.split("values that fit are ").nth(1).expect(&log);
    let proposed = proposed.lines().next().unwrap();
    // The proposed limit is enough.
    let (total, max_memory) = proposed.split_once(" under [history] and ").unwrap();
    let max_memory = max_memory.strip_suffix(" under [http]").unwrap();
    let config = format!("[history]\n{total}\n[http]\n{max_memory}\n");
    let root = daemon.root();
    let path = root.path().join("comet.toml");
    let check = |config: &str| {
        std::fs::write(&path, config).unwrap();
        let mut check = Command::new("prlimit");
        let space = format!("--as={}", 256 << 20);
        check.args([&space, env!("CARGO_BIN_EXE_comet"), "check", "--config"]);
        let output = check.arg(&path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(check(&config), "");
    assert!(check("[history]\ntotal = \"256MiB\"\n").contains("history.total"));

    let daemon = limited(40 << 20, "");
    wait_for("the line", || {
        daemon.log().contains("raise its limit").then_some(())
    });
}

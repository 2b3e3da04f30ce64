//! The obligations of a status code (RFC 9110, section 15, and docs/protocol.md), for each status that the daemon
//! sends.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ceiling::own_address,
    daemon::{Answer, Daemon, Http, directory, wait_for},
    store::may_mount,
    wire::{get, half_close, parked, post, send_some},
};

/// All statuses of the table under "Errors" in docs/protocol.md.
fn documented() -> BTreeSet<u16> {
    let text = include_str!("../../docs/protocol.md");
    let (_, errors) = text.split_once("\n### Errors\n").unwrap();
    let table = errors.split_once("\n### ").unwrap().0;
    let cells = table.lines().filter_map(|line| line.strip_prefix("| "));
    let statuses = cells.filter_map(|line| line.split(' ').next()?.parse().ok());
    statuses.collect()
}

/// The headers that a status must or should have. `_` stands for any value.
fn obligations(status: u16) -> &'static [(&'static str, &'static str)] {
    match status {
        401 => &[("www-authenticate", "Bearer realm=\"comet\"")],
        405 => &[("allow", "GET, HEAD, ")],
        408 | 411 | 413 | 431 => &[("connection", "close")],
        426 => &[("upgrade", "websocket"), ("connection", "pgrade")],
        429 | 503 => &[("retry-after", "")],
        _ => &[],
    }
}

#[track_caller]
fn keeps_its_word(answer: &Answer) -> u16 {
    for (name, value) in obligations(answer.status) {
        let given = answer.header(name);
        assert!(
            given.is_some_and(|given| given.contains(value)),
            "{name}: {}",
            answer.head
        );
    }
    if answer.status == 503 || answer.status == 429 {
        let seconds = answer.header("retry-after").unwrap().parse::<u32>();
        assert!(seconds.is_ok_and(|seconds| seconds > 0), "{}", answer.head);
    }
    answer.status
}

fn ask(daemon: &Daemon, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Http::connect(daemon.addr());
    send_some(&mut client, request.as_ref());
    client.answer()
}

const TOKENS: &str = "[[channel]]\nprefix = \"token\"\nread = \"token\"\npublish = \"token\"\n\
    [[channel]]\nprefix = \"shut\"\nread = \"closed\"\n\
    [[auth.key]]\nkid = \"k\"\nalg = \"HS256\"\nsecret_file = ";

#[test]
fn each_status_says_what_it_has_to() {
    let config =
        "[http]\npublish = true\nmax_body = 1000\nheader_time = \"300ms\"\nbody_time = \"300ms\"\n";
    let root = Arc::new(directory());
    let secret = root.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let daemon = Daemon::start_in(root, &format!("{config}{TOKENS}{secret:?}\n"), &[]);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let requests: Vec<(Vec<u8>, u16)> = vec![
        (get("/ch/..", "").into(), 400),
        (get("/ch/%61?since=x", "").into(), 400),
        (get("/ch/token", "").into(), 401),
        (get("/ch/%74oken", "").into(), 401),
        (get("/ch/token?as=sse", "").into(), 401),
        (get("/ch/token", "Authorization: Bearer x\r\n").into(), 401),
        (post("/ch/token", "", b"x"), 401),
        (get("/ch/shut", "").into(), 403),
        (get("/nowhere", "").into(), 404),
        (get("/ch/a", "").replacen("GET", "PUT", 1).into(), 405),
        (post("/healthz", "", b"x"), 405),
        (b"GET /ch/a HTTP/1.1\r\n".into(), 408),
        (
            get("/ch/a", "Content-Length: 5\r\n")
                .replacen("GET", "POST", 1)
                .into(),
            408,
        ),
        (get("/ch/a", chunked).into(), 408),
        (b"POST /ch/a HTTP/1.0\r\n\r\nx".into(), 411),
        (post("/ch/a", "", &[b'x'; 1001]), 413),
        (get(&format!("/ch/{}", "x".repeat(8200)), "").into(), 414),
        (get(&format!("/ch/{}", "x".repeat(100_000)), "").into(), 414),
        (
            get("/ch/a", "")
                .replace("comet.localhost", "other.example")
                .into(),
            421,
        ),
        (get("/ch/a?as=websocket", "").into(), 426),
        (
            get(
                "/ch/a",
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n",
            )
            .into(),
            426,
        ),
        (get("/", &"X: y\r\n".repeat(101)).into(), 431),
    ];
    let mut seen = BTreeSet::new();
    for (request, status) in requests {
        let answer = ask(&daemon, &request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        assert_eq!(keeps_its_word(&answer), status, "{shown}: {}", answer.body);
        seen.insert(status);
    }
    // Old clients that wait, and a daemon that stops.
    let mut chat = Http::connect(daemon.addr());
    chat.send(get("/chat.php", ""));
    half_close(&chat);
    assert_eq!(keeps_its_word(&chat.answer()), 503);
    let mut chat = parked(&daemon, get("/chat.php", ""));
    assert!(daemon.stop().success());
    assert_eq!(keeps_its_word(&chat.answer()), 503);

    seen.insert(by_a_full_daemon());
    seen.extend(by_a_full_address());
    seen.extend(by_a_full_disk());
    let documented: Vec<u16> = documented().difference(&seen).copied().collect();
    let untried = if own_address().is_some() {
        &[][..]
    } else {
        &[429]
    };
    assert_eq!(documented, untried, "documented and not tried");
}

fn by_a_full_daemon() -> u16 {
    let daemon = Daemon::start("[http]\nmax_connections = 1\n");
    let _one = parked_alone(&daemon);
    keeps_its_word(&ask(&daemon, get("/ch/a", "")))
}

/// Parks a poll on the only connection. Figures over HTTP would need a second connection.
fn parked_alone(daemon: &Daemon) -> Http {
    let mut client = Http::connect(daemon.addr());
    client.send(get("/ch/a", ""));
    wait_for("a subscriber", || {
        let out = daemon.comet(&["status", "--json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        (status["metrics"]["subscribers"] == 1).then_some(())
    });
    client
}

fn by_a_full_address() -> Option<u16> {
    let ip = own_address()?;
    let config = "[http]\nmax_per_address = 1\n[[channel]]\nprefix = \"\"\nread = \"public\"\n";
    let root = Arc::new(directory());
    let daemon = Daemon::start_in(root, config, &["--listen", "0.0.0.0:0"]);
    let addr = std::net::SocketAddr::from((ip, daemon.addr().port()));
    let mut one = Http::connect(addr);
    one.send(get("/ch/a?as=sse", "").replace("comet.localhost", &ip.to_string()));
    one.until("event: cursor");
    let mut other = Http::connect(addr);
    send_some(&mut other, get("/ch/a", "").as_bytes());
    Some(keeps_its_word(&other.answer()))
}

/// A file system with room for only a few messages in the log.
fn by_a_full_disk() -> Option<u16> {
    if !may_mount() {
        return None;
    }
    let root = Arc::new(directory());
    let store = root.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let mount = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    let program = ["unshare", "-rm", "sh", "-c", mount, store.to_str().unwrap()];
    let config = "[http]\npublish = true\n";
    let daemon = Daemon::try_start_by(&program, root.clone(), config, &[]).unwrap();
    let mut statuses = (0..50).map(|_| ask(&daemon, post("/ch/a", "", &[b'x'; 10_000])));
    let answer = statuses.find(|answer| answer.status != 201);
    Some(keeps_its_word(&answer.expect("room for 25")))
}

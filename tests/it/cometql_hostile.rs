//! CometQL clients that break the rules of the MySQL protocol or reach a limit, with hand-written packets.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::{
    cometql::{KEY, port},
    daemon::{Daemon, PATIENCE, wait_for},
    wire::metric,
};

/// A client that is not careful.
struct Client(TcpStream);

impl Client {
    fn connect(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect(daemon.port("cometql")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// A client that has logged in.
    fn open(daemon: &Daemon) -> Self {
        let mut client = Self::connect(daemon);
        let login = client.login(KEY);
        client.send(&login);
        assert_eq!(client.read(), OK);
        client
    }

    /// Reads the greeting, and returns the packet of a login as PHP sends it.
    fn login(&mut self, key: &str) -> Vec<u8> {
        let greeting = self.read();
        let version = greeting[1..].iter().position(|byte| *byte == 0).unwrap() + 2;
        let nonce = [
            &greeting[version + 4..version + 12],
            &greeting[greeting.len() - 35..greeting.len() - 23],
        ]
        .concat();
        let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
        let once = sha1(key.as_bytes());
        let mask = sha1(&[nonce, sha1(&once)].concat());
        let mut payload = 0x001a_a28d_u32.to_le_bytes().to_vec();
        payload.extend([0; 28]);
        payload.extend(b"15\0\x14");
        payload.extend(once.iter().zip(&mask).map(|(a, b)| a ^ b));
        payload.extend(b"CometQL_v1\0mysql_native_password\0");
        packet(1, &payload)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The payload of the next packet.
    fn read(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).unwrap();
        payload
    }

    /// The number and the text of the next packet, which is an error.
    fn error(&mut self) -> (u16, String) {
        let payload = self.read();
        assert_eq!(payload[0], 0xff, "{:?}", String::from_utf8_lossy(&payload));
        let code = u16::from_le_bytes([payload[1], payload[2]]);
        (code, String::from_utf8(payload[9..].to_vec()).unwrap())
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 16]), Ok(0) | Err(_))
    }
}

const OK: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..3], &[sequence], payload].concat()
}

fn query(text: &str) -> Vec<u8> {
    packet(0, &[b"\x03", text.as_bytes()].concat())
}

const PING: &[u8] = b"\x01\0\0\0\x0e";

#[test]
fn packets_may_arrive_in_pieces_or_together() {
    let daemon = Daemon::start(&port(""));
    let mut client = Client::connect(&daemon);
    for byte in client.login(KEY) {
        client.send(&[byte]);
    }
    assert_eq!(client.read(), OK);
    let insert =
        |n| format!("INSERT INTO pipes_messages (name, event, message) VALUES ('abc', '', '{n}')");
    let many: Vec<u8> = (0..100).flat_map(|n| query(&insert(n))).collect();
    client.send(&[&many, PING].concat());
    for _ in 0..101 {
        assert_eq!(client.read(), OK);
    }
    let order: Vec<String> = daemon
        .history("abc")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    assert_eq!(order, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    // Queries that follow the login in the same segment are answered, too.
    let mut hasty = Client::connect(&daemon);
    let login = hasty.login(KEY);
    hasty.send(&[&login, PING, &query("SET NAMES utf8"), b"\x01\0\0\0\x01"].concat());
    assert_eq!([hasty.read(), hasty.read(), hasty.read()], [OK; 3]);
    assert!(hasty.is_closed());
}

#[test]
fn a_packet_that_is_too_long_is_refused_without_being_stored() {
    let daemon = Daemon::start(&port(""));
    let mut client = Client::open(&daemon);
    let before = daemon.memory("VmRSS");
    client.send(&query(&"x".repeat(9_000)));
    assert_eq!(client.error(), (11, "Data is too long".into()));
    client.send(&query(&"x".repeat(16_000_000)));
    assert_eq!(client.error().0, 11);
    client.send(PING);
    assert_eq!(client.read(), OK, "the connection can still be used");
    client.send(b"\xff\xff\xff\0");
    assert_eq!(client.error().0, 11);
    assert!(
        client.is_closed(),
        "further packets would continue this one"
    );
    assert!(daemon.memory("VmRSS") < before + (8 << 20));
}

#[test]
fn a_client_that_does_not_log_in_properly_gets_an_error() {
    let daemon = Daemon::start(&port(""));
    let mut wrong = Client::connect(&daemon);
    let login = wrong.login("wrong");
    wrong.send(&login);
    assert_eq!(wrong.error(), (16, "Authentication failure".into()));
    assert!(wrong.is_closed());
    let mut without = Client::connect(&daemon);
    without.read();
    without.send(&query("SELECT 1"));
    assert_eq!(without.error().0, 1043);
    assert!(without.is_closed());
    let mut long = Client::connect(&daemon);
    long.read();
    long.send(b"\xff\xff\xff\x01");
    assert_eq!(
        long.error(),
        (1043, "Bad handshake: the login is too long".into())
    );
    let mut http = Client::connect(&daemon);
    http.read();
    http.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.error().0, 1043);
}

/// `caching_sha2_password` is what clients of newer servers try first.
#[test]
fn another_way_to_show_the_key_is_switched_to_the_known_one() {
    let daemon = Daemon::start(&port(""));
    let mut client = Client::connect(&daemon);
    let native = client.login(KEY);
    let (user, answer) = (&native[4..39], &native[40..60]);
    let tail = b"CometQL_v1\0caching_sha2_password\0";
    let payload = [user, &[32], &[7; 32], tail].concat();
    client.send(&packet(1, &payload));
    let ask = client.read();
    assert_eq!(ask[..23], *b"\xfemysql_native_password\0");
    client.send(&packet(3, answer));
    assert_eq!(client.read(), OK);
}

#[test]
fn unknown_commands_are_errors_and_the_connection_goes_on() {
    let daemon = Daemon::start(&port(""));
    let mut client = Client::open(&daemon);
    for (command, code) in [
        (0x16_u8, 1295_u16),
        (0x1b, 1047),
        (0x12, 1047),
        (0x00, 1047),
    ] {
        client.send(&packet(0, &[command, b'x']));
        assert_eq!(client.error().0, code, "{command}");
    }
    client.send(&packet(0, b""));
    assert_eq!(client.error().0, 1047);
    client.send(&packet(0, b"\x02mysql"));
    assert_eq!(client.error().0, 15);
    client.send(&packet(0, b"\x02CometQL_v1"));
    assert_eq!(client.read(), OK);
    client.send(&packet(0, b"\x04pipes\0"));
    assert_eq!(client.read(), [0xfe, 0, 0, 2, 0]);
    client.send(&packet(0, b"\x1f"));
    assert_eq!(client.read(), OK);
    client.send(&query("abc"));
    assert_eq!(client.error().0, 17);
    client.send(&packet(0, b"\x03SELECT '\xff'"));
    assert_eq!(client.error().0, 12);
}

#[test]
fn connections_over_the_limit_get_an_error_of_mysql() {
    let daemon = Daemon::start(&port("max_connections = 20"));
    let mut clients: Vec<Client> = (0..20).map(|_| Client::open(&daemon)).collect();
    let mut refused = Client::connect(&daemon);
    let (code, text) = refused.error();
    assert_eq!(code, 1040);
    assert!(text.contains("20 connections"), "{text}");
    assert!(refused.is_closed());
    clients[7].send(PING);
    assert_eq!(clients[7].read(), OK);
    clients.pop();
    wait_for("a free place", || {
        let stream = TcpStream::connect(daemon.port("cometql")).unwrap();
        let mut first = [0; 5];
        (&stream).read_exact(&mut first).unwrap();
        (first[4] == 10).then_some(())
    });
    let labels = "{protocol=\"cometql\"}";
    let refused = metric(&daemon, &format!("comet_port_refused_total{labels}"));
    assert!(refused >= 1);
}

/// The clients fail, so the daemon lets them wait. A client that knows the key does not wait with them.
#[test]
fn failed_logins_do_not_keep_others_out() {
    let daemon = Daemon::start(&port(""));
    let mut wrong: Vec<Client> = (0..30).map(|_| Client::connect(&daemon)).collect();
    for client in &mut wrong {
        let login = client.login("wrong");
        client.send(&login);
    }
    Client::open(&daemon).send(b"\x01\0\0\0\x01");
    for client in &mut wrong {
        assert_eq!(client.error().0, 16);
    }
}

#[test]
fn a_stop_answers_and_closes() {
    let daemon = Daemon::start(&port(""));
    let mut client = Client::open(&daemon);
    let mut silent = Client::connect(&daemon);
    silent.read();
    assert!(daemon.stop().success());
    assert!(client.is_closed());
    assert_eq!(silent.error().0, 1053);
}

#[test]
fn a_key_that_is_too_short_is_refused_with_the_settings() {
    let root = std::sync::Arc::new(crate::daemon::directory());
    let config = "[compat.comet_server]\nsql = \"127.0.0.1:0\"\nkey = \"short\"\n";
    let log = Daemon::try_start_in(root, config, &[]).err().unwrap();
    assert!(
        log.contains("a key of 5 bytes is too short: at least 32"),
        "{log}"
    );
    assert!(log.contains("compat.comet_server.key"), "{log}");
}

//! WebSocket clients that break the rules, or that follow them without end, with hand-written frames.

use std::io::{ErrorKind, Read, Write};

use crate::{
    daemon::{Daemon, Http, wait_for},
    wire::{WEBSOCKET, data, get, parked, wait_for_subscribers},
};

/// An open socket, after its handshake.
pub(crate) fn open(daemon: &Daemon, channel: &str) -> Http {
    let mut client = parked(daemon, get(&format!("/ch/{channel}"), WEBSOCKET));
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

/// A client's frame (RFC 6455, section 5.2), with a mask of zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ ..126 => vec![0x80 | u8::try_from(short).unwrap()],
        long => [&[0xfe][..], &u16::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[first][..], &length, &[0; 4], payload].concat()
}

/// Reads the next frame, of at most 125 bytes. Returns its first byte and its payload.
pub(crate) fn read(client: &mut Http) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0; usize::from(head[1])];
    client.stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

pub(crate) fn is_told(client: &mut Http, text: &str) {
    let (first, payload) = read(client);
    assert_eq!(first, 0x81);
    let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(message["data"], text);
}

#[test]
fn what_breaks_the_protocol_is_told_why_and_closed() {
    let daemon = Daemon::start("");
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let huge = [
        &[0x82, 0xff][..],
        &[0x7f, 255, 255, 255, 255, 255, 255, 255],
        &[0; 4],
    ]
    .concat();
    let (protocol, size) = (1002_u16, 1009_u16);
    let cases: [(Vec<u8>, u16); 10] = [
        (vec![0x81, 1, b'x'], protocol), // not masked
        (frame(0xc1, b"x"), protocol),   // a bit of an extension
        (frame(0xa1, b"x"), protocol),
        (frame(0x91, b"x"), protocol),
        (frame(0x8b, b"x"), protocol),         // no such control frame
        (frame(0x09, b"x"), protocol),         // a control frame in pieces
        (frame(0x89, &[b'x'; 126]), protocol), // and one that is too long
        (frame(0x83, b"x"), protocol),         // no such frame
        (huge, size),
        (
            [&[0x82, 0xff][..], &[0, 0, 0, 0, 0, 1, 0, 1], &[0; 4]].concat(),
            size,
        ), // 64 KiB and a byte
    ];
    for (bytes, code) in cases {
        let mut client = open(&daemon, "a");
        client.send(&bytes);
        assert_eq!(
            read(&mut client),
            (0x88, code.to_be_bytes().to_vec()),
            "{bytes:?}"
        );
        assert!(client.is_closed());
        wait_for_subscribers(&daemon, 1); // before the next one is counted
    }
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
    wait_for_subscribers(&daemon, 0);
}

/// The daemon keeps nothing of these frames, which have 64 MiB together.
#[test]
fn fragments_without_end_cost_nothing_and_hold_up_nobody() {
    let daemon = Daemon::start("workers = 1");
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let mut client = open(&daemon, "a");
    let before = daemon.memory("VmRSS");
    client.send(frame(0x01, b"begins"));
    let more = frame(0x00, &[b'x'; 65_000]);
    for n in 0..1000 {
        client.send(&more);
        if n % 100 == 0 {
            client.send(frame(0x89, b"alive?"));
            assert_eq!(read(&mut client), (0x8a, b"alive?".to_vec()));
        }
    }
    assert!(
        daemon.memory("VmRSS") < before + (8 << 20),
        "{before} and now {}",
        daemon.memory("VmRSS")
    );
    daemon.publish("a", "still here");
    is_told(&mut client, "still here");
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
}

/// Each ping needs a pong, and the client does not read.
#[test]
fn a_flood_of_pings_from_a_client_that_reads_nothing_is_cut() {
    let daemon = Daemon::start("workers = 1\n[http]\nwrite_time = \"300ms\"\n");
    let mut bystander = parked(&daemon, get("/ch/bystander", ""));
    let mut client = open(&daemon, "a");
    let before = daemon.memory("VmRSS");
    let pings = frame(0x89, &[b'x'; 125]).repeat(100);
    client.stream.set_nonblocking(true).unwrap();
    wait_for("the cut", || match client.stream.write(&pings) {
        Ok(_) => None,
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(()),
    });
    assert!(daemon.memory("VmRSS") < before + (8 << 20));
    wait_for_subscribers(&daemon, 1);
    daemon.publish("bystander", "undisturbed");
    assert_eq!(data(&bystander.answer()), ["undisturbed"]);
}

/// A proxy could have read these frames as HTTP (RFC 6455, section 10.3).
#[test]
fn frames_before_the_handshake_is_answered_end_the_connection() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    let early = [get("/ch/a", WEBSOCKET).as_bytes(), &frame(0x81, b"early")].concat();
    client.send(early);
    assert!(client.is_closed());
    wait_for_subscribers(&daemon, 0);
}

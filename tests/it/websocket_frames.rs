//! The frames of a WebSocket, rule by rule (RFC 6455, sections 5 to 8). `docs/websocket.md` lists the rules.

use crate::{
    daemon::{Daemon, Http},
    websocket_hostile::{frame, is_told, open, read},
    wire::{half_close, wait_for_subscribers},
};

const PROTOCOL: u16 = 1002;
const NO_TEXT: u16 = 1007;
const SIZE: u16 = 1009;

fn close(payload: &[u8]) -> Vec<u8> {
    frame(0x88, payload)
}

fn close_with(code: u16, reason: &[u8]) -> Vec<u8> {
    close(&[&code.to_be_bytes(), reason].concat())
}

/// Checks that these bytes of a new client are answered by a close with this code only, and that the connection ends.
#[track_caller]
fn fails(daemon: &Daemon, bytes: &[u8], code: u16) {
    // Sent at once, and byte by byte.
    for size in [bytes.len(), 1] {
        let mut client = open(daemon, "a");
        for chunk in bytes.chunks(size) {
            crate::wire::send_some(&mut client, chunk); // it may have been refused before its end
        }
        let answer = read(&mut client);
        assert_eq!(answer, (0x88, code.to_be_bytes().into()), "{bytes:x?}");
        assert!(client.is_closed(), "{bytes:x?}");
        wait_for_subscribers(daemon, 0);
    }
}

/// Checks that the client may send these bytes: pings are answered, and messages arrive.
#[track_caller]
fn goes_on(daemon: &Daemon, client: &mut Http, bytes: &[u8]) {
    client.send(bytes);
    client.send(frame(0x89, b"and on"));
    assert_eq!(
        read(client),
        (0x8a, b"and on".into()),
        "{:x?}",
        &bytes[..bytes.len().min(64)]
    );
    daemon.publish("a", "still here");
    is_told(client, "still here");
}

#[test]
fn frames_follow_each_other_as_messages_in_fragments() {
    let daemon = Daemon::start("");
    let begun = |first: u8| frame(first, b"begins");
    let broken: [Vec<Vec<u8>>; 8] = [
        vec![frame(0x80, b"no beginning")],
        vec![frame(0x00, b"no beginning")],
        vec![begun(0x01), frame(0x81, b"text in a text")],
        vec![begun(0x01), frame(0x01, b"text in a text")],
        vec![begun(0x01), frame(0x82, b"binary in a text")],
        vec![begun(0x02), frame(0x81, b"text in a binary")],
        vec![begun(0x01), frame(0x80, b"ends"), frame(0x80, b"again")],
        vec![frame(0x81, b"whole"), frame(0x80, b"after it")],
    ];
    for frames in broken {
        fails(&daemon, &frames.concat(), PROTOCOL);
    }

    let mut client = open(&daemon, "a");
    let good: [Vec<Vec<u8>>; 6] = [
        vec![begun(0x01), frame(0x80, b"ends")],
        vec![
            begun(0x02),
            frame(0x00, b""),
            frame(0x00, b"x"),
            frame(0x80, b""),
        ],
        vec![frame(0x01, b""), frame(0x80, b"")],
        vec![frame(0x81, b""), frame(0x82, b""), frame(0x81, b"whole")],
        vec![begun(0x01), frame(0x8a, b"a pong"), frame(0x80, b"ends")],
        vec![
            frame(0x82, &[0xff; 65_000]),
            frame(0x02, &[0; 126]),
            frame(0x80, b""),
        ],
    ];
    for frames in good {
        goes_on(&daemon, &mut client, &frames.concat());
    }
    client.send(begun(0x01));
    for n in 0..3_u8 {
        client.send(frame(0x89, &[n; 125]));
        assert_eq!(read(&mut client), (0x8a, vec![n; 125]));
        client.send(frame(0x00, b"goes on"));
    }
    goes_on(&daemon, &mut client, &frame(0x80, b"ends"));
    // A close ends an unfinished message, too.
    client.send([begun(0x01), close_with(1000, b"")].concat());
    assert_eq!(read(&mut client), (0x88, 1000_u16.to_be_bytes().into()));
    assert!(client.is_closed());
}

#[test]
fn text_is_utf_8_also_over_fragments() {
    let daemon = Daemon::start("");
    let text = "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}\0".as_bytes();
    let broken: [&[u8]; 13] = [
        b"\xff",
        b"\xfe\xfe\xff\xff",
        b"\x80",             // a continuation byte without a beginning
        b"ab\xc3",           // cut off
        b"\xe2\x82",         // cut off
        b"\xf0\x9f\x98",     // cut off
        b"\xc3(",            // another character within one
        b"\xc0\x80",         // longer than need be
        b"\xe0\x9f\xbf",     // likewise
        b"\xf0\x8f\xbf\xbf", // likewise
        b"\xed\xa0\x80",     // a surrogate
        b"\xf4\x90\x80\x80", // above U+10FFFF
        b"\xf8\x88\x80\x80\x80",
    ];
    for bytes in broken {
        fails(&daemon, &frame(0x81, bytes), NO_TEXT);
        let pieces: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| frame(0x00, &[*byte]))
            .collect();
        let message = [&frame(0x01, b"good "), &pieces[..], &frame(0x80, b"")].concat();
        fails(&daemon, &message, NO_TEXT);
    }
    // As soon as no further byte can complete the text.
    fails(&daemon, &frame(0x01, b"\xed\xa0"), NO_TEXT);
    fails(&daemon, &frame(0x81, b"\xff and more")[..7], NO_TEXT);

    let mut client = open(&daemon, "a");
    goes_on(&daemon, &mut client, &frame(0x81, text));
    let masked: Vec<u8> = text
        .iter()
        .zip([9, 8, 7, 6].iter().cycle())
        .map(|(a, b)| a ^ b)
        .collect();
    let header = [0x81, 0x80 | u8::try_from(text.len()).unwrap(), 9, 8, 7, 6];
    goes_on(&daemon, &mut client, &[&header[..], &masked].concat());
    client.send(frame(0x01, b""));
    for byte in text {
        client.send(frame(0x00, &[*byte]));
        client.send(frame(0x89, b"between"));
        assert_eq!(read(&mut client), (0x8a, b"between".into()));
    }
    goes_on(&daemon, &mut client, &frame(0x80, b""));
    // Binary data and pings may have any bytes.
    goes_on(&daemon, &mut client, &frame(0x82, b"\xff\xfe\xed\xa0\x80"));
    client.send(frame(0x89, b"\xff\xfe"));
    assert_eq!(read(&mut client), (0x8a, b"\xff\xfe".into()));
}

#[test]
fn headers_of_frames_keep_to_the_rules() {
    let daemon = Daemon::start("");
    let mask = [0; 4];
    let broken: [(&[&[u8]], u16); 9] = [
        (&[&[0x81, 0x05], b"hello"], PROTOCOL), // not masked
        (&[&[0x88, 0x00]], PROTOCOL),
        (&[&[0x82, 0xfe, 0, 125], &mask, &[0; 125]], PROTOCOL), // longer than need be
        (&[&[0x82, 0xfe, 0, 0], &mask], PROTOCOL),
        (
            &[&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], &mask],
            PROTOCOL,
        ),
        (
            &[&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5], &mask, b"hello"],
            PROTOCOL,
        ),
        (&[&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], &mask], PROTOCOL), // the highest bit
        (
            &[
                &[0x82, 0xff, 0xff, 255, 255, 255, 255, 255, 255, 255],
                &mask,
            ],
            PROTOCOL,
        ),
        (&[&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1], &mask], SIZE), // 64 KiB and a byte
    ];
    for (parts, code) in broken {
        fails(&daemon, &parts.concat(), code);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        fails(&daemon, &frame(0x80 | opcode, b""), PROTOCOL);
        fails(&daemon, &frame(opcode, b""), PROTOCOL);
    }
    for bits in 1..8 {
        for opcode in [1, 2, 8, 9, 10] {
            fails(&daemon, &frame(0x80 | bits << 4 | opcode, b""), PROTOCOL);
        }
    }
    for opcode in [8, 9, 10] {
        fails(&daemon, &frame(opcode, b""), PROTOCOL); // a control frame in fragments
        fails(&daemon, &frame(0x80 | opcode, &[b'x'; 126]), PROTOCOL);
    }

    let mut client = open(&daemon, "a");
    let largest = [
        &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0][..],
        &mask,
        &[7; 65_536],
    ]
    .concat();
    goes_on(&daemon, &mut client, &largest);
    goes_on(
        &daemon,
        &mut client,
        &[&[0x82, 0xfe, 0, 126][..], &mask, &[7; 126]].concat(),
    );
    goes_on(
        &daemon,
        &mut client,
        &[&[0x82, 0xfe, 0xff, 0xff][..], &mask, &[7; 65_535]].concat(),
    );
    goes_on(&daemon, &mut client, &frame(0x8a, &[b'x'; 125]));
}

#[test]
fn closes_have_codes_that_may_be_sent_and_reasons_in_utf_8() {
    let daemon = Daemon::start("");
    let never = [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65_535,
    ];
    for code in never {
        fails(&daemon, &close_with(code, b""), PROTOCOL);
        fails(&daemon, &close_with(code, b"why"), PROTOCOL);
    }
    fails(&daemon, &close(&[3]), PROTOCOL); // half a code
    for reason in [&b"\xff"[..], b"ends with \xc3", b"\xed\xa0\x80"] {
        fails(&daemon, &close_with(1000, reason), NO_TEXT);
    }

    let good = (1000..=1003)
        .chain(1007..=1014)
        .chain([3000, 3999, 4000, 4401, 4999]);
    for code in good {
        for reason in ["", "why \u{20ac}", &"x".repeat(123)] {
            let mut client = open(&daemon, "a");
            let close = close_with(code, reason.as_bytes());
            client.send(&close);
            assert_eq!(
                read(&mut client),
                (0x88, close[6..].into()),
                "{code} {reason}"
            );
            assert!(client.is_closed());
            wait_for_subscribers(&daemon, 0);
        }
    }
    let mut client = open(&daemon, "a");
    client.send(close(b""));
    assert_eq!(read(&mut client), (0x88, vec![]));
    assert!(client.is_closed());
}

/// Section 5.5.1: neither side sends anything after its close.
#[test]
fn nothing_is_answered_and_nothing_told_after_a_close() {
    let daemon = Daemon::start("");
    let mut client = open(&daemon, "a");
    let after = [
        frame(0x89, b"a ping"),
        frame(0xf1, b"broken"),
        close_with(1005, b""),
    ];
    client.send([close_with(1000, b"bye"), after.concat()].concat());
    assert_eq!(read(&mut client), (0x88, b"\x03\xe8bye".into()));
    daemon.publish("a", "too late");
    assert!(client.is_closed());
    wait_for_subscribers(&daemon, 0);

    // The same holds after a close for an error.
    let mut client = open(&daemon, "a");
    client.send([frame(0x80, b"stray"), after.concat()].concat());
    assert_eq!(read(&mut client), (0x88, PROTOCOL.to_be_bytes().into()));
    assert!(client.is_closed());
}

/// Section 7.1: when the server stops, it sends the first close, reads the client's answer, and ends the connection.
#[test]
fn the_servers_own_close_takes_the_clients_answer() {
    let daemon = Daemon::start("");
    let mut client = open(&daemon, "a");
    client.send(frame(0x01, b"an unfinished message"));
    client.send(frame(0x89, b"read by now"));
    assert_eq!(read(&mut client).0, 0x8a);
    daemon.signal("TERM");
    let (first, payload) = read(&mut client);
    assert_eq!((first, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
    client.send(close_with(1001, b""));
    assert!(client.is_closed());
    assert!(daemon.stop().success());
}

/// Section 7.1.5. The client may still read, and gets a close without an error.
#[test]
fn a_client_that_leaves_without_a_close_is_let_go() {
    let daemon = Daemon::start("");
    for begun in [
        &b""[..],
        &frame(0x01, b"begins"),
        &frame(0x89, b"cut off")[..8],
    ] {
        let mut client = open(&daemon, "a");
        client.send(begun);
        half_close(&client);
        assert_eq!(client.rest(), [0x88, 2, 0x03, 0xe8]);
        wait_for_subscribers(&daemon, 0);
    }
}

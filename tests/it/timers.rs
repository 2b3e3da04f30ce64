//! Short times end on time, and not at the next check of all connections.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::{
    daemon::{Daemon, Http, wait_for},
    http2,
    tokens::{bearer, start, token},
    wire::{WEBSOCKET, get, parked},
};

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// The seconds in the script calls of the old page.
fn seconds(text: &str) -> Vec<u64> {
    let calls = text.split("comet.printServerTime(").skip(1);
    calls
        .map(|call| call.split(')').next().unwrap().parse().unwrap())
        .collect()
}

/// Whether each second is reported once, within that second. If the machine stalls for a second, the test tries again.
fn tells_each_second(mut next: impl FnMut() -> u64) -> bool {
    let first = next();
    (1..=6).all(|n| {
        let told = next();
        told == first + n && told == since_1970().as_secs()
    })
}

#[test]
fn the_clock_tells_each_second_when_it_begins() {
    let daemon = Daemon::start("");
    wait_for("six seconds in a row", || {
        let mut client = Http::connect(daemon.addr());
        client.send(get("/clock.php", ""));
        client.until("\r\n\r\n");
        tells_each_second(|| seconds(&client.chunk().unwrap())[0]).then_some(())
    });
}

#[test]
fn the_clock_tells_each_second_over_http_2() {
    let daemon = Daemon::start("");
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let mut body = client.get("/clock.php").await.into_body();
        let mut told = Vec::new();
        // Waits until seven reports in a row each arrived within their own second.
        while !told.windows(7).any(|some: &[(u64, u64)]| {
            let first = some[0].0;
            let now = |n: usize| some[n] == (first + n as u64, first + n as u64);
            (1..7).all(now)
        }) {
            let piece = http2::piece(&mut body).await.unwrap();
            told.extend(
                seconds(&piece)
                    .into_iter()
                    .map(|it| (it, since_1970().as_secs())),
            );
        }
    });
}

/// Repeats until five heartbeats in a row arrive 300 ms apart. With a fault of the past they were at least 500 ms
/// apart.
fn come_in_time(mut next: impl FnMut()) {
    wait_for("signs of life in time", || {
        next();
        let start = Instant::now();
        (0..5).for_each(|_| next());
        let took = start.elapsed();
        assert!(took > Duration::from_millis(1450), "too early: {took:?}");
        (took < Duration::from_secs(2)).then_some(())
    });
}

#[test]
fn heartbeats_of_less_than_a_second_come_in_time() {
    let daemon = Daemon::start("[http]\nheartbeat = \"300ms\"\n");
    let mut stream = Http::connect(daemon.addr());
    stream.send(get("/ch/a?as=sse", ""));
    come_in_time(|| drop(stream.until("event: cursor")));
    let mut socket = Http::connect(daemon.addr());
    socket.send(get("/ch/a", WEBSOCKET));
    socket.until("\r\n\r\n");
    come_in_time(|| assert_eq!(socket.exactly(2), [0x89, 0]));
    http2::run(async {
        let client = http2::Client::connect(daemon.addr()).await;
        let mut body = client.get("/ch/a?as=sse").await.into_body();
        loop {
            http2::piece(&mut body).await.unwrap();
            let start = Instant::now();
            for _ in 0..5 {
                http2::piece(&mut body).await.unwrap();
            }
            if start.elapsed() < Duration::from_secs(2) {
                break;
            }
        }
    });
}

/// A token expires with a second. A waiting client is told within a fifth of a second, and not only by chance.
#[test]
fn the_end_of_a_token_is_told_in_time() {
    let daemon = start("");
    let with = |expires: u64| bearer(&token(&json!({"s": ["*"]}), expires));
    let in_time = |what: &str, mut ends: Box<dyn FnMut(&str)>| {
        wait_for(what, || {
            let mut is_in_time = || {
                let second = since_1970().as_secs();
                ends(&with(1));
                let told = since_1970();
                assert!(told.as_secs() > second, "{what}: too early");
                told.subsec_millis() < 200 && told.as_secs() <= second + 2
            };
            (0..3).all(|_| is_in_time()).then_some(())
        });
    };
    let (poll, sse) = (&daemon, &daemon);
    let ends_poll = move |bearer: &str| {
        let mut client = parked(poll, get("/ch/chat.7?wait=60", bearer));
        assert_eq!(client.answer().status, 401);
    };
    in_time("the end of a poll", Box::new(ends_poll));
    let ends_stream = move |bearer: &str| {
        let mut client = parked(sse, get("/ch/chat.7?as=sse", bearer));
        client.until("event: expired");
    };
    in_time("the end of a stream", Box::new(ends_stream));
}

/// A poll that waits for a second is answered when the second is over.
#[test]
fn short_waits_end_in_time() {
    let daemon = Daemon::start("");
    let mut client = Http::connect(daemon.addr());
    wait_for("a poll of a second", || {
        let mut is_in_time = || {
            let start = Instant::now();
            client.get("/ch/a?wait=1");
            assert_eq!(client.answer().status, 200);
            let took = start.elapsed();
            assert!(took >= Duration::from_secs(1), "too early: {took:?}");
            took < Duration::from_millis(1200)
        };
        (0..3).all(|_| is_in_time()).then_some(())
    });
}

//! Tests of the load client against a server that commits every fault on purpose. The client has to notice each fault
//! in responses that it parses and in responses that it only compares.

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    thread,
};

use super::*;
use crate::{
    floor::{self, Flaw, Floor},
    message::Series,
    publisher,
};

const POLLS: usize = 3;

/// Sends three messages to three polls of a server with this flaw. The flaw hits the poll `victim`.
fn run(flaw: Flaw, victim: usize, strict: bool) -> Result<Faults> {
    let root = tempfile::tempdir()?;
    let http = floor::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (addr, path) = (http.local_addr()?, root.path().join("socket"));
    let socket = UnixListener::bind(&path)?;
    let (stop, stopped) = UnixStream::pair()?;
    let mut floor = Floor::new(http, socket, None, flaw)?;
    floor.victim = victim;
    thread::scope(|scope| {
        scope.spawn(move || floor.run(stopped.as_fd()).unwrap());
        let result = Load::connect(Kind::Floor, addr, "news", POLLS).and_then(|mut load| {
            load.strict = strict;
            if flaw == Flaw::Lose || !strict {
                // A lost message never arrives, so a short time-out is enough.
                load.patience = Duration::from_millis(100);
            }
            deliver(&mut load, &UnixStream::connect(&path)?)?;
            Ok(load.faults())
        });
        drop(stop);
        result
    })
}

fn deliver(load: &mut Load, mut publisher: &UnixStream) -> Result<()> {
    let mut replies = BufReader::new(publisher.try_clone()?);
    let mut series = Series::new("news");
    for _ in 0..3 {
        load.poll()?;
        let data = series.next(60);
        // The floor's single thread handles requests in the order of arrival. When it has answered this publish, the
        // polls are parked.
        for (channel, data) in [("nobody", "x"), ("news", &data)] {
            publisher.write_all(publisher::line(channel, data).as_bytes())?;
            replies.read_line(&mut String::new())?;
        }
        load.collect(&data)?;
    }
    load.quiet()
}

#[test]
fn a_server_without_fault_passes() {
    assert!(!run(Flaw::None, 0, true).unwrap().any());
}

#[test]
fn every_fault_ends_a_run_with_ours() {
    for victim in 0..POLLS {
        for (flaw, word) in [
            (Flaw::Lose, "lost"),
            (Flaw::Double, "doubled"),
            (Flaw::Again, "doubled"),
            (Flaw::Reorder, "reordered"),
            (Flaw::Stale, "reordered"),
            (Flaw::Foreign, "foreign"),
            (Flaw::Other, "foreign"),
            (Flaw::Refuse, "failed"),
            (Flaw::Close, "closed"),
        ] {
            let error = run(flaw, victim, true).unwrap_err().to_string();
            assert!(error.contains(word), "{word} at {victim}: {error}");
        }
    }
}

#[test]
fn every_fault_of_others_is_counted() {
    for victim in 0..POLLS {
        for (flaw, of) in [
            (Flaw::Lose, (|faults| faults.lost) as fn(Faults) -> u64),
            (Flaw::Double, |faults| faults.doubled),
            (Flaw::Again, |faults| faults.doubled),
            (Flaw::Reorder, |faults| faults.reordered),
            (Flaw::Stale, |faults| faults.reordered),
            (Flaw::Foreign, |faults| faults.foreign),
            (Flaw::Other, |faults| faults.foreign),
            (Flaw::Refuse, |faults| faults.failed),
        ] {
            let faults = run(flaw, victim, false).unwrap();
            assert!(of(faults) > 0, "at {victim}: {faults}");
        }
    }
}

#[test]
fn a_storm_has_every_poll_out() {
    let root = tempfile::tempdir().unwrap();
    let http = floor::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let addr = http.local_addr().unwrap();
    let path = root.path().join("socket");
    let socket = UnixListener::bind(&path).unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let floor = Floor::new(http, socket, None, Flaw::None).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || floor.run(stopped.as_fd()).unwrap());
        let (mut load, rush) = Load::rush(Kind::Floor, addr, "news", (200, 64)).unwrap();
        assert_eq!(rush.slow, 0);
        let publisher = UnixStream::connect(&path).unwrap();
        let mut socket = BufReader::new(publisher);
        for data in ["x", "y"] {
            let channel = if data == "x" { "nobody" } else { "news" };
            let line = publisher::line(channel, data);
            socket.get_mut().write_all(line.as_bytes()).unwrap();
            socket.read_line(&mut String::new()).unwrap();
        }
        load.collect("y").unwrap();
        drop(stop);
    });
}

//! Measures many channels with one message each: the memory that a channel needs beside its data, and the memory that
//! remains when all channels have expired.

use std::{
    io::{BufRead, Write},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::polls::LENGTH;
use crate::{
    bench::Bench,
    kind::Kind,
    posts::Posts,
    publisher::{self, Socket},
    report::{Figures, Limit, Report, Row},
    server::Server,
};

/// Messages expire after 10 s: long enough to publish all of them and to measure the memory.
const CONFIG: &str =
    "[history]\nage = \"10s\"\n[http]\npublish = true\n[store]\ndurability = \"memory\"\n";

/// Time for the channels to expire. The daemon checks for expired messages only at intervals.
const PATIENCE: Duration = Duration::from_secs(60);

/// The data of each message that is published over the socket.
const DATA: &str = "an order was paid";

/// Publishes under way at the same time. The replies to this many publishes fit into a socket's buffer.
const BLOCK: usize = 500;

/// Connections for publishes over HTTP.
const CONNECTIONS: usize = 16;

/// Number of new servers that are measured. Their figures differ by about one percent.
const RUNS: usize = 3;

/// The interface by which messages are published.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    Socket,
    Http,
}

pub(crate) fn channels(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants(Kind::Comet) {
        return Ok(());
    }
    for interface in [Interface::Socket, Interface::Http] {
        let (mut each, mut left) = <(Figures, Figures)>::default();
        for _ in 0..bench.scale.rounds.min(RUNS) {
            round(bench, interface, &mut each, &mut left)?;
        }
        let over = match interface {
            Interface::Socket => "the socket",
            Interface::Http => "HTTP",
        };
        let count = bench.scale.channels;
        let what = format!(
            "memory of a channel with one message over {over}, beside its data, {count} of them"
        );
        report.add(Row::new(what, "bytes", each).must(Kind::Comet, Limit::AtMost(500.0)));
        let what = format!("what is left of such a channel that has expired, over {over}");
        // A page is the smallest unit in which the system counts memory.
        report.add(Row::new(what, "bytes", left).must(Kind::Comet, Limit::AtMost(10.0)));
    }
    Ok(())
}

fn round(
    bench: &Bench,
    interface: Interface,
    each: &mut Figures,
    left: &mut Figures,
) -> Result<()> {
    let count = bench.scale.channels;
    let server = Server::comet(&bench.comet, CONFIG, None)?;
    let mut socket = server.socket()?;
    let mut posts = match interface {
        Interface::Socket => None,
        Interface::Http => Some(Posts::connect(&server, CONNECTIONS, BLOCK + count, LENGTH)?),
    };
    let mut publish = |channels: Range<usize>| match &mut posts {
        None => publish(&mut socket, channels),
        Some(posts) => posts.publish(channels.len()).map(drop),
    };
    // The first publishes allocate memory once, which must not be counted for a channel.
    publish(0..BLOCK)?;
    server.at_rest()?;
    let before = server.pss()? as f64;
    publish(BLOCK..BLOCK + count)?;
    server.at_rest()?;
    let full = server.pss()? as f64;
    let kept = channels_of(&mut socket)?;
    ensure!(
        kept >= count as u64,
        "{kept} of {count} channels are left too early"
    );
    let data = match interface {
        Interface::Socket => DATA.len(),
        Interface::Http => LENGTH,
    };
    each.push(Kind::Comet, (full - before) / count as f64 - data as f64);
    expire(&mut socket)?;
    server.at_rest()?;
    left.push(Kind::Comet, (server.pss()? as f64 - before) / count as f64);
    Ok(())
}

/// Publishes one message to each of these channels.
fn publish(socket: &mut Socket, channels: Range<usize>) -> Result<()> {
    let (mut lines, mut reply) = (String::new(), Vec::new());
    for start in channels.clone().step_by(BLOCK) {
        let block = start..channels.end.min(start + BLOCK);
        lines.clear();
        for number in block.clone() {
            lines += &publisher::line(&format!("orders:{number}"), DATA);
        }
        socket.stream.write_all(lines.as_bytes())?;
        for _ in block {
            reply.clear();
            socket.replies.read_until(b'\n', &mut reply)?;
            publisher::id(&reply).context("not published")?;
        }
    }
    Ok(())
}

/// Waits until the server reports that it has no channels.
fn expire(socket: &mut Socket) -> Result<()> {
    let start = Instant::now();
    while channels_of(socket)? > 0 {
        ensure!(start.elapsed() < PATIENCE, "channels do not expire");
        thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}

/// Number of channels, from the server's `status`.
fn channels_of(socket: &mut Socket) -> Result<u64> {
    socket.stream.write_all(b"{\"op\":\"status\"}\n")?;
    let mut reply = String::new();
    socket.replies.read_line(&mut reply)?;
    let status: Value = serde_json::from_str(&reply)?;
    let channels = status["hub"]["channels"].as_u64();
    channels.with_context(|| format!("no status: {reply:?}"))
}

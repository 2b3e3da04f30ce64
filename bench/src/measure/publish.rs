//! Measures publishes a second: over one connection of the Unix socket, one by one and pipelined, and over HTTP on
//! several connections, to channels without subscribers.
//!
//! One by one over the socket is measured three times: with a client that sleeps until the reply arrives, on one core
//! and on any core, and with the client library, which polls actively for a moment first. If the kernel puts client and
//! server on different cores, each publish waits for sleeping cores to wake up. On a virtual machine that takes far
//! longer than the publish. On one core the rate shows the work alone.

use std::{
    io::{BufRead, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use comet_client::{
    Acknowledge, Client, Options,
    proto::{ChannelName, EventName, line::Publish},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu},
    unistd::Pid,
};

use super::polls::{LENGTH, rounds};
use crate::{
    bench::Bench,
    kind::Kind,
    posts::Posts,
    process,
    publisher::{self, Socket},
    report::{Figures, Limit, Report, Row},
    server::Server,
};

const CHANNEL: &str = "published";

/// Numbers of connections for publishes over HTTP.
const CONNECTIONS: [usize; 2] = [16, 64];
const CHANNELS: usize = 100;

pub(crate) fn publish(bench: &Bench, report: &mut Report) -> Result<()> {
    over_socket(bench, report)?;
    CONNECTIONS
        .iter()
        .try_for_each(|&connections| over_http(bench, report, connections))
}

fn over_http(bench: &Bench, report: &mut Report, connections: usize) -> Result<()> {
    let servers = bench.servers(&[Kind::Comet, Kind::Floor, Kind::Nchan])?;
    let (mut rate, mut cpu, mut own) = <(Figures, Figures, Figures)>::default();
    let count = bench.scale.posts;
    rounds(bench.scale.dear_rounds, &servers, |server| {
        let mut posts = Posts::connect(server, connections, CHANNELS, LENGTH)?;
        // The first publishes allocate what the later ones reuse, so they are not measured.
        posts.publish(count / 10)?;
        let (before, own_before) = (server.at_rest()?, process::own_cpu()?);
        let took = posts.publish(count)?;
        let own_used = process::own_cpu()?.saturating_sub(own_before);
        let used = server.at_rest()?.saturating_sub(before);
        let each = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
        rate.push(server.kind, count as f64 / took.as_secs_f64());
        rate.faults(server.kind, posts.faults);
        cpu.push(server.kind, each(used));
        own.push(server.kind, each(own_used));
        Ok(())
    })?;
    let what = format!("publishes over HTTP, {connections} connections");
    report.add(
        Row::new(&what, "1/s", rate)
            .must(Kind::Nchan, Limit::AtLeast(1.5))
            .stretch(Kind::Nchan, Limit::AtLeast(2.0)),
    );
    report.add(Row::new(format!("CPU of {what}"), "us", cpu));
    // One thread publishes, so no server can be faster than this thread.
    let what = format!("CPU of the client in {what}");
    report.add(Row::new(what, "us", own).alone());
    Ok(())
}

fn over_socket(bench: &Bench, report: &mut Report) -> Result<()> {
    let servers = bench.servers(&[Kind::Comet, Kind::Floor])?;
    let everywhere = sched_getaffinity(Pid::from_raw(0))?;
    let mut one_core = CpuSet::new();
    one_core.set(sched_getcpu()?)?;
    let (mut together, mut apart) = <(Figures, Figures)>::default();
    let (mut library, mut pipelined) = <(Figures, Figures)>::default();
    let scale = &bench.scale;
    rounds(scale.rounds, &servers, |server| {
        server.run_on(&one_core)?;
        together.push(server.kind, one_by_one(server.socket()?, scale.acked)?);
        server.run_on(&everywhere)?;
        apart.push(server.kind, one_by_one(server.socket()?, scale.acked)?);
        library.push(server.kind, by_library(server, scale.acked)?);
        pipelined.push(server.kind, at_once(server.socket()?, scale.pipelined)?);
        Ok(())
    })?;
    // This row explains the next row and does not replace it.
    let what = "publishes over the socket acknowledged, on one core";
    report.add(Row::new(what, "1/s", together));
    let what = "publishes over the socket acknowledged, on any core";
    report.add(Row::new(what, "1/s", apart).must(Kind::Comet, Limit::AtLeast(60_000.0)));
    let what = "publishes over the socket acknowledged, by the client library";
    report.add(Row::new(what, "1/s", library).must(Kind::Comet, Limit::AtLeast(60_000.0)));
    let what = "publishes over the socket pipelined";
    report.add(Row::new(what, "1/s", pipelined).must(Kind::Comet, Limit::AtLeast(1_000_000.0)));
    Ok(())
}

pub(super) fn data() -> String {
    format!("{:.<60}", "an order was paid")
}

fn one_by_one(mut publisher: Socket, count: usize) -> Result<f64> {
    let data = data();
    let (start, mut last) = (Instant::now(), 0);
    for _ in 0..count {
        last = increasing(last, publisher.publish(CHANNEL, &data)?)?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn by_library(server: &Server, count: usize) -> Result<f64> {
    let mut client = Client::new(Options {
        socket: Some(server.socket_path()),
        ..Options::default()
    });
    let (data, channel) = (data(), ChannelName::parse(CHANNEL)?);
    let publish = || Publish {
        channels: channel.clone().into(),
        name: EventName::default(),
        data: data.as_bytes().into(),
        attributes: None,
        key: None,
    };
    let (start, mut last) = (Instant::now(), 0);
    for _ in 0..count {
        let outcome = client.publish(publish(), Acknowledge::Each)?;
        last = increasing(last, outcome.id().context("no id")?)?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Writes as fast as the server reads, while another thread reads the replies.
pub(super) fn at_once(publisher: Socket, count: usize) -> Result<f64> {
    const BLOCK: usize = 500;
    let Socket {
        mut stream,
        mut replies,
    } = publisher;
    let block = publisher::line(CHANNEL, &data()).repeat(BLOCK);
    let blocks = count.div_ceil(BLOCK);
    let start = Instant::now();
    thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<()> {
            for _ in 0..blocks {
                stream.write_all(block.as_bytes())?;
            }
            Ok(())
        });
        let (mut last, mut reply) = (0, Vec::new());
        for _ in 0..blocks * BLOCK {
            reply.clear();
            replies.read_until(b'\n', &mut reply)?;
            let id = publisher::id(&reply);
            let id = id
                .with_context(|| format!("not published: {:?}", String::from_utf8_lossy(&reply)))?;
            last = increasing(last, id)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        writer
            .join()
            .ok()
            .context("the writing thread panicked")??;
        Ok((blocks * BLOCK) as f64 / seconds)
    })
}

fn increasing(last: u64, id: u64) -> Result<u64> {
    if id <= last {
        bail!("the id {id} after {last}");
    }
    Ok(id)
}

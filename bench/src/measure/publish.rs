//! Publishes a second on one connection of the Unix socket: each after the reply to the one before, and pipelined.
//!
//! One by one is measured twice. Where the kernel puts client and server on different cores, each publish waits for
//! two sleeping cores to wake, which on a virtual machine takes far longer than the publish. On one core the rate is
//! that of the work.

use std::{
    io::{BufRead, Write},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu},
    unistd::Pid,
};

use super::rounds;
use crate::{
    bench::Bench,
    publisher::{self, Socket},
    report::{Figures, Limit, Report, Row},
    server::Kind,
};

const CHANNEL: &str = "published";

pub(crate) fn publish(bench: &Bench, report: &mut Report) -> Result<()> {
    let servers = bench.servers(&[Kind::Comet, Kind::Floor])?;
    let everywhere = sched_getaffinity(Pid::from_raw(0))?;
    let mut one_core = CpuSet::new();
    one_core.set(sched_getcpu()?)?;
    let (mut together, mut apart, mut pipelined) = <(Figures, Figures, Figures)>::default();
    let scale = &bench.scale;
    rounds(scale.rounds, &servers, |server| {
        server.run_on(&one_core)?;
        together.push(server.kind, one_by_one(server.socket()?, scale.acked)?);
        server.run_on(&everywhere)?;
        apart.push(server.kind, one_by_one(server.socket()?, scale.acked)?);
        pipelined.push(server.kind, at_once(server.socket()?, scale.pipelined)?);
        Ok(())
    })?;
    // Explains the next row, and does not stand in for it.
    let what = "publishes over the socket acknowledged, on one core";
    report.add(Row::new(what, "1/s", together));
    let what = "publishes over the socket acknowledged, on any core";
    report.add(Row::new(what, "1/s", apart).must(Kind::Comet, Limit::AtLeast(60_000.0)));
    let what = "publishes over the socket pipelined";
    report.add(Row::new(what, "1/s", pipelined).must(Kind::Comet, Limit::AtLeast(1_000_000.0)));
    Ok(())
}

fn data() -> String {
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

/// Writes as fast as the server reads, while another thread reads the replies.
fn at_once(publisher: Socket, count: usize) -> Result<f64> {
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

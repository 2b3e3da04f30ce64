//! Publishes a second on one connection of the Unix socket: each after the reply to the one before, and pipelined.
//!
//! One by one is measured twice. Where the kernel puts client and server on different cores, each publish waits for
//! two sleeping cores to wake, which on a virtual machine takes far longer than the publish. On one core the rate is
//! that of the work.

use std::{
    io::{BufRead, Write},
    path::Path,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu},
    unistd::Pid,
};

use super::Scale;
use crate::{
    report::{Budget, Compare, Report},
    server::{self, Publisher, Server},
};

const CHANNEL: &str = "published";

/// Of Comet, and of the program that does the least.
type Both = [Vec<f64>; 2];

pub(crate) fn publish(comet: &Path, scale: &Scale, report: &mut Report) -> Result<()> {
    let (comet, floor) = (Server::comet(comet)?, Server::floor()?);
    let everywhere = sched_getaffinity(Pid::from_raw(0))?;
    let mut one_core = CpuSet::new();
    one_core.set(sched_getcpu()?)?;
    let (mut together, mut apart, mut pipelined) = <(Both, Both, Both)>::default();
    for _ in 0..scale.rounds {
        for (i, server) in [&comet, &floor].into_iter().enumerate() {
            server.run_on(&one_core)?;
            together[i].push(one_by_one(server.publisher()?, scale.acked)?);
            server.run_on(&everywhere)?;
            apart[i].push(one_by_one(server.publisher()?, scale.acked)?);
            pipelined[i].push(at_once(server.publisher()?, scale.pipelined)?);
        }
    }
    for (what, rates, budget) in [
        (
            "publishes acknowledged, on one core",
            together,
            None, // explains the next row, and does not stand in for it
        ),
        ("publishes acknowledged, on any core", apart, Some(60_000.0)),
        ("publishes pipelined", pipelined, Some(1_000_000.0)),
    ] {
        report.add(
            what,
            "1/s",
            rates.into(),
            Compare::Nothing,
            budget.map(Budget::AtLeast),
        );
    }
    Ok(())
}

fn data() -> String {
    format!("{:.<60}", "an order was paid")
}

fn one_by_one(mut publisher: Publisher, count: usize) -> Result<f64> {
    let data = data();
    let (start, mut last) = (Instant::now(), 0);
    for _ in 0..count {
        last = increasing(last, publisher.publish(CHANNEL, &data)?)?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Writes as fast as the server reads, while another thread reads the replies.
fn at_once(publisher: Publisher, count: usize) -> Result<f64> {
    const BLOCK: usize = 500;
    let Publisher {
        mut stream,
        mut replies,
    } = publisher;
    let block = server::line(CHANNEL, &data()).repeat(BLOCK);
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
            let id = server::id(&reply);
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

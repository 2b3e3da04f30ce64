//! Measures the time from a publish over HTTP to the last byte at the one client that polls. The servers take turns. It
//! is measured without other polls, and with thousands of idle polls on another channel.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{latency::Latencies, polls::LENGTH};
use crate::{
    bench::Bench,
    hold::Hold,
    kind::Kind,
    load::Load,
    message::Series,
    publisher::Publisher,
    report::{Limit, Report, Row},
    server::Server,
};

const CHANNEL: &str = "posted";

pub(crate) fn post(bench: &Bench, report: &mut Report) -> Result<()> {
    for idle in [0, bench.scale.fanout()] {
        let mut latencies = measure(bench, &[Kind::Comet, Kind::Nchan], idle)?;
        if idle > 0 {
            latencies.plot("post", report);
        }
        let what = |which| format!("HTTP publish to client, {which}, {idle} idle polls");
        for row in [
            Row::new(what("median"), "us", latencies.median),
            Row::new(what("99th percentile"), "us", latencies.tail),
        ] {
            report.add(
                row.must(Kind::Nchan, Limit::AtMost(1.0))
                    .stretch(Kind::Nchan, Limit::AtMost(0.65)),
            );
        }
    }
    let latencies = measure(bench, &[Kind::Comet, Kind::Pushpin], 0)?;
    let what = "HTTP publish to client, median, one in 50 ms";
    report.add(Row::new(what, "us", latencies.median));
    Ok(())
}

struct Client<'a> {
    server: &'a Server,
    load: Load,
    publisher: Publisher,
    series: Series,
}

fn measure(bench: &Bench, kinds: &[Kind], idle: usize) -> Result<Latencies> {
    let servers = bench.servers(kinds)?;
    let mut holds = Hold::park_all(&servers, idle)?;
    let clients = servers.iter().map(Client::new);
    let mut clients: Vec<Client<'_>> = clients.collect::<Result<_>>()?;
    let slow = kinds.contains(&Kind::Pushpin);
    let (rounds, posts, pause) = match slow {
        false => (bench.scale.rounds, bench.scale.touches, 1),
        // This server has to park the poll again before it can deliver. A message that is published earlier is lost.
        true => (bench.scale.dear_rounds, bench.scale.touches / 10, 50),
    };
    let mut latencies = Latencies::default();
    for _ in 0..rounds {
        let mut times = vec![Vec::new(); clients.len()];
        for _ in 0..posts {
            for (client, times) in clients.iter_mut().zip(&mut times) {
                times.extend(client.once()?);
                thread::sleep(Duration::from_millis(pause));
            }
        }
        for (client, times) in clients.iter().zip(times) {
            latencies.round(client.server.kind, times);
        }
    }
    for client in &mut clients {
        client.server.at_rest()?;
        client.load.quiet()?;
        latencies.faults(client.server.kind, client.load.faults());
    }
    holds.iter_mut().try_for_each(Hold::check)?;
    Ok(latencies)
}

impl<'a> Client<'a> {
    /// Connects one poll and parks it.
    fn new(server: &'a Server) -> Result<Self> {
        let mut load = Load::connect(server.kind, server.addr(), CHANNEL, 1)?;
        load.poll()?;
        server.at_rest()?;
        Ok(Self {
            server,
            load,
            publisher: server.poster()?,
            series: Series::new(CHANNEL),
        })
    }

    /// Measures one message and polls again. `None`: the message was lost, which is counted.
    fn once(&mut self) -> Result<Option<Duration>> {
        self.load.quiet()?;
        let lost = self.load.faults().lost;
        let data = self.series.next(LENGTH);
        let start = Instant::now();
        self.publisher.send(CHANNEL, &data)?;
        let end = self.load.collect(&data)?;
        self.publisher.confirm()?;
        self.load.poll()?;
        Ok((self.load.faults().lost == lost).then(|| end - start))
    }
}

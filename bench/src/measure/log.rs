//! Measures the log: acknowledged messages a second that survive a crash of the daemon or a loss of power, and the time
//! of a start that reads many messages back. The log is on the file system of the temporary directory.

use std::{
    io::{BufRead, Write},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use super::publish::{at_once, data};
use crate::{
    bench::Bench,
    kind::Kind,
    publisher::{self, Socket},
    report::{Figures, Limit, Report, Row},
    server::Server,
};

/// Publishers that wait for the disk at the same time.
const PUBLISHERS: usize = 64;

/// Number of channels in the log that is read back.
const CHANNELS: usize = 1000;

pub(crate) fn log(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.wants(Kind::Comet) {
        return Ok(());
    }
    let (mut process, mut disk, mut replay) = <(Figures, Figures, Figures)>::default();
    let scale = &bench.scale;
    for _ in 0..scale.dear_rounds {
        let directory = tempfile::tempdir()?;
        let server = start(bench, directory.path(), "process")?;
        process.push(Kind::Comet, at_once(server.socket()?, scale.pipelined)?);
        drop(server);
        let directory = tempfile::tempdir()?;
        let server = start(bench, directory.path(), "disk")?;
        disk.push(Kind::Comet, together(&server, scale.acked)?);
        drop(server);
        replay.push(Kind::Comet, read_back(bench, scale.replayed)?);
    }
    let what = "messages kept, pipelined over the socket (process)";
    report.add(Row::new(what, "1/s", process).must(Kind::Comet, Limit::AtLeast(500_000.0)));
    let what = format!("messages synced, {PUBLISHERS} publishers that wait (disk)");
    report.add(Row::new(what, "1/s", disk).must(Kind::Comet, Limit::AtLeast(50_000.0)));
    let what = format!("a start that reads {} messages back", scale.replayed);
    report.add(Row::new(what, "s", replay).must(Kind::Comet, Limit::AtMost(1.0)));
    Ok(())
}

fn start(bench: &Bench, store: &Path, durability: &str) -> Result<Server> {
    let config = format!(
        "[history]\nmessages = 1000000\nbytes = \"1GiB\"\ntotal = \"1GiB\"\nage = \"1d\"\n\
         [store]\ndurability = {durability:?}\n"
    );
    Server::comet(&bench.comet, &config, Some(store))
}

/// Publishes from several publishers, each with one message under way. Returns acknowledgements a second.
fn together(server: &Server, count: usize) -> Result<f64> {
    let mut sockets = Vec::new();
    for _ in 0..PUBLISHERS {
        sockets.push(server.socket()?);
    }
    let line = publisher::line("synced", &data());
    let (mut last, start) = (0, Instant::now());
    for socket in &mut sockets {
        socket.stream.write_all(line.as_bytes())?;
    }
    let rounds = count.div_ceil(PUBLISHERS);
    for round in 1..=rounds {
        for socket in &mut sockets {
            let id = reply(socket)?;
            ensure!(id > 0, "no id");
            last = last.max(id);
            if round < rounds {
                socket.stream.write_all(line.as_bytes())?;
            }
        }
    }
    Ok((rounds * PUBLISHERS) as f64 / start.elapsed().as_secs_f64())
}

fn reply(socket: &mut Socket) -> Result<u64> {
    let mut reply = Vec::new();
    socket.replies.read_until(b'\n', &mut reply)?;
    publisher::id(&reply)
        .with_context(|| format!("not published: {:?}", String::from_utf8_lossy(&reply)))
}

/// Kills a daemon that has this many messages, and starts another one. Returns the seconds until the new daemon is
/// ready, and checks that it has all messages.
fn read_back(bench: &Bench, count: usize) -> Result<f64> {
    const BLOCK: usize = 500;
    let directory = tempfile::tempdir()?;
    let server = start(bench, directory.path(), "process")?;
    let mut socket = server.socket()?;
    let (data, mut lines) = (data(), String::new());
    for block in (0..count).step_by(BLOCK) {
        lines.clear();
        let numbers = block..count.min(block + BLOCK);
        for number in numbers.clone() {
            lines += &publisher::line(&format!("orders:{}", number % CHANNELS), &data);
        }
        socket.stream.write_all(lines.as_bytes())?;
        for _ in numbers {
            reply(&mut socket)?;
        }
    }
    drop((socket, server)); // killed
    let begun = Instant::now();
    let server = start(bench, directory.path(), "process")?;
    let took = begun.elapsed();
    let kept = messages(&mut server.socket()?)?;
    if kept != count as u64 {
        bail!("{kept} of {count} messages were read back");
    }
    Ok(took.as_secs_f64())
}

/// Number of kept messages, from the server's `status`.
fn messages(socket: &mut Socket) -> Result<u64> {
    socket.stream.write_all(b"{\"op\":\"status\"}\n")?;
    let mut reply = String::new();
    socket.replies.read_line(&mut reply)?;
    let status: serde_json::Value = serde_json::from_str(&reply)?;
    let kept = status["hub"]["messages"].as_u64();
    kept.with_context(|| format!("no status: {reply:?}"))
}

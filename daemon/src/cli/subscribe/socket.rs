//! Receives messages over the Unix socket.

use std::{convert::Infallible, io, path::Path};

use anyhow::{Context, anyhow};
use comet_proto::{Cursor, Since, line::ErrorCode};
use nix::errno::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::printer::{ConnectionEnd, Printer};

/// A line after the subscription: a message, a gap, or the request to come back later.
#[derive(Deserialize)]
struct SubscriptionLine {
    #[serde(default)]
    id: u64,
    #[serde(default)]
    gap: bool,
    #[serde(default)]
    cursor: String,
    #[serde(default)]
    retry: Option<u64>,
}

/// One connection, until it ends.
pub(super) async fn run(path: &Path, printer: &mut Printer) -> Result<Infallible, ConnectionEnd> {
    let connected = UnixStream::connect(path).await;
    let mut stream = BufReader::new(connected.map_err(|error| cannot_connect(path, &error))?);
    if printer.cursor.is_none() {
        // The subscription begins now. So messages that are published during a lost connection belong to it.
        let status = ask(&mut stream, &json!({"op": "status"})).await?;
        let last = status["hub"]["last_id"].as_u64();
        printer.cursor = last.map(|last| Since::Id(Cursor(last)));
    }
    let names: Vec<&str> = printer.channels.iter().map(|name| name.as_str()).collect();
    let since = printer.cursor.map(|cursor| cursor.to_string());
    ask(
        &mut stream,
        &json!({"op": "subscribe", "channels": names, "since": since}),
    )
    .await?;
    printer.connected = true;
    loop {
        let line = read_line(&mut stream).await?;
        let fields: SubscriptionLine =
            serde_json::from_slice(&line).map_err(ConnectionEnd::lost)?;
        if let Some(retry) = fields.retry {
            return Err(printer.leave(retry));
        }
        if fields.gap {
            printer.gap(&fields.cursor);
            printer.cursor = Since::parse(&fields.cursor).ok().or(printer.cursor);
        } else {
            printer.message(&line, fields.id)?;
        }
    }
}

/// The publishing client's error, which says how to get access to the socket.
fn cannot_connect(path: &Path, error: &io::Error) -> ConnectionEnd {
    let source = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let path = path.to_owned();
    // Only its text: anyhow would print the cause again, which the text already has.
    ConnectionEnd::Lost(anyhow!("{}", comet_client::Error::Connect { path, source }))
}

/// Sends a request and returns the daemon's reply to it.
async fn ask(stream: &mut BufReader<UnixStream>, request: &Value) -> Result<Value, ConnectionEnd> {
    // A daemon that refuses the connection writes an error and closes it. Then writing fails, but the error can still be read.
    let _ = stream.write_all(format!("{request}\n").as_bytes()).await;
    let line = read_line(stream).await?;
    let reply: Value = serde_json::from_slice(&line).map_err(ConnectionEnd::lost)?;
    if reply["ok"] == Value::Bool(true) {
        return Ok(reply);
    }
    let error = anyhow!(
        "the daemon refused: {}",
        reply["message"].as_str().unwrap_or("no reason given")
    );
    // Only the error "too many connections" goes away by itself.
    let code = ErrorCode::parse(reply["error"].as_str().unwrap_or_default());
    Err(if code == ErrorCode::Connections {
        ConnectionEnd::Lost(error)
    } else {
        ConnectionEnd::Final(error)
    })
}

/// The next line, without its line end.
async fn read_line(stream: &mut BufReader<UnixStream>) -> Result<Vec<u8>, ConnectionEnd> {
    let mut line = Vec::new();
    let read = stream.read_until(b'\n', &mut line).await;
    read.context("connection lost")
        .map_err(ConnectionEnd::Lost)?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ => Err(ConnectionEnd::Lost(anyhow!(
            "the daemon closed the connection"
        ))),
    }
}

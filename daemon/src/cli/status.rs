//! `comet status`: prints the daemon's figures, for people and for programs.

use std::fmt::Write;

use anyhow::{Context, anyhow, bail};
use comet_client::Error;
use serde_json::{Map, Value};

use super::{
    daemon::{SocketArgument, client},
    output::{print, visible},
};

/// Show the state of the daemon
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  comet status
  comet status --json | jq .hub.messages")]
pub(super) struct Arguments {
    /// Print the daemon's answer unchanged: one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgument,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let reply = client(arguments.socket)
        .request(r#"{"op":"status"}"#)
        .map_err(|error| anyhow!("cannot ask the daemon: {}", why(&error)))?;
    let mut fields: Map<String, Value> =
        serde_json::from_str(&reply).context("the answer does not come from a Comet daemon")?;
    if fields.remove("ok") != Some(Value::Bool(true)) {
        let message = fields.get("message").and_then(Value::as_str);
        bail!("the daemon refused: {}", message.unwrap_or(&reply));
    }
    if arguments.json {
        print(format!("{}\n", visible(&reply)).as_bytes())
    } else {
        print(visible(&readable(&fields)).as_bytes())
    }
}

/// The text of a client's error. The client's own texts speak of published messages, but this command publishes none.
fn why(error: &Error) -> String {
    match error {
        Error::Timeout { after, .. } => format!(
            "no answer within {} s; the daemon is stuck or overloaded, see its log",
            after.as_secs()
        ),
        Error::Unknown { .. } => "the daemon closed the connection without an answer".into(),
        other => other.to_string(),
    }
}

/// One line for each figure, grouped by part. Shows every field of the answer, so new figures need no change here.
fn readable(fields: &Map<String, Value>) -> String {
    let mut text = String::new();
    let (parts, figures): (Vec<_>, Vec<_>) =
        fields.iter().partition(|(_, value)| value.is_object());
    for (name, value) in figures {
        figure("", name, value, &mut text);
    }
    for (name, part) in parts {
        text += &format!("{name}\n");
        for (name, value) in part.as_object().into_iter().flatten() {
            figure("  ", name, value, &mut text);
        }
    }
    text
}

fn figure(indent: &str, name: &str, value: &Value, text: &mut String) {
    let label = format!("{indent}{}", name.replace('_', " "));
    let value = match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        Value::Number(bytes) if name.ends_with("bytes") => size(bytes.as_u64().unwrap_or_default()),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(&format!(
                "
{:28}",
                ""
            ))
        }
        other => other.to_string(),
    };
    writeln!(text, "{label:<28}{value}").expect("writing to a String cannot fail");
}

/// A number of bytes in the largest fitting unit.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_for_people() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(super::size(bytes), shown);
        }
    }

    #[test]
    fn shows_every_figure() {
        let fields = serde_json::json!({
            "version": "1.2.3",
            "hub": {"last_id": 7, "messages": 2},
            "uptime_seconds": 5,
        });
        assert_eq!(
            super::readable(fields.as_object().unwrap()),
            "uptime seconds              5\n\
             version                     1.2.3\n\
             hub\n  \
               last id                   7\n  \
               messages                  2\n"
        );
    }
}

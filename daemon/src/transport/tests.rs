//! Checks the bytes of every format on every occasion: they are the contract with clients.

use std::{fmt::Write, sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, EventName, Message, Since};

use super::{
    End, Form, Format, Kind, Shape, Status,
    iframe::{Callback, Iframe},
    longpoll::LongPoll,
    sse::Sse,
    websocket::WebSocket,
    write_script_safe,
};
use crate::{
    compat::{novcomet, zeitoun},
    hub::{Backlog, HistoryConfig, Hub},
};

const HEARTBEAT: Duration = Duration::from_secs(15);

/// The backlog of channel `a` with these messages.
fn backlog(ids: &[u64], gap: bool) -> Backlog {
    let message = |id: &u64| {
        Arc::new(Message {
            channels: ChannelName::parse("a").unwrap().into(),
            id: *id,
            name: EventName::parse("n").unwrap(),
            data: b"<\xc3\xa9>"[..].into(),
            attributes: None,
        })
    };
    Backlog {
        messages: ids.iter().map(message).collect(),
        gap,
        cursor: Cursor(ids.last().copied().unwrap_or(3_000_000)),
        ..Backlog::default()
    }
}

/// Adds one line: the occasion, the status if there is one, and the bytes.
fn line(text: &mut String, name: &str, write: impl FnOnce(&mut Vec<u8>) -> Option<Status>) {
    let mut out = Vec::new();
    let status = write(&mut out);
    let status = status.map_or(String::new(), |status| format!(" {status:?}"));
    let bytes = out.escape_ascii().to_string();
    let bytes = bytes
        .replace("\\\"", "\"")
        .replace(&" ".repeat(1024), "[padding]");
    writeln!(text, "{}", format!("{name}{status}: {bytes}").trim_end()).unwrap();
}

/// What the format writes on every occasion.
fn rendered(name: &str, format: &dyn Format) -> String {
    let mut text = format!("== {name}\n");
    let (cursor, retry) = (Cursor(9), Duration::from_secs(2));
    let none = backlog(&[], false);
    let message = backlog(&[1_000_001], false);
    let gap = backlog(&[], true);
    let both = backlog(&[1_000_001], true);
    line(&mut text, "headers", |out| {
        format.headers(cursor, &message.messages, &mut |name, value| {
            out.extend_from_slice(format!("{name}: ").as_bytes());
            out.extend_from_slice(value);
            out.push(b'\n');
        });
        None
    });
    line(&mut text, "opening", |out| {
        format.opening(cursor, out);
        None
    });
    let news = [
        ("message", &message),
        ("gap", &gap),
        ("gap and message", &both),
    ];
    for (name, backlog) in news {
        line(&mut text, &format!("news {name}"), |out| {
            format.news(backlog, out);
            None
        });
    }
    line(&mut text, "nothing", |out| {
        Some(format.nothing(cursor, out))
    });
    let mut end = |name: &str, end: End<'_>| {
        line(&mut text, name, |out| Some(format.end(&end, out)));
    };
    for (name, backlog) in [("none", &none)].into_iter().chain(news) {
        end(
            &format!("reconnect {name}"),
            End::Reconnect { backlog, retry },
        );
        end(&format!("half closed {name}"), End::HalfClosed { backlog });
    }
    end("expired", End::Expired { cursor });
    text
}

/// All formats but the clock, whose bytes depend on the time.
fn formats() -> Vec<(&'static str, Box<dyn Format>)> {
    let hub = Hub::new(HistoryConfig::default(), 1);
    let [a, b] = ["a", "b"].map(|name| ChannelName::parse(name).unwrap());
    let now = Since::Id(Cursor(0));
    let chat = zeitoun::chat::poll(&hub, &a, now, None).err().unwrap();
    let seen = [(a, Cursor(0)), (b, Cursor(0))];
    let novcomet = novcomet::poll::poll(&hub, seen.into(), None).err().unwrap();
    let iframe = Iframe {
        callback: Callback::parse("comet.show").unwrap(),
        heartbeat: HEARTBEAT,
    };
    let sse = Sse {
        heartbeat: HEARTBEAT,
    };
    let websocket = WebSocket {
        heartbeat: HEARTBEAT,
    };
    vec![
        ("longpoll", Box::new(LongPoll)),
        ("sse", Box::new(sse)),
        ("iframe", Box::new(iframe)),
        ("websocket", Box::new(websocket)),
        ("novcomet", novcomet.format),
        ("chat", chat.format),
    ]
}

#[test]
fn every_format_writes_the_known_bytes() {
    let formats = formats();
    let texts = formats
        .iter()
        .map(|(name, format)| rendered(name, &**format));
    let found = texts.collect::<Vec<_>>().join("\n");
    for (found, known) in found.lines().zip(include_str!("tests/bytes.txt").lines()) {
        assert_eq!(found, known);
    }
    assert_eq!(found, include_str!("tests/bytes.txt"));
}

#[test]
fn the_kinds_are_those_of_the_protocols() {
    let poll = Kind {
        shape: Shape::Poll,
        postpones_gap: false,
        form: None,
    };
    let stream = Kind {
        shape: Shape::Stream {
            heartbeat: HEARTBEAT,
        },
        ..poll
    };
    let known = [
        Kind {
            form: Some(Form::LongPoll),
            ..poll
        },
        Kind {
            form: Some(Form::Sse),
            ..stream
        },
        stream,
        Kind {
            form: Some(Form::WebSocket),
            ..stream
        },
        Kind {
            form: Some(Form::NovComet),
            ..poll
        },
        Kind {
            form: Some(Form::Chat),
            postpones_gap: true,
            ..poll
        },
    ];
    let found: Vec<Kind> = formats().iter().map(|(_, format)| format.kind()).collect();
    assert_eq!(found, known);
}

#[test]
fn script_safe_json_is_the_same_json() {
    let json = "\"</script><!-- \u{2028}\u{2029} é\"";
    let mut out = Vec::new();
    write_script_safe(json.as_bytes(), &mut out);
    assert!(!out.contains(&b'<') && !out.windows(2).any(|w| w == [0xe2, 0x80]));
    let (before, after): (String, String) = (
        serde_json::from_str(json).unwrap(),
        serde_json::from_slice(&out).unwrap(),
    );
    assert_eq!(before, after);
}

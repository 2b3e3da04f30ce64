//! The pages of comet-server.ru: their URL, their commands, and the messages to them.

use serde_json::Value;

use crate::{
    compat::comet_server::websocket::{
        command::{Command, MAX_PIPES, PipeList},
        envelope::{Data, Envelope, Form},
        url::PageUrl,
    },
    session::dialect::Frames,
};

/// The input is the text of a page: its URL, its command, and what other pages get.
pub(super) fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    check_url(text);
    check_command(text);
    for form in [Form::Old, Form::Current] {
        check_message(form, text);
    }
}

/// An accepted URL, written in the usual way, means the same.
fn check_url(text: &str) {
    let Ok(url) = PageUrl::parse(text) else {
        return;
    };
    assert!(url.key.len() <= 600 && url.uuid.len() <= 64 && url.site.len() <= 9);
    let user = url
        .user
        .map_or("undefined".to_owned(), |user| user.to_string());
    let version = match url.form {
        Form::Old => "3.25",
        Form::Current => "4.08",
    };
    let (key, site, uuid) = (url.key, url.site, url.uuid);
    let again = format!("sesion={key}&myid={user}&devid={site}&v={version}&uuid={uuid}&api=js");
    assert_eq!(PageUrl::parse(&again), Ok(url));
}

/// An accepted command, written in the usual way, means the same. A refusal is a short text.
fn check_command(text: &str) {
    let command = match Command::parse(text) {
        Ok(Command::Subscribe(list)) => {
            assert!(list.pipes.len() <= MAX_PIPES);
            let pipes = list.pipes;
            Command::Subscribe(PipeList {
                pipes,
                ..PipeList::default()
            })
        }
        Ok(command) => command,
        Err(error) => {
            assert!(error.to_string().len() < 300, "{error}");
            return;
        }
    };
    assert_eq!(Command::parse(&written(&command)), Ok(command));
}

fn written(command: &Command<'_>) -> String {
    match command {
        Command::Subscribe(list) => {
            let pipes: Vec<&str> = list.pipes.iter().map(|pipe| pipe.as_str()).collect();
            format!("subscription\n{}", pipes.join("\n"))
        }
        Command::Publish(message) => {
            let sign = if message.is_signed { "" } else { "@" };
            let (pipe, event, payload) = (&message.pipe, message.event, message.payload);
            format!("web_pipe2\n{sign}{pipe}\n{event}\n*\n{payload}")
        }
        Command::Log { pipe } => format!("pipe_log\n{pipe}\n1\n"),
        Command::Count { pipe, marker } => format!("pipe_count\n{pipe}\n{marker}\n"),
        Command::Members { pipe, marker } => format!("track_pipe_users\n{pipe}\n{marker}"),
        Command::UserData { marker, user } => format!("user_data\n{marker}\n{user}"),
        Command::UserStatus(user) => format!("user_status\n{user}"),
        Command::Statistics => "statistics".into(),
    }
}

/// Any text arrives unchanged in a script that replaces `\'` before it parses a line of JSON.
fn check_message(form: Form, text: &str) {
    let message = Envelope {
        data: Data::Text(text),
        event: text,
        pipe: "web_x",
        ..Envelope::default()
    };
    let mut out = Frames::default();
    form.write(message, &mut out);
    let frame = out.into_bytes();
    let length = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let line = str::from_utf8(&frame[length..]).expect("text");
    assert!(
        !line.contains(['\n', '\'', '\u{2028}', '\u{2029}']),
        "{line}"
    );
    let seen: Value = serde_json::from_str(&line.replace("\\'", "'")).expect("JSON");
    assert!(seen["data"] == text && seen["event"] == text && seen["pipe"] == "web_x");
}

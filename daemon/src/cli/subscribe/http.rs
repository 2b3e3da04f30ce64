//! Receives messages over HTTP, by long-polling on one keep-alive connection.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use comet_proto::Since;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, Uri, body::Incoming, client::conn::http1, header::HeaderValue};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::printer::{ConnectionEnd, FIRST_PAUSE, LONGEST_PAUSE, Printer};

/// How long the daemon holds a poll, in seconds.
const WAIT: u64 = 25;

/// When an answer takes this much longer than `WAIT`, the connection counts as broken.
const GRACE: Duration = Duration::from_secs(15);

/// An answer without a message in less than this time is followed by a pause, so that polls never repeat without one.
const AT_ONCE: Duration = Duration::from_secs(1);

/// `http://HOST[:PORT][/PREFIX]`
#[derive(Debug, Clone)]
pub(in crate::cli) struct Url {
    host: String,
    port: u16,
    /// The value of the Host header.
    authority: String,
    /// The path before `/ch/`, without a slash at its end.
    prefix: String,
}

/// The value of the `Authorization` header.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Token(HeaderValue);

/// Parses a token. The daemon checks whether it is valid.
pub(in crate::cli) fn parse_token(text: &str) -> Result<Token, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| {
        "a token (--token or COMET_TOKEN) may not contain line ends or control characters"
            .to_owned()
    })?;
    value.set_sensitive(true);
    Ok(Token(value))
}

/// The daemon's URL, and the token for it.
pub(super) struct Server {
    pub(super) url: Url,
    pub(super) token: Option<Token>,
}

/// Parses the daemon's URL.
pub(in crate::cli) fn parse_url(text: &str) -> Result<Url, String> {
    let rule = "a URL is http://HOST[:PORT][/PREFIX], such as http://127.0.0.1:2061";
    let uri: Uri = text.parse().map_err(|_| rule.to_owned())?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(format!("https is not supported: {rule}")),
        _ => return Err(rule.into()),
    }
    let authority = uri.authority().ok_or(rule)?;
    if authority.as_str().contains('@') || uri.query().is_some() || authority.host().is_empty() {
        return Err(rule.into());
    }
    Ok(Url {
        host: authority.host().trim_matches(['[', ']']).into(),
        port: authority.port_u16().unwrap_or(80),
        authority: authority.as_str().into(),
        prefix: uri.path().trim_end_matches('/').into(),
    })
}

/// The body of an answer to a poll.
#[derive(Deserialize)]
struct PollAnswer {
    cursor: String,
    gap: bool,
    messages: Vec<ReceivedMessage>,
    #[serde(default)]
    retry: Option<u64>,
}

/// A message, with its fields in the order of docs/protocol.md.
#[derive(Deserialize, Serialize)]
struct ReceivedMessage {
    channel: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    channels: Vec<String>,
    id: u64,
    name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    data: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
}

/// The body of an error.
#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

type Sender = http1::SendRequest<Empty<Bytes>>;

/// One connection, until it ends.
pub(super) async fn run(
    server: &Server,
    printer: &mut Printer,
) -> Result<Infallible, ConnectionEnd> {
    let mut sender = connect(&server.url).await.map_err(ConnectionEnd::Lost)?;
    let mut pause = FIRST_PAUSE;
    loop {
        let (asked, waits) = (Instant::now(), printer.cursor.is_some());
        let answer = poll(&mut sender, server, printer).await?;
        printer.connected = true;
        if answer.gap {
            // Up to the messages that follow: those are not missing.
            let first = answer.messages.first();
            let before = first.map(|first| first.id.saturating_sub(1).to_string());
            printer.gap(before.as_ref().unwrap_or(&answer.cursor));
        }
        let is_empty = answer.messages.is_empty();
        for message in answer.messages {
            let json = serde_json::to_vec(&message).map_err(ConnectionEnd::lost)?;
            printer.message(&json, message.id)?;
        }
        printer.cursor = Some(Since::parse(&answer.cursor).map_err(ConnectionEnd::lost)?);
        if let Some(retry) = answer.retry {
            return Err(printer.leave(retry));
        }
        // Whatever the reason is, a gap as well: who answers at once without a message is not asked without a pause.
        if waits && is_empty && asked.elapsed() < AT_ONCE {
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        } else {
            pause = FIRST_PAUSE;
        }
    }
}

async fn connect(url: &Url) -> anyhow::Result<Sender> {
    let failed = || format!("cannot connect to {} (does the daemon run?)", url.authority);
    let connecting = TcpStream::connect((url.host.as_str(), url.port));
    let stream = timeout(GRACE, connecting)
        .await
        .with_context(failed)?
        .with_context(failed)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .with_context(failed)?;
    tokio::spawn(connection); // the sender reports how it ends
    Ok(sender)
}

async fn poll(
    sender: &mut Sender,
    server: &Server,
    printer: &Printer,
) -> Result<PollAnswer, ConnectionEnd> {
    let url = &server.url;
    let names: Vec<&str> = printer.channels.iter().map(|name| name.as_str()).collect();
    let question = match printer.cursor {
        Some(cursor) => format!("since={cursor}&wait={WAIT}"),
        None => "wait=0".into(), // returns the present cursor at once: if a waiting poll were lost, its starting point would be lost, too
    };
    let mut request = Request::get(format!("{}/ch/{}?{question}", url.prefix, names.join(",")))
        .header("Host", &url.authority)
        .header("Accept", "application/json");
    if let Some(token) = &server.token {
        request = request.header("Authorization", &token.0);
    }
    let request = request
        .body(Empty::new())
        .map_err(|error| ConnectionEnd::Final(error.into()))?;
    let exchange = async {
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok::<_, hyper::Error>((status, body(answer.into_body()).await?))
    };
    let late = Duration::from_secs(WAIT) + GRACE;
    let exchanged = timeout(late, exchange)
        .await
        .context("the daemon does not answer");
    let exchanged = exchanged
        .map_err(ConnectionEnd::Lost)?
        .context("connection lost");
    let (status, body) = exchanged.map_err(ConnectionEnd::Lost)?;
    if status != StatusCode::OK {
        return Err(refused(status, &body));
    }
    let answer = serde_json::from_slice(&body);
    answer
        .context("the answer does not come from a Comet daemon")
        .map_err(ConnectionEnd::Final)
}

async fn body(incoming: Incoming) -> hyper::Result<Bytes> {
    Ok(incoming.collect().await?.to_bytes())
}

fn refused(status: StatusCode, body: &[u8]) -> ConnectionEnd {
    let reason = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => "no reason given".into(),
    };
    let error = anyhow!("the server answers {status}: {reason}");
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
    if passes {
        ConnectionEnd::Lost(error)
    } else {
        ConnectionEnd::Final(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let url = parse_url("http://[::1]:2061/comet/").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 2061));
        assert_eq!(
            (url.authority.as_str(), url.prefix.as_str()),
            ("[::1]:2061", "/comet")
        );
        assert_eq!(parse_url("http://example.org").unwrap().port, 80);
        for wrong in [
            "",
            "example.org",
            "https://example.org",
            "ftp://x",
            "http://",
            "http://a@b",
            "http://a/?x",
        ] {
            assert!(
                parse_url(wrong).unwrap_err().contains("http://HOST"),
                "{wrong:?}"
            );
        }
    }
}

//! The facts of channels, as the publisher's path and the statistics give them.

use std::{collections::BTreeMap, fs, process, sync::OnceLock, time::Instant};

use comet_proto::{ChannelName, Cursor};
use hyper::StatusCode;
use serde_json::json;

use super::{
    path::{self, StatisticsOf},
    publisher::unknown,
};
use crate::{
    access::Caller,
    compat::{http_push, names},
    http::{answer::Answer, date::unix_time, refusal::Refusal, request::Request, route::Route},
    hub::{ChannelFacts, Hub},
};

/// At most so many channels are listed, because a list of all channels could be larger than the memory.
const MAX_LISTED: usize = 10_000;

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InfoFormat {
    Json,
    Plain,
}

impl InfoFormat {
    /// The format that the header `Accept` names first.
    pub(super) fn of(request: &Request<'_>) -> Self {
        let subtype = |range: &str| {
            let (_, subtype) = range.split_once('/')?;
            match subtype.split(';').next()?.trim() {
                "json" | "x-json" => Some(Self::Json),
                "plain" => Some(Self::Plain),
                _ => None,
            }
        };
        request
            .list("accept")
            .find_map(subtype)
            .unwrap_or(Self::Json)
    }

    fn answer(self, text: String) -> Answer {
        let media_type = match self {
            Self::Json => "application/json",
            Self::Plain => "text/plain",
        };
        Answer::new(StatusCode::OK, media_type, text)
    }
}

/// The facts of one channel, or a list with the facts of several. `None`: none of the channels has a message or a subscriber.
pub(super) fn of_channels(
    hub: &Hub,
    channels: &[ChannelName],
    format: InfoFormat,
) -> Option<Answer> {
    let facts = channels
        .iter()
        .filter_map(|channel| Some((channel.clone(), hub.channel_facts(channel)?)));
    let facts: Vec<_> = facts.collect();
    Some(match &facts[..] {
        [] => return None,
        [(channel, facts)] => format.answer(of_channel(channel, facts, format) + "\r\n"),
        _ => format.answer(list(hub, &facts, format)),
    })
}

/// Answers a request for statistics. Channels that the caller may not read are left out.
pub(super) fn statistics(
    caller: &Caller<'_>,
    hub: &Hub,
    channels: &[u8],
) -> Result<Route, Refusal> {
    let format = InfoFormat::of(caller.request);
    let answer = match path::statistics(channels)? {
        StatisticsOf::Summary => format.answer(summary(caller, hub, format)),
        StatisticsOf::Channels(channels) => {
            caller.may_read(&channels)?;
            of_channels(hub, &channels, format).ok_or_else(unknown)?
        }
        StatisticsOf::Prefix(prefix) => {
            let facts = hub.facts_of_channels(MAX_LISTED, |channel| {
                !channel.is_internal() && names::foreign_of(channel).starts_with(&prefix)
            });
            let mut facts: BTreeMap<_, _> = facts.into_iter().collect();
            caller.keep_readable(&mut facts);
            let facts: Vec<_> = facts.into_iter().collect();
            format.answer(list(hub, &facts, format))
        }
    };
    Ok(Route::Answer(answer))
}

fn of_channel(channel: &ChannelName, facts: &ChannelFacts, format: InfoFormat) -> String {
    let name = names::foreign_of(channel);
    let name = String::from_utf8_lossy(&name);
    let ChannelFacts {
        subscribers,
        published,
        messages,
        ..
    } = facts;
    match format {
        InfoFormat::Json => format!(
            "{{\"channel\": {}, \"published_messages\": {published}, \"stored_messages\": {messages}, \"subscribers\": {subscribers}}}",
            json!(name)
        ),
        InfoFormat::Plain => format!(
            "channel: {}\r\npublished_messages: {published}\r\nstored_messages: {messages}\r\nactive_subscribers: {subscribers}",
            name.replace(['\r', '\n'], " ")
        ),
    }
}

fn list(hub: &Hub, facts: &[(ChannelName, ChannelFacts)], format: InfoFormat) -> String {
    let (host, time, uptime) = (hostname(), time(), uptime());
    let channels = hub.status().channels;
    let infos = facts
        .iter()
        .map(|(channel, facts)| of_channel(channel, facts, format));
    let infos = infos.collect::<Vec<_>>().join(",\r\n");
    match format {
        InfoFormat::Json => format!(
            "{{\"hostname\": {}, \"time\": \"{time}\", \"channels\": {channels}, \"wildcard_channels\": 0, \"uptime\": {uptime}, \"infos\": [\r\n{infos}\r\n]}}\r\n",
            json!(host)
        ),
        InfoFormat::Plain => format!(
            "hostname: {host}, time: {time}, channels: {channels}, wildcard_channels: 0, uptime: {uptime}, infos: \r\n{infos}\r\n"
        ),
    }
}

/// The figures of all channels together. The daemon is one worker. It removes messages and channels at once.
fn summary(caller: &Caller<'_>, hub: &Hub, format: InfoFormat) -> String {
    let (status, subscribers) = (hub.status(), caller.site.metrics.subscribers.get());
    let (host, uptime, pid) = (hostname(), uptime().to_string(), process::id());
    let figures = [
        ("channels", status.channels.to_string()),
        ("wildcard_channels", "0".to_owned()),
        ("published_messages", status.published.to_string()),
        ("stored_messages", status.messages.to_string()),
        ("messages_in_trash", "0".to_owned()),
        ("channels_in_delete", "0".to_owned()),
        ("channels_in_trash", "0".to_owned()),
        ("subscribers", subscribers.to_string()),
        ("uptime", uptime.clone()),
    ];
    let figures = figures.iter();
    match format {
        InfoFormat::Json => {
            let figures = figures.map(|(name, figure)| format!("\"{name}\": {figure}, "));
            format!(
                "{{\"hostname\": {}, \"time\": \"{}\", {}\"by_worker\": [\r\n{{\"pid\": \"{pid}\", \"subscribers\": {subscribers}, \"uptime\": {uptime}}}\r\n]}}\r\n",
                json!(host),
                time(),
                figures.collect::<String>(),
            )
        }
        InfoFormat::Plain => {
            let figures = figures.map(|(name, figure)| format!("{name}: {figure}\r\n"));
            format!(
                "hostname: {host}\r\ntime: {}\r\n{}by_worker:\r\n  pid: {pid}\r\n  subscribers: {subscribers}\r\n  uptime: {uptime}\r\n",
                time(),
                figures.collect::<String>(),
            )
        }
    }
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The current time as `2026-09-20T13:50:45`.
fn time() -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let micros = u64::try_from(unix_time().as_micros()).unwrap_or(u64::MAX);
    let date = http_push::date(Cursor(micros)); // Sun, 20 Sep 2026 13:50:45 GMT
    let words: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, time, _] = words[..] else {
        return date;
    };
    let month = MONTHS.find(month).unwrap_or_default() / 3 + 1;
    format!("{year}-{month:02}-{day}T{time}")
}

/// The seconds since the first call. [`PushStream::new`](super::PushStream::new) makes this call when the daemon starts.
pub(super) fn uptime() -> u64 {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    STARTED.get_or_init(Instant::now).elapsed().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_has_the_form_of_the_original_server() {
        let time = time();
        assert_eq!(time.len(), 19, "{time}");
        let (date, clock) = time.split_once('T').unwrap();
        assert_eq!(date.split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2]);
        assert_eq!(clock.split(':').count(), 3);
    }
}

//! The requests of NovComet's page, and the answers to its polls.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, Message, Since};

use crate::{
    hub::{Backlog, Hub},
    transport::{AddHeader, End, Form, Format, Kind, Shape, Status, Subscription},
};

/// The time after which the old server answered a poll without a change: ten checks, two seconds apart.
const WAIT: Duration = Duration::from_secs(20);

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NovCometRequest {
    /// `publish=ID`; an invalid id is refused with `false`.
    Publish(Option<ChannelName>),
    /// `subscribed[ID]=TIME`, … Ids that are not channel names never change.
    Subscribe(BTreeMap<ChannelName, Cursor>),
}

impl NovCometRequest {
    /// Reads the decoded pairs of the query. A `publish` that is not empty takes precedence. If an id is given twice, the last
    /// value counts.
    pub(crate) fn parse<'a>(
        pairs: impl Iterator<Item = (impl AsRef<str> + 'a, impl AsRef<str> + 'a)>,
    ) -> Self {
        let mut subscribed = BTreeMap::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            if name == "publish" && !value.is_empty() {
                return Self::Publish(ChannelName::parse(value).ok());
            }
            let id = name
                .strip_prefix("subscribed[")
                .and_then(|rest| rest.split_once(']'));
            if let Some(channel) = id.and_then(|(id, _)| ChannelName::parse(id).ok())
                && (subscribed.len() < comet_proto::MAX_CHANNELS
                    || subscribed.contains_key(&channel))
            {
                subscribed.insert(channel, time(value));
            }
        }
        Self::Subscribe(subscribed)
    }
}

/// An immediate answer, or a subscription to wait for. Messages that are older than `oldest` may not be read: they count as a
/// change, but the answer does not contain their times.
pub(crate) fn poll(
    hub: &Hub,
    subscribed: BTreeMap<ChannelName, Cursor>,
    oldest: Option<Duration>,
) -> Result<Vec<u8>, Subscription> {
    // Taken before the checks below, so that the subscription also finds messages that are published during the checks.
    let now = hub.last();
    let mut changed = Vec::new();
    for (channel, seen) in &subscribed {
        // 0 means now, and so does a time in the future.
        if seen.0 == 0 || *seen >= now {
            continue;
        }
        let of = std::slice::from_ref(channel);
        let seen = hub.resolve(Since::Time(seen.0));
        let withheld = oldest.and_then(|age| hub.newest_older(of, seen, age));
        let backlog = hub.since(of, withheld.unwrap_or(seen));
        match backlog.messages.last() {
            Some(last) => changed.push((channel, last.id)),
            None if backlog.gap || withheld.is_some() => changed.push((channel, now.0)),
            None => {}
        }
    }
    if changed.is_empty() {
        let channels: Vec<ChannelName> = subscribed.into_keys().collect();
        return Err(Subscription {
            format: Box::new(Poll {
                channels: channels.clone().into(),
            }),
            channels: channels.into(),
            since: Some(now),
            wait: Some(WAIT),
            handshake: None,
            expires: None,
            gap: false,
        });
    }
    let mut out = Vec::new();
    write_changed(changed, &mut out);
    Ok(out)
}

struct Poll {
    channels: Box<[ChannelName]>,
}

impl Format for Poll {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Poll,
            postpones_gap: false,
            // With a gap the answer names this client's channels. This is possible because the hub never shares a backlog with
            // a gap.
            form: Some(Form::NovComet),
        }
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", b"application/json");
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        let mut newest: BTreeMap<&ChannelName, u64> = BTreeMap::new();
        if backlog.gap {
            newest.extend(
                self.channels
                    .iter()
                    .map(|channel| (channel, backlog.cursor.0)),
            );
        }
        for message in &backlog.messages {
            let visible = message.visible(&backlog.readable);
            newest.extend(visible.map(|channel| (channel, message.id)));
        }
        write_changed(newest, out);
    }

    fn nothing(&self, _cursor: Cursor, out: &mut Vec<u8>) -> Status {
        out.extend_from_slice(b"{\"s\":0}");
        Status::Ok
    }

    /// Always a 200 with JSON: after any other answer the page would never poll again. After the token has expired, the answer
    /// to the next poll leaves out the channels that the page may not read.
    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, .. } | End::HalfClosed { backlog } if backlog.is_news() => {
                self.news(backlog, out);
                Status::Ok
            }
            _ => self.nothing(end.cursor(), out),
        }
    }
}

fn write_changed<'a>(changed: impl IntoIterator<Item = (&'a ChannelName, u64)>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"s\":1,\"k\":{");
    for (i, (channel, id)) in changed.into_iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let (seconds, micros) = (id / 1_000_000, id % 1_000_000);
        // A channel name contains no character that JSON escapes.
        out.extend_from_slice(format!("{comma}\"{channel}\":{seconds}.{micros:06}").as_bytes());
    }
    out.extend_from_slice(b"}}");
}

/// Parses seconds with up to six decimals, from an answer of this server or from the browser's clock. Any other text counts
/// as 0.
fn time(text: &str) -> Cursor {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (Ok(seconds), true) = (seconds.parse::<u64>(), digits(seconds) && digits(fraction)) else {
        return Cursor(0);
    };
    let micros = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |micros, digit| micros * 10 + u64::from(digit - b'0'));
    Cursor(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> NovCometRequest {
        NovCometRequest::parse(form_urlencoded::parse(query.as_bytes()))
    }

    fn subscribed(pairs: &[(&str, u64)]) -> NovCometRequest {
        let pair = |&(id, time): &(&str, u64)| (ChannelName::parse(id).unwrap(), Cursor(time));
        NovCometRequest::Subscribe(pairs.iter().map(pair).collect())
    }

    #[test]
    fn reads_what_the_old_client_sends() {
        let cases = [
            (
                "&publish=customAlert",
                NovCometRequest::Publish(ChannelName::parse("customAlert").ok()),
            ),
            ("&publish=../evil", NovCometRequest::Publish(None)),
            ("publish=&subscribed[a]=1", subscribed(&[("a", 1_000_000)])),
            (
                "&subscribed[a]=5&subscribed[b]=7.000001&99",
                subscribed(&[("a", 5_000_000), ("b", 7_000_001)]),
            ),
            (
                "subscribed%5Ba%5D=5&subscribed[a]=6",
                subscribed(&[("a", 6_000_000)]),
            ),
            (
                "subscribed[a/b]=5&subscribed[]=1&subscribed[c]=-1&subscribed[d=1",
                subscribed(&[("c", 0)]),
            ),
            ("", subscribed(&[])),
        ];
        for (query, request) in cases {
            assert_eq!(parse(query), request, "{query}");
        }
    }

    #[test]
    fn times_are_seconds_with_decimals() {
        let cases = [
            ("0", 0),
            ("12", 12_000_000),
            ("12.5", 12_500_000),
            ("1.0000019", 1_000_001),
            ("x", 0),
        ];
        for (text, micros) in cases {
            assert_eq!(time(text), Cursor(micros), "{text}");
        }
        assert_eq!(time("99999999999999999999"), Cursor(0));
        assert_eq!(time("18446744073709551615"), Cursor(u64::MAX));
    }
}

//! A message in the log.

use comet_proto::{Attributes, ChannelNames, EventName};

use super::fields::{BodyReader, put, put_count, put_text};

/// A message in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecord<'a> {
    /// The id.
    pub id: u64,
    /// The channels, nearly always one.
    pub channels: ChannelNames,
    /// The label.
    pub name: EventName,
    /// The idempotency key with which the message was published; empty: none.
    pub key: &'a str,
    /// Further pairs of a key and a text.
    pub attributes: Option<Box<Attributes>>,
    /// The content.
    pub data: &'a [u8],
}

impl<'a> MessageRecord<'a> {
    /// Whether the message has one channel and no attributes, as nearly all have. Then the record is of the kind that earlier
    /// versions wrote, too.
    pub(super) fn is_plain(&self) -> bool {
        self.channels.len() == 1 && self.attributes.is_none()
    }

    pub(super) fn write_plain(&self, out: &mut Vec<u8>) {
        put(out, &[self.id]);
        put_text(out, &self.channels[0]);
        put_text(out, self.name.as_str());
        put_text(out, self.key);
        out.extend_from_slice(self.data);
    }

    pub(super) fn write_full(&self, out: &mut Vec<u8>) {
        put(out, &[self.id]);
        put_count(out, self.channels.len());
        self.channels.iter().for_each(|name| put_text(out, name));
        put_text(out, self.name.as_str());
        put_text(out, self.key);
        let attributes = self.attributes.as_deref();
        put_count(
            out,
            attributes.map_or(0, |attributes| attributes.iter().len()),
        );
        for (key, value) in attributes.iter().flat_map(|attributes| attributes.iter()) {
            put_text(out, key);
            put_text(out, value);
        }
        out.extend_from_slice(self.data);
    }

    pub(super) fn read_plain(body: &mut BodyReader<'a>) -> Option<Self> {
        Some(Self {
            id: body.number()?,
            channels: body.channel()?.into(),
            name: EventName::parse(body.text()?).ok()?,
            key: body.text()?,
            attributes: None,
            data: body.rest(),
        })
    }

    /// A list that the daemon would have written in another way is damage.
    pub(super) fn read_full(body: &mut BodyReader<'a>) -> Option<Self> {
        let id = body.number()?;
        let names: Vec<&str> = (0..body.count()?)
            .map(|_| body.text())
            .collect::<Option<_>>()?;
        let channels = ChannelNames::parse(names.iter().copied()).ok()?;
        let (name, key) = (EventName::parse(body.text()?).ok()?, body.text()?);
        let pairs = (0..body.count()?).map(|_| Some((body.text()?, body.text()?)));
        let pairs: Vec<(&str, &str)> = pairs.collect::<Option<_>>()?;
        let is_as_written = channels.len() == names.len() && pairs.is_sorted();
        let attributes = Attributes::parse(&pairs).ok().filter(|_| is_as_written)?;
        Some(Self {
            id,
            channels,
            name,
            key,
            attributes,
            data: body.rest(),
        })
    }
}

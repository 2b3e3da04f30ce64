//! A message as a block of this protocol: the cursors and the limits that its publisher has chosen, and its JSON.

use comet_proto::{Attributes, AttributesError, ChannelName, Message};

use super::{
    decimal::{self, Decimal},
    identifier::Item,
    json,
};

/// The attribute with the publisher's own cursors: `CURSOR:ID,…`.
const CURSORS: &str = "realplexor-cursors";

/// The attribute with the ids to which a client must also listen: one of `ID,…`.
const LIMITS: &str = "realplexor-limits";

/// The attributes of a message with these items. Most messages have none.
pub(crate) fn attributes(items: &[Item<'_>]) -> Result<Option<Box<Attributes>>, AttributesError> {
    let targets = items.iter().filter(|item| !item.is_limit);
    let cursors = targets.filter_map(|item| Some(format!("{}:{}", item.cursor?, item.id)));
    let limits = items.iter().filter(|item| item.is_limit);
    let lists = [
        (CURSORS, cursors.collect::<Vec<_>>().join(",")),
        (
            LIMITS,
            limits.map(|item| item.id).collect::<Vec<_>>().join(","),
        ),
    ];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
    Attributes::parse(&lists.collect::<Vec<_>>())
}

fn attribute<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let mut pairs = message.attributes.as_ref()?.iter();
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// The cursor that the publisher has chosen for this id.
fn own_cursor<'a>(message: &'a Message, id: &str) -> Option<&'a str> {
    let mut cursors = attribute(message, CURSORS)?.split(',');
    cursors.find_map(|pair| {
        let (cursor, of) = pair.split_once(':')?;
        (of == id).then_some(cursor)
    })
}

/// The message's place among the messages of this id.
pub(crate) fn cursor(message: &Message, id: &str) -> Decimal {
    let own = own_cursor(message, id).and_then(Decimal::parse);
    own.unwrap_or(Decimal::Micros(message.id))
}

/// Whether the publisher has chosen a cursor or a limit. If not, every client whose cursors lie before the message gets
/// it, and its cursor is its id.
pub(crate) fn is_special(message: &Message) -> bool {
    message.attributes.is_some()
        && (attribute(message, CURSORS).is_some() || attribute(message, LIMITS).is_some())
}

/// Whether a client that listens to these ids may see the message.
pub(crate) fn is_for(message: &Message, listened: &[ChannelName]) -> bool {
    let Some(limits) = attribute(message, LIMITS) else {
        return true;
    };
    let is_listened = |limit: &str| listened.iter().any(|id| id.as_str() == limit);
    limits.split(',').any(is_listened)
}

/// Appends one element of the reply: the ids under which the client gets the message, in the order of their names, and the
/// data.
fn write<'a>(message: &Message, ids: impl IntoIterator<Item = &'a ChannelName>, out: &mut Vec<u8>) {
    let mut ids: Vec<&str> = ids.into_iter().map(ChannelName::as_str).collect();
    ids.sort_unstable();
    let cursor = |id| {
        let own = own_cursor(message, id).map(str::to_owned);
        own.unwrap_or_else(|| decimal::seconds(message.id))
    };
    // Ids and cursors have no character that JSON escapes.
    let ids = ids.iter().map(|id| format!("\"{id}\": \"{}\"", cursor(id)));
    let ids: Vec<String> = ids.collect();
    out.extend_from_slice(
        format!(
            "  {{\n    \"ids\": {{ {} }},\n    \"data\":",
            ids.join(", ")
        )
        .as_bytes(),
    );
    out.push(b' ');
    let space = out.len() - 1;
    json::write(&message.data, out);
    if out[space..].contains(&b'\n') {
        out[space] = b'\n';
    }
    out.extend_from_slice(b"\n  }");
}

/// Appends the reply with these blocks, each with the ids under which the client gets it.
pub(crate) fn write_all<'a, I: IntoIterator<Item = &'a ChannelName>>(
    blocks: impl IntoIterator<Item = (&'a Message, I)>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"[\n");
    for (i, (message, ids)) in blocks.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b",\n");
        }
        write(message, ids, out);
    }
    out.extend_from_slice(b"\n]");
}

#[cfg(test)]
pub(super) mod tests {
    use comet_proto::{ChannelNames, EventName};

    use super::*;
    use crate::compat::realplexor::identifier;

    pub(crate) fn name(name: &str) -> ChannelName {
        ChannelName::parse(name).unwrap()
    }

    pub(crate) fn message(id: u64, identifier: &str, data: &str) -> Message {
        let items: Vec<_> = identifier::items(identifier.as_bytes()).collect();
        let targets = items.iter().filter(|item| !item.is_limit);
        Message {
            channels: ChannelNames::parse(targets.map(|item| item.id)).unwrap(),
            id,
            name: EventName::default(),
            data: data.as_bytes().into(),
            attributes: attributes(&items).unwrap(),
        }
    }

    fn written(message: &Message, ids: &[&str]) -> String {
        let ids: Vec<ChannelName> = ids.iter().map(|id| name(id)).collect();
        let mut out = Vec::new();
        write_all([(message, &ids)], &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn blocks_look_like_those_of_the_original_server() {
        let block = message(1_763_690_000_000_001, "15:abc,def", "\"aaa\"");
        assert_eq!(
            written(&block, &["def", "abc"]),
            "[\n  {\n    \"ids\": { \"abc\": \"15\", \"def\": \"1763690000.000001\" },\n    \"data\": \"aaa\"\n  }\n]"
        );
        let block = message(7, "abc", "{\n\"x\":1}");
        assert_eq!(
            written(&block, &["abc"]),
            "[\n  {\n    \"ids\": { \"abc\": \"0.000007\" },\n    \"data\":\n{\n\"x\":1}\n  }\n]"
        );
    }

    #[test]
    fn the_publishers_cursor_counts_for_its_own_id_only() {
        let block = message(5_000_000, "7.50:a,b", "1");
        assert!(is_special(&block));
        assert_eq!(cursor(&block, "a"), Decimal::parse("7.5").unwrap());
        assert_eq!(cursor(&block, "b"), Decimal::parse("5").unwrap());
        assert!(
            written(&block, &["a"]).contains("\"a\": \"7.50\""),
            "the text is kept"
        );
        assert!(!is_special(&message(5, "a,b", "1")));
    }

    #[test]
    fn a_limited_block_is_for_clients_that_listen_to_one_of_the_limits() {
        let block = message(5, "a,*u1,*u2", "1");
        assert!(is_special(&block) && block.channels.len() == 1);
        assert!(is_for(&block, &[name("a"), name("u2")]));
        assert!(!is_for(&block, &[name("a"), name("u")]));
        assert!(is_for(&message(5, "a", "1"), &[name("a")]));
    }

    #[test]
    fn attributes_of_others_change_nothing() {
        let block = Message {
            attributes: Attributes::parse(&[("id", "x")]).unwrap(),
            ..message(5, "a", "1")
        };
        assert!(!is_special(&block) && is_for(&block, &[]));
    }

    #[test]
    fn too_many_limits_are_an_error() {
        let items = "a,".to_owned() + &["*0123456789"; 250].join(",");
        let items: Vec<_> = identifier::items(items.as_bytes()).collect();
        assert!(attributes(&items).is_err());
    }
}

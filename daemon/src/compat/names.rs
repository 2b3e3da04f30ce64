//! The names of other servers' channels as channel names, and back. All protocols use these two functions, so a channel
//! has the same name whichever protocol it is used by.
//!
//! A byte that a channel name may contain stays as it is. Every other byte, each `=`, and a dot at the beginning become `=`
//! and two upper-case hexadecimal digits: `private-a,b` is the channel `private-a=2Cb`.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use comet_proto::{Attributes, ChannelName};
use ring::digest;

/// The attribute that has the foreign name of a message whose channel name is a hash.
pub(crate) const FOREIGN_NAME: &str = "foreign-name";

/// The channel with this foreign name. A name whose escaped form is longer than 200 bytes becomes `=~` and the base64url of
/// its SHA-256, 45 bytes together; such a message should have the attribute [`FOREIGN_NAME`]. `None`: the name is empty.
pub(crate) fn channel_of(foreign: &[u8]) -> Option<ChannelName> {
    if foreign.is_empty() {
        return None;
    }
    let name = match escape(foreign) {
        name if name.len() <= ChannelName::MAX_LEN => name,
        _ => hash(foreign),
    };
    Some(ChannelName::parse(&name).expect("an escaped name is a valid channel name"))
}

/// The attributes of a message to [`channel_of`] this foreign name: the name itself, if the channel is its hash.
pub(crate) fn attributes_of(channel: &ChannelName, foreign: &[u8]) -> Option<Box<Attributes>> {
    if !is_hashed(channel) {
        return None;
    }
    let foreign = String::from_utf8_lossy(foreign);
    // Without an attribute if the name is longer than an attribute can be: then only the hash is known.
    Attributes::parse(&[(FOREIGN_NAME, foreign)]).ok().flatten()
}

/// Whether the channel of this foreign name is known by a hash, which cannot be turned back into the foreign name.
pub(crate) fn is_hashed(channel: &ChannelName) -> bool {
    channel.as_str().starts_with("=~")
}

/// The foreign name of a channel. A name that [`channel_of`] cannot have made is returned as it is.
pub(crate) fn foreign_of(channel: &ChannelName) -> Cow<'_, [u8]> {
    let name = channel.as_str();
    if !name.contains('=') {
        return Cow::Borrowed(name.as_bytes());
    }
    match unescape(name) {
        Some(foreign) if escape(&foreign) == name => Cow::Owned(foreign),
        _ => Cow::Borrowed(name.as_bytes()),
    }
}

fn escape(foreign: &[u8]) -> String {
    let mut name = String::with_capacity(foreign.len());
    for (at, &byte) in foreign.iter().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"_:+@~-".contains(&byte);
        match plain || byte == b'.' && at > 0 {
            true => name.push(char::from(byte)),
            false => name.push_str(&format!("={byte:02X}")),
        }
    }
    name
}

/// The bytes of an escaped name. `None`: an `=` is not followed by two hexadecimal digits.
fn unescape(name: &str) -> Option<Vec<u8>> {
    let mut foreign = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        foreign.push(match byte {
            b'=' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            _ => byte,
        });
    }
    Some(foreign)
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

fn hash(foreign: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, foreign);
    format!("=~{}", URL_SAFE_NO_PAD.encode(digest))
}

#[cfg(test)]
mod tests {
    use std::str;

    use proptest::prelude::*;

    use super::*;

    fn channel(foreign: &str) -> String {
        channel_of(foreign.as_bytes()).unwrap().to_string()
    }

    fn foreign(channel: &str) -> String {
        let channel = ChannelName::parse(channel).unwrap();
        str::from_utf8(&foreign_of(&channel)).unwrap().to_owned()
    }

    #[test]
    fn names_of_other_servers_become_channel_names_and_come_back() {
        for (name, as_channel) in [
            ("orders", "orders"),
            ("private-a,b;c", "private-a=2Cb=3Bc"),
            ("news#42", "news=2342"),
            (
                "https://example.com/books/1",
                "https:=2F=2Fexample.com=2Fbooks=2F1",
            ),
            (".hidden.file", "=2Ehidden.file"),
            ("a=b", "a=3Db"),
            ("ж", "=D0=B6"),
        ] {
            assert_eq!(channel(name), as_channel);
            assert_eq!(foreign(as_channel), name);
        }
        assert_eq!(channel_of(b""), None);
    }

    #[test]
    fn a_channel_that_no_foreign_name_leads_to_is_given_as_it_is() {
        for name in ["a=b", "a=", "=4", "=41", "=2e", "=2C=", "a=2Ejs"] {
            assert_eq!(foreign(name), name);
        }
    }

    #[test]
    fn a_name_that_is_too_long_becomes_a_hash() {
        let longest = "/".repeat(66);
        assert_eq!(channel(&longest).len(), 198);
        let hashed = channel(&"/".repeat(67));
        assert_eq!(hashed.len(), 45);
        assert!(is_hashed(&ChannelName::parse(&hashed).unwrap()));
        assert_eq!(foreign(&hashed), hashed);
        assert_ne!(channel(&"/".repeat(68)), hashed);
        let attributes = |foreign: &str| {
            let channel = channel_of(foreign.as_bytes()).unwrap();
            let attributes = attributes_of(&channel, foreign.as_bytes());
            attributes.map(|all| all.iter().next().unwrap().1.to_owned())
        };
        assert_eq!(attributes(&longest), None);
        assert_eq!(attributes(&"/".repeat(67)), Some("/".repeat(67)));
        assert_eq!(attributes(&"/".repeat(3000)), None);
    }

    proptest! {
        #[test]
        fn the_mapping_is_reversible(
            a in prop::collection::vec(any::<u8>(), 1..80),
            b in prop::collection::vec(any::<u8>(), 1..80),
        ) {
            let (channel_a, channel_b) = (channel_of(&a).unwrap(), channel_of(&b).unwrap());
            prop_assert_eq!(channel_a == channel_b, a == b);
            if !is_hashed(&channel_a) {
                prop_assert_eq!(&*foreign_of(&channel_a), &*a);
            }
        }

        #[test]
        fn a_plain_name_stays_as_it_is(name in "[A-Za-z0-9_:+@~-][A-Za-z0-9_.:+@~-]{0,199}") {
            prop_assert_eq!(channel(&name), name.clone());
            prop_assert_eq!(foreign(&name), name);
        }
    }
}

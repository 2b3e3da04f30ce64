//! One application: its names of channels, and what its secret has signed.

use std::fmt::Write;

use comet_proto::ChannelName;
use ring::hmac;

use crate::{
    compat::names,
    config::{PusherApp, PusherConfig},
};

/// An application.
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) key: String,
    secret: hmac::Key,
    pub(crate) client_events: bool,
    /// What the names of the application's channels begin with. The first application has no prefix, so its channels are those
    /// of all other interfaces.
    prefix: String,
}

impl App {
    /// The applications of the settings.
    pub(crate) fn all(config: &PusherConfig) -> Vec<Self> {
        let apps = config.apps.iter().enumerate();
        apps.map(|(number, app)| Self::new(app, number == 0))
            .collect()
    }

    fn new(app: &PusherApp, is_first: bool) -> Self {
        let prefix = match is_first {
            true => String::new(),
            false => format!("app.{}:", app.id),
        };
        Self {
            id: app.id.clone(),
            key: app.key.clone(),
            secret: hmac::Key::new(hmac::HMAC_SHA256, app.secret.text().as_bytes()),
            client_events: app.client_events,
            prefix,
        }
    }

    /// Whether the secret has signed the text. `signature` is HMAC-SHA256 as 64 hexadecimal digits. The comparison takes the same
    /// time wherever the signatures differ.
    pub(crate) fn has_signed(&self, text: &[u8], signature: &str) -> bool {
        bytes_of_hex(signature).is_some_and(|tag| hmac::verify(&self.secret, text, &tag).is_ok())
    }

    /// Whether `auth`, the key and a signature with a colon between them, is right for the text.
    pub(crate) fn has_authorized(&self, text: &str, auth: &str) -> bool {
        let parts = auth.split_once(':');
        parts.is_some_and(|(key, signature)| {
            key == self.key && self.has_signed(text.as_bytes(), signature)
        })
    }

    /// The channel with this name in the application. `None`: the name is too long.
    pub(crate) fn channel(&self, name: &str) -> Option<ChannelName> {
        let channel = names::channel_of(name.as_bytes()).filter(|name| !names::is_hashed(name))?;
        match self.prefix.is_empty() {
            true => Some(channel),
            false => ChannelName::parse(&format!("{}{channel}", self.prefix)).ok(),
        }
    }

    /// Whether the channel belongs to the application. A name without a prefix belongs to the first one.
    pub(crate) fn owns(&self, channel: &ChannelName) -> bool {
        match self.prefix.is_empty() {
            true => !channel.as_str().contains(':'),
            false => channel.as_str().starts_with(&self.prefix),
        }
    }

    /// The internal channel for what is meant for one user of the application.
    pub(crate) fn user_channel(&self, user: &str) -> Option<ChannelName> {
        let name = self.channel(user)?;
        ChannelName::internal(&format!(".pusher.user.{name}")).ok()
    }
}

/// The name in its application of a channel. The names of Pusher have no colon, so a colon ends the application's prefix.
pub(crate) fn name_in_app(channel: &str) -> String {
    let name = channel.split_once(':').map_or(channel, |(_, name)| name);
    match ChannelName::parse(name) {
        Ok(name) => String::from_utf8_lossy(&names::foreign_of(&name)).into_owned(),
        Err(_) => name.to_owned(),
    }
}

/// The bytes of 64 hexadecimal digits.
fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes it");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn apps() -> Vec<App> {
        let text = "[compat.pusher]\n\
                    [[compat.pusher.app]]\nid = \"3\"\nkey = \"278d425bdf160c739803\"\nsecret = \"7ad3773142a6692b25b8\"\n\
                    [[compat.pusher.app]]\nid = \"4\"\nkey = \"b\"\nsecret = \"c\"\n";
        App::all(&Config::parse(text).unwrap().compat.pusher.unwrap())
    }

    /// The example of Pusher's documentation of private channels.
    #[test]
    fn a_right_is_a_signature_with_the_key_before_it() {
        let app = &apps()[0];
        let signature = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        let text = "1234.1234:private-foobar";
        let auth = format!("278d425bdf160c739803:{signature}");
        assert!(app.has_authorized(text, &auth));
        assert!(app.has_authorized(text, &auth.replace("58df8b", "58DF8B")));
        for wrong in [
            "",
            signature,
            &format!("b:{signature}"),
            &auth[..auth.len() - 1],
            &format!("{auth}0"),
            &auth.replace('5', "é"),
        ] {
            assert!(!app.has_authorized(text, wrong), "{wrong}");
        }
        assert!(!app.has_authorized("1234.1235:private-foobar", &auth));
        assert!(!apps()[1].has_authorized(text, &auth));
    }

    #[test]
    fn each_application_has_channels_of_its_own() {
        let apps = apps();
        let [first, second] = [&apps[0], &apps[1]].map(|app| app.channel("private-a,b").unwrap());
        assert_eq!(
            (first.as_str(), second.as_str()),
            ("private-a=2Cb", "app.4:private-a=2Cb")
        );
        for channel in [&first, &second] {
            assert_eq!(name_in_app(channel), "private-a,b");
        }
        let owns = |app: usize| [&first, &second].map(|channel| apps[app].owns(channel));
        assert_eq!((owns(0), owns(1)), ([true, false], [false, true]));
        assert_eq!(apps[0].channel(&"a".repeat(201)), None);
    }
}

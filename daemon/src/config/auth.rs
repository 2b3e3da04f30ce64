//! `[auth]`: the keys that sign tokens, and the claims that tokens need.

use std::{fmt, path::PathBuf, time::Duration};

use ring::digest;
use serde::{Deserialize, Deserializer, de};

use super::value;

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [auth]")]
pub struct AuthConfig {
    /// The value that the claim `aud` of a token must have.
    #[serde(deserialize_with = "not_empty")]
    pub audience: String,
    /// Whether `?token=` in a URL is accepted, too.
    pub query: bool,
    /// How old the messages may be that a client gets after a reconnect if its token grants no history.
    #[serde(deserialize_with = "value::duration::<_, 0>")]
    pub resume: Duration,
    #[serde(rename = "key")]
    pub keys: Vec<KeyConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            audience: "comet".into(),
            query: false,
            resume: Duration::from_secs(60),
            keys: Vec::new(),
        }
    }
}

/// `[[auth.key]]`. The key is in exactly one of `secret`, `secret_file` and `public_key_file`; `alg` decides which ones are
/// possible.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [[auth.key]]")]
pub struct KeyConfig {
    /// The name by which tokens refer to the key.
    #[serde(deserialize_with = "not_empty")]
    pub kid: String,
    pub alg: Alg,
    pub secret: Option<Secret>,
    #[serde(default, deserialize_with = "value::some_path")]
    pub secret_file: Option<PathBuf>,
    /// The file with the public key as PEM.
    #[serde(default, deserialize_with = "value::some_path")]
    pub public_key_file: Option<PathBuf>,
    /// The rights that a token can grant if this key has signed it.
    #[serde(default = "TokenRight::both")]
    pub may: Vec<TokenRight>,
}

/// The algorithm of a key (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Alg {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        })
    }
}

/// A right that tokens of a key can grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRight {
    Subscribe,
    Publish,
}

impl TokenRight {
    fn both() -> Vec<Self> {
        vec![Self::Subscribe, Self::Publish]
    }
}

/// A secret. `Debug` prints a placeholder, so that a secret never gets into the log.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// `None`: the text is empty.
    pub(super) fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the secret. The time that this takes does not tell how much of `given` is right.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        let hash = |text: &[u8]| digest::digest(&digest::SHA256, text);
        hash(self.0.as_bytes()).as_ref() == hash(given).as_ref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A secret that is not empty.
pub(super) fn some_secret<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Secret>, D::Error> {
    not_empty(d).map(|text| Some(Secret(text)))
}

/// A text that is not empty.
fn not_empty<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?;
    if text.is_empty() {
        return Err(de::Error::custom("may not be empty"));
    }
    Ok(text)
}

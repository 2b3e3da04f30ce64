//! `[auth]`: the keys of tokens, and what tokens must say.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::value;

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table [auth]")]
pub struct AuthConfig {
    /// What a token's `aud` must say.
    #[serde(deserialize_with = "filled")]
    pub audience: String,
    /// Tokens are taken from `?token=`, too.
    pub query: bool,
    /// How far back a token without the right to history resumes.
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

/// `[[auth.key]]`. Which of the three sources is right depends on `alg`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [[auth.key]]")]
pub struct KeyConfig {
    /// What a token calls it.
    #[serde(deserialize_with = "filled")]
    pub kid: String,
    pub alg: Alg,
    pub secret: Option<Secret>,
    #[serde(default, deserialize_with = "value::some_path")]
    pub secret_file: Option<PathBuf>,
    /// PEM.
    #[serde(default, deserialize_with = "value::some_path")]
    pub public_key_file: Option<PathBuf>,
    /// What a token that is signed with it can grant.
    #[serde(default = "Use::both")]
    pub may: Vec<Use>,
}

/// How a key signs (RFC 7518, RFC 8037).
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

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    Subscribe,
    Publish,
}

impl Use {
    fn both() -> Vec<Self> {
        vec![Self::Subscribe, Self::Publish]
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

fn filled<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?;
    if text.is_empty() {
        return Err(de::Error::custom("a text that is not empty is needed"));
    }
    Ok(text)
}

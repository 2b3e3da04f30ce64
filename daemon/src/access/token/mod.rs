//! Signed tokens (JWT, RFC 7519): who may do what until when, as somebody with a configured key has written it down.
//!
//! A token says which key it was signed with, never how: algorithm and use are the configuration's. What it grants adds
//! up; there is nothing in it that forbids.

mod crypto;
mod key;
mod pattern;
mod pem;

use std::time::Duration;

use comet_proto::ChannelName;
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::{AuthConfig, TokenRight},
    presence::{Member, MemberError},
};
use key::Key;
pub use key::KeyError;
use pattern::Pattern;

/// Longest token in bytes.
pub const MAX_TOKEN: usize = 4096;

/// Patterns that one token may list.
pub const MAX_PATTERNS: usize = 64;

/// The keys, and what every token must say.
pub struct Tokens {
    keys: Vec<Key>,
    audience: String,
    /// How far back a token without the right to history resumes.
    pub resume: Duration,
    /// Taken from `?token=`, too.
    pub query: bool,
}

/// What a valid token lets its bearer do.
#[derive(Debug, PartialEq)]
pub struct Grant {
    subscribe: Vec<Pattern>,
    publish: Vec<Pattern>,
    /// May read what was published before it came.
    pub history: bool,
    /// Seconds since 1970.
    pub expires: u64,
    /// A number for the claim `sub`; 0 without one.
    pub subject: u64,
    /// The claim `sub` as text, and the claim `comet.info`.
    identity: Option<(String, Option<Value>)>,
}

/// Why a token is no good. The text fits after "token: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("{0} bytes are over the limit of {MAX_TOKEN}")]
    TooLong(usize),
    #[error("it is no JWT")]
    Malformed,
    #[error("its kid names no key of this server")]
    Key,
    #[error("it is not signed with the algorithm of its key")]
    Algorithm,
    #[error("its signature does not fit")]
    Signature,
    #[error("it is for another audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it has no claim {0:?}")]
    Missing(String),
    #[error(
        "its claims are not as they should be: exp a time in seconds, comet an object with lists of texts s and p, and h"
    )]
    Claims,
    #[error("more than {MAX_PATTERNS} patterns")]
    TooMany,
    #[error(
        "a pattern is no channel name, nor the start of one that ends in a separator, with a * behind it"
    )]
    Pattern,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    sub: Option<Value>,
    nbf: Option<f64>,
    comet: Option<CometClaim>,
}

#[derive(Deserialize)]
struct CometClaim {
    #[serde(default)]
    s: Vec<String>,
    #[serde(default)]
    p: Vec<String>,
    #[serde(default)]
    h: Flag,
    /// What other members of a channel may know.
    info: Option<Value>,
}

/// `true`, or `1` as PHP likes to write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Word(bool),
    Number(u8),
}

impl Default for Flag {
    fn default() -> Self {
        Self::Word(false)
    }
}

impl Tokens {
    /// Reads the keys.
    ///
    /// # Errors
    /// Names the first key that cannot be used, and why.
    pub fn load(config: &AuthConfig) -> Result<Self, KeyError> {
        crypto::install();
        let mut keys: Vec<Key> = Vec::new();
        for key in &config.keys {
            if keys.iter().any(|known| known.kid == key.kid) {
                return Err(KeyError::Twice(key.kid.clone()));
            }
            keys.push(Key::load(key)?);
        }
        Ok(Self {
            keys,
            audience: config.audience.clone(),
            resume: config.resume,
            query: config.query,
        })
    }

    /// There is no key: no token is valid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Every token that is valid by `before` is valid by these settings, and grants no less.
    #[must_use]
    pub fn accept_all_of(&self, before: &Self) -> bool {
        // A token need not name the only key.
        let is_only = |tokens: &Self| tokens.keys.len() == 1;
        let replaced = |old: &Key| self.keys.iter().any(|new| new.replaces(old));
        self.audience == before.audience
            && (self.query || !before.query)
            && (is_only(self) || !is_only(before))
            && before.keys.iter().all(replaced)
    }

    /// What the token grants at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Why it grants nothing.
    pub fn verify(&self, token: &str, now: u64) -> Result<Grant, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong(token.len()));
        }
        let key = self.key(token)?;
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        (validation.validate_exp, validation.validate_nbf) = (false, false); // below, by the caller's clock
        let claims: Claims = decode(token, &key.decoding, &validation)
            .map_err(|e| refused(e.kind()))?
            .claims;
        let missing = |claim: &str| TokenError::Missing(claim.into());
        let exp = claims.exp.ok_or_else(|| missing("exp"))?;
        if exp <= now as f64 {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf > now as f64) {
            return Err(TokenError::NotYet);
        }
        let comet = claims.comet.ok_or_else(|| missing("comet"))?;
        grant(comet, exp as u64, claims.sub.and_then(text), &key.may) // it is not negative, and cut at the largest number
    }

    /// The key that the token names; where there is only one it need not name it.
    fn key(&self, token: &str) -> Result<&Key, TokenError> {
        let header = decode_header(token).map_err(|e| match e.kind() {
            ErrorKind::Json(e) if e.is_data() => TokenError::Algorithm, // one that is not known, such as "none"
            _ => TokenError::Malformed,
        })?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed); // RFC 7515, section 4.1.11: we understand no extension
        }
        match (&header.kid, &*self.keys) {
            (None, [only]) => Ok(only),
            (None, _) => Err(TokenError::Key),
            (Some(kid), keys) => {
                let found = keys.iter().find(|key| key.kid == *kid);
                found.ok_or(TokenError::Key)
            }
        }
    }
}

fn refused(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(claim) => TokenError::Missing(claim.clone()),
        ErrorKind::Json(_) => TokenError::Claims, // the header was read before
        _ => TokenError::Malformed,
    }
}

/// The subject: a text or a number. Other values are no subject.
fn text(claim: Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn grant(
    claim: CometClaim,
    expires: u64,
    subject: Option<String>,
    may: &[TokenRight],
) -> Result<Grant, TokenError> {
    let CometClaim { s, p, h, info } = claim;
    if s.len() + p.len() > MAX_PATTERNS {
        return Err(TokenError::TooMany);
    }
    let patterns = |list: Vec<String>, right: TokenRight| {
        let all: Option<Vec<Pattern>> = list.iter().map(|text| Pattern::parse(text)).collect();
        let all = all.ok_or(TokenError::Pattern)?;
        Ok(if may.contains(&right) {
            all
        } else {
            Vec::new()
        })
    };
    Ok(Grant {
        subscribe: patterns(s, TokenRight::Subscribe)?,
        publish: patterns(p, TokenRight::Publish)?,
        history: matches!(h, Flag::Word(true) | Flag::Number(1)),
        expires,
        // The number is the same on every start and every build.
        subject: subject
            .as_ref()
            .map_or(0, |text| crypto::number_for(text.as_bytes())),
        identity: subject.map(|text| (text, info)),
    })
}

impl Grant {
    #[must_use]
    pub fn may_subscribe(&self, channel: &ChannelName) -> bool {
        self.subscribe
            .iter()
            .any(|pattern| pattern.matches(channel))
    }

    /// The member that the bearer is on channels. `None`: the token has no subject.
    ///
    /// # Errors
    /// The subject or the info breaks a rule.
    pub fn member(&self) -> Result<Option<Member>, MemberError> {
        let identity = self.identity.as_ref();
        let member = identity.map(|(id, info)| Member::new(id, info.as_ref()));
        member.transpose()
    }

    #[must_use]
    pub fn may_publish(&self, channel: &ChannelName) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(channel))
    }
}

#[cfg(test)]
mod tests;

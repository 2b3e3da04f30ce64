//! Tokens that PHP signs for a user instead of storing a key: JWT (RFC 7519) with HS256. The secret is the key of the site,
//! followed by the number of the site.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, de::DeserializeOwned};

use super::UserId;

/// Longest token in bytes.
const MAX_TOKEN: usize = 600;

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    user_id: u32,
    exp: f64,
}

/// The user of a valid token. `site` is the number of the site as text, and `now` the second since 1970.
pub(crate) fn user(token: &str, site: &str, secret: &str, now: u64) -> Option<UserId> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Header = decode(header)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let secret = format!("{secret}{site}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &signature).ok()?;
    let claims: Claims = decode(claims)?;
    let is_valid = header.alg == "HS256" && claims.exp > now as f64;
    is_valid.then(|| user_of(&claims)).flatten()
}

/// The user that a token names, whether the token is valid or not.
pub(super) fn claimed_user(token: &str) -> Option<UserId> {
    let mut parts = token.split('.');
    user_of(&decode(parts.nth(1)?)?)
}

fn user_of(claims: &Claims) -> Option<UserId> {
    UserId::parse(&claims.user_id.to_string())
}

fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

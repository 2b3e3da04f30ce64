//! Tokens: only a token that is signed with our key is valid, and it grants exactly what its claims say.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use comet_proto::ChannelName;
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    access::token::{Grant, MAX_PATTERNS, MAX_TOKEN, TokenError, Tokens},
    config::Config,
};

/// The key that signs all tokens of the fuzz targets.
pub(crate) const KEY: &str =
    "auth.key = [{ kid = \"k\", alg = \"HS256\", secret = \"0123456789abcdef0123456789abcdef\" }]";

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_763_690_000;

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let config = Config::parse(KEY).expect("a configuration");
    Tokens::load(&config.auth).expect("a key")
});

/// The first byte says what the rest is: a token; the claims, the header or the patterns (one per line) of a token that is
/// signed with our key.
pub(super) fn check(bytes: &[u8]) {
    let Some((&what, bytes)) = bytes.split_first() else {
        return;
    };
    let header = br#"{"alg":"HS256","typ":"JWT","kid":"k"}"#;
    match what % 4 {
        0 => check_token(&String::from_utf8_lossy(bytes)),
        1 => check_claims(&signed(header, bytes), bytes),
        2 => check_header(bytes),
        _ => check_patterns(&signed_patterns(header, bytes), bytes),
    }
}

fn verify(token: &str) -> Result<Grant, TokenError> {
    let verified = TOKENS.verify(token, NOW);
    if let Err(error) = &verified {
        assert!(!error.to_string().contains(char::is_control));
    }
    verified
}

/// RFC 7515, section 3.1.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    format!("{text}.{}", signature(&text))
}

fn signature(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()))
}

/// Only our signature in its one correct encoding makes a token valid.
fn check_token(token: &str) {
    if verify(token).is_ok() {
        let (text, given) = token.rsplit_once('.').expect("three parts");
        assert_eq!(given, signature(text));
        assert!(text.split('.').count() == 2 && token.len() <= MAX_TOKEN);
    }
}

/// A valid token grants what its claims say.
fn check_claims(token: &str, claims: &[u8]) {
    check_token(token);
    let Ok(grant) = verify(token) else {
        return;
    };
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else {
        return; // the claims of a token with another signature are not read
    };
    let audience = claims["aud"]
        .as_array()
        .map_or_else(|| vec![&claims["aud"]], |list| list.iter().collect());
    assert!(audience.contains(&&json!("comet")));
    let seconds = claims["exp"].as_f64().expect("a number");
    assert!(seconds > NOW as f64 && grant.expires == seconds as u64);
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf <= NOW as f64));
    assert_eq!(
        grant.history,
        claims["comet"]["h"] == true || claims["comet"]["h"] == 1
    );
    let listed = |right: &str| claims["comet"][right].as_array().map_or(0, Vec::len);
    assert!(listed("s") + listed("p") <= MAX_PATTERNS);
    for name in ["a", "news", "user.42.mail", "chat:7"] {
        let name = ChannelName::parse(name).expect("a name");
        let says = |right: &str| {
            let list = claims["comet"][right].as_array().into_iter().flatten();
            list.filter_map(Value::as_str)
                .any(|pattern| is_for(pattern, &name))
        };
        assert_eq!(grant.may_subscribe(&name), says("s"));
        assert_eq!(grant.may_publish(&name), says("p"));
    }
}

/// A star is allowed only at the end of a pattern.
fn is_for(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => rest.is_empty() && name.starts_with(start),
    }
}

/// A token is valid only if its header names a known key and that key's algorithm.
fn check_header(header: &[u8]) {
    let claims = br#"{"aud":"comet","exp":1763690001,"comet":{"s":["*"]}}"#;
    let token = signed(header, claims);
    check_token(&token);
    if verify(&token).is_ok()
        && let Ok(header) = serde_json::from_slice::<Value>(header)
    {
        assert_eq!(header["alg"], "HS256");
        assert!(header["kid"] == "k" || header["kid"].is_null());
        assert!(header["crit"].is_null());
    }
}

fn patterns(bytes: &[u8]) -> Vec<String> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect()
}

fn signed_patterns(header: &[u8], bytes: &[u8]) -> String {
    let claims = json!({"aud": "comet", "exp": NOW + 1, "comet": {"s": patterns(bytes)}});
    signed(header, claims.to_string().as_bytes())
}

/// A token that is signed with our key and breaks no rule is valid, for all channels of its patterns.
fn check_patterns(token: &str, bytes: &[u8]) {
    let patterns = patterns(bytes);
    let is_right = token.len() <= MAX_TOKEN && patterns.len() <= MAX_PATTERNS;
    let is_right = is_right && patterns.iter().all(|text| is_pattern(text));
    let grant = verify(token);
    assert_eq!(grant.is_ok(), is_right, "{grant:?}");
    let Ok(grant) = grant else {
        return;
    };
    for pattern in patterns {
        let names = [pattern.replace('*', "x"), pattern.replace('*', "")];
        let names = names
            .iter()
            .filter_map(|name| ChannelName::parse(name).ok());
        for name in names {
            assert!(grant.may_subscribe(&name) && !grant.may_publish(&name));
        }
    }
}

/// The rule for patterns in `docs/protocol.md`.
fn is_pattern(text: &str) -> bool {
    match text.strip_suffix('*') {
        None => ChannelName::parse(text).is_ok(),
        Some("") => true,
        Some(start) => {
            ChannelName::parse(start).is_ok()
                && start.ends_with(|c: char| !c.is_ascii_alphanumeric())
        }
    }
}

//! The opening handshake of a WebSocket, as the server checks it (RFC 6455, section 4.2).

use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use hyper::{
    HeaderMap, Method, Version,
    header::{self, HeaderName},
    http::request::Parts,
};
use tungstenite::handshake::derive_accept_key;

use crate::transport::websocket::{Agreed, PROTOCOL};

/// The prefix of an offered subprotocol that carries a token. Pages can set no other header of a WebSocket.
const TOKEN_PREFIX: &str = "comet.token.";

/// Base64 as clients write it. Some clients do not set the unused last bits of a key to zero, and other servers accept
/// that.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Why a handshake was refused. The text says what is expected. It repeats nothing of the request, which may contain a
/// token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(
        "a WebSocket needs HTTP/1.1 with the headers Connection: Upgrade and Upgrade: websocket, in a GET; a proxy in \
         between must pass both on"
    )]
    Upgrade,
    #[error("Sec-WebSocket-Version must be 13, and stand there once")]
    Version,
    #[error("Sec-WebSocket-Key must be 16 bytes as base64, and stand there once")]
    Key,
    #[error(
        "Sec-WebSocket-Protocol must be a list of different names without spaces and separators"
    )]
    Names,
    #[error(
        "the subprotocol here is \"comet\": offer that name, too, or no subprotocol at all (Sec-WebSocket-Protocol)"
    )]
    Protocol,
}

/// Checks the client's part of the handshake (section 4.2.1). Every request was checked for one `Host` before.
pub(crate) fn check(head: &Parts) -> Result<Agreed, HandshakeError> {
    let headers = &head.headers;
    if head.method != Method::GET || !asks_to_upgrade(head) {
        return Err(HandshakeError::Upgrade);
    }
    if once(headers, &header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = once(headers, &header::SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    if KEY.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(HandshakeError::Key);
    }
    let accept = derive_accept_key(key);
    Ok(Agreed {
        accept: accept.as_bytes().try_into().expect("20 bytes as base64"),
        has_protocol: choose_protocol(headers)?,
    })
}

/// Whether the request asks for a WebSocket. A request with the WebSocket key that cannot be upgraded gets a refusal
/// that says why, and not a poll that is answered after half a minute.
pub(crate) fn is_asked_for(head: &Parts) -> bool {
    let has_key = head.headers.contains_key(header::SEC_WEBSOCKET_KEY);
    head.method == Method::GET && (has_key || asks_to_upgrade(head))
}

/// Finds the token among the offered subprotocols.
pub(crate) fn token(head: &Parts) -> Option<&str> {
    if !is_asked_for(head) {
        return None;
    }
    let mut names = list(&head.headers, header::SEC_WEBSOCKET_PROTOCOL);
    names.find_map(|name| name.strip_prefix(TOKEN_PREFIX))
}

/// Whether the request asks to upgrade (RFC 9110, section 7.8). HTTP/2 has another way, which the daemon does not
/// offer.
fn asks_to_upgrade(head: &Parts) -> bool {
    let lists = |name, token: &str| {
        list(&head.headers, name).any(|element| element.eq_ignore_ascii_case(token))
    };
    head.version == Version::HTTP_11
        && lists(header::UPGRADE, "websocket")
        && lists(header::CONNECTION, "upgrade")
}

/// Chooses the subprotocol. True: the client offers [`PROTOCOL`]. False: it offers none.
fn choose_protocol(headers: &HeaderMap) -> Result<bool, HandshakeError> {
    if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Ok(false);
    }
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    if lines.into_iter().any(|line| line.to_str().is_err()) {
        return Err(HandshakeError::Names);
    }
    let mut names: Vec<&str> = list(headers, header::SEC_WEBSOCKET_PROTOCOL).collect();
    let offers = names.contains(&PROTOCOL);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    if count == 0 || names.len() < count || !names.iter().all(|name| is_token(name)) {
        return Err(HandshakeError::Names);
    }
    // A client that offers subprotocols ends the connection when the answer names none of them (section 4.1).
    match offers {
        true => Ok(true),
        false => Err(HandshakeError::Protocol),
    }
}

/// Whether this is a token of RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_mark = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// The value of a header that occurs exactly once.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// The elements of a list header over all its lines, without empty elements (RFC 9110, section 5.6.1).
fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).iter();
    let elements = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    elements
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty())
}

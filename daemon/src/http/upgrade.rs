//! The opening handshake of a WebSocket, as the server checks it (RFC 6455, section 4.2).

use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use hyper::{Method, Version};
use tungstenite::handshake::derive_accept_key;

use super::request::{Request, text};
use crate::transport::websocket::Handshake;

/// The prefix of an offered subprotocol that carries a token. Pages can set no other header of a WebSocket.
const TOKEN_PREFIX: &str = "comet.token.";

/// The header in which a client offers subprotocols.
const PROTOCOLS: &str = "sec-websocket-protocol";

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
        "the subprotocol here is {0:?}: offer that name, too, or no subprotocol at all (Sec-WebSocket-Protocol)"
    )]
    Protocol(&'static str),
}

/// Checks the client's part of the handshake (section 4.2.1). `protocol` is the subprotocol that the client may offer. Every
/// request was checked for one `Host` before.
pub(crate) fn check(
    request: &Request<'_>,
    protocol: &'static str,
) -> Result<Box<Handshake>, HandshakeError> {
    if request.method != Method::GET || !asks_to_upgrade(request) {
        return Err(HandshakeError::Upgrade);
    }
    if request.only("sec-websocket-version") != Ok(Some(b"13")) {
        return Err(HandshakeError::Version);
    }
    let Ok(Some(key)) = request.only("sec-websocket-key") else {
        return Err(HandshakeError::Key);
    };
    if KEY.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(HandshakeError::Key);
    }
    let accept = derive_accept_key(key);
    Ok(Box::new(Handshake {
        accept: accept.as_bytes().try_into().expect("20 bytes as base64"),
        protocol: choose_protocol(request, protocol)?,
    }))
}

/// Whether the request asks for a WebSocket. A request with the WebSocket key that cannot be upgraded gets a refusal
/// that says why, and not a poll that is answered after half a minute.
pub(crate) fn is_asked_for(request: &Request<'_>) -> bool {
    request.method == Method::GET && (request.has("sec-websocket-key") || asks_to_upgrade(request))
}

/// Finds the token among the offered subprotocols.
pub(crate) fn token<'a>(request: &Request<'a>) -> Option<&'a str> {
    if !is_asked_for(request) {
        return None;
    }
    let mut names = request.list(PROTOCOLS);
    names.find_map(|name| name.strip_prefix(TOKEN_PREFIX))
}

/// Whether the request asks to upgrade (RFC 9110, section 7.8). HTTP/2 has another way, which the daemon does not
/// offer.
fn asks_to_upgrade(request: &Request<'_>) -> bool {
    let lists = |name, token: &str| {
        let mut elements = request.list(name);
        elements.any(|element| element.eq_ignore_ascii_case(token))
    };
    request.version == Version::HTTP_11
        && lists("upgrade", "websocket")
        && lists("connection", "upgrade")
}

/// The subprotocol of the answer: `protocol`, if the client offers it. `None`: the client offers no subprotocol.
fn choose_protocol(
    request: &Request<'_>,
    protocol: &'static str,
) -> Result<Option<&'static str>, HandshakeError> {
    if !request.has(PROTOCOLS) {
        return Ok(None);
    }
    if request.values(PROTOCOLS).any(|line| text(line).is_none()) {
        return Err(HandshakeError::Names);
    }
    let mut names: Vec<&str> = request.list(PROTOCOLS).collect();
    let offers = names.contains(&protocol);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    if count == 0 || names.len() < count || !names.iter().all(|name| is_token(name)) {
        return Err(HandshakeError::Names);
    }
    // A client that offers subprotocols ends the connection when the answer names none of them (section 4.1).
    match offers {
        true => Ok(Some(protocol)),
        false => Err(HandshakeError::Protocol(protocol)),
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

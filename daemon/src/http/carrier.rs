//! How a subscription's bytes reach a client on HTTP/1: as the body of an answer, or through a WebSocket.

use crate::transport::{
    Format,
    websocket::{ClientFrames, Handshake},
};

/// The format of a subscription, and what carries its bytes. As small as the format alone: each waiting connection has
/// one.
pub(super) enum Carrier {
    /// The body of an HTTP answer.
    Answer(Box<dyn Format>),
    /// A WebSocket. The client may send frames at any time.
    WebSocket(Box<WebSocket>),
}

pub(super) struct WebSocket {
    format: Box<dyn Format>,
    /// Taken when the 101 is written.
    handshake: Option<Box<Handshake>>,
    frames: ClientFrames,
}

impl Carrier {
    pub(super) fn new(format: Box<dyn Format>, handshake: Option<Handshake>) -> Self {
        match handshake {
            None => Self::Answer(format),
            Some(handshake) => Self::WebSocket(Box::new(WebSocket {
                format,
                handshake: Some(Box::new(handshake)),
                frames: ClientFrames::default(),
            })),
        }
    }

    pub(super) fn format(&self) -> &dyn Format {
        match self {
            Self::Answer(format) => &**format,
            Self::WebSocket(socket) => &*socket.format,
        }
    }

    /// The handshake that the 101 answers. `None`: the connection stays HTTP, or the 101 is written.
    pub(super) fn take_handshake(&mut self) -> Option<Box<Handshake>> {
        match self {
            Self::Answer(_) => None,
            Self::WebSocket(socket) => socket.handshake.take(),
        }
    }

    /// The state of the client's frames. `None`: the connection stays HTTP.
    pub(super) fn frames(&mut self) -> Option<&mut ClientFrames> {
        match self {
            Self::Answer(_) => None,
            Self::WebSocket(socket) => Some(&mut socket.frames),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_takes_no_more_than_its_format() {
        assert_eq!(size_of::<Carrier>(), size_of::<Box<dyn Format>>());
        let size = size_of::<WebSocket>();
        assert!(size <= 64, "{size} bytes");
    }
}

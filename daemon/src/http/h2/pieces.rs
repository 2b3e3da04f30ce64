//! The body of an answer on HTTP/2: pieces, sent as they arrive.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::{
    Response,
    body::{Body, Frame},
    header,
};
use tokio::sync::mpsc;

use super::streams;
use crate::{connection::memory, http::answer::Answer};

/// Size in bytes of the largest frame, and of the largest piece that is handed to HTTP/2 at once. Such a piece may wait
/// there for the client's window.
pub(super) const FRAME: u32 = 16 << 10;

/// The body of an answer: pieces, sent as they arrive.
pub(super) struct Pieces {
    coming: mpsc::Receiver<Bytes>,
    /// The unsent rest of the last piece.
    rest: Bytes,
}

impl Pieces {
    pub(super) fn new(coming: mpsc::Receiver<Bytes>) -> Self {
        let rest = Bytes::new();
        Self { coming, rest }
    }

    pub(super) fn one(rest: Bytes) -> Self {
        let (_, coming) = mpsc::channel(1);
        Self { coming, rest }
    }

    /// The next bytes for HTTP/2, at most one frame. A part of a piece is copied, so that a waiting frame does not keep
    /// the whole piece in memory.
    fn next(&mut self) -> Bytes {
        let frame = FRAME as usize;
        if self.rest.len() <= frame {
            return std::mem::take(&mut self.rest);
        }
        memory::keep(self.rest.split_to(frame).to_vec())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // hyper asks for the next frame when the client has taken the previous one.
        streams::take_note(false);
        if self.rest.is_empty() {
            let Some(piece) = ready!(self.coming.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            self.rest = piece;
        }
        streams::take_note(true);
        Poll::Ready(Some(Ok(Frame::data(self.next()))))
    }
}

/// Completes an answer whose length is known. The answer to `HEAD` states the length that `GET` would have, except for
/// a stream, which has none.
pub(super) fn whole(answer: Answer, is_head: bool) -> Response<Pieces> {
    let (has_body, length) = (answer.has_body(), answer.body.len());
    let mut response = answer.into_response();
    if has_body && !(is_head && length == 0) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(Pieces::one)
}

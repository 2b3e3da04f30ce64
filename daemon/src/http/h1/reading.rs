//! Reads the head of a request that is not plain, until the head is complete and the length of the body is known. So a
//! client that sends slowly costs only the memory of its bytes, and hyper never gets an incomplete head.

use std::{future::poll_fn, io};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    framing::{Framing, Malformed, without_line_ends},
    head::{max_head, too_long},
};
use crate::{
    connection::{
        CHUNK, Conn,
        memory::{Hold, SMALL},
    },
    http::{
        Http,
        refusal::{Reason, Refusal},
        site::Site,
    },
};

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the bytes of a connection begin with.
pub(super) enum RequestStart {
    /// A complete head and the bytes that were read with it.
    Http1(Bytes, Framing),
    Http2(Bytes),
    /// Only empty lines, which mean nothing.
    EmptyLines,
    /// The refusal to send before the connection closes.
    Refused(Refusal),
    /// The client has closed the connection.
    Closed,
}

/// Reads on after `input` until the kind of request is known.
pub(super) async fn read_head(conn: &Conn, http: &Http, input: Bytes) -> RequestStart {
    let site = http.site();
    let config = &site.config;
    let mut reading = HeadReader::new(input);
    if let Some(head) = reading.look(&site) {
        return head;
    }
    // A request that has begun to arrive is answered, even while the daemon stops.
    let whole = timeout(config.header_time, async {
        loop {
            match read_more(conn, &mut reading.input).await {
                Ok(1..) => {}
                Ok(0) => return reading.cut(&site),
                Err(_) => return RequestStart::Closed,
            }
            if let Some(head) = reading.look(&site) {
                return head;
            }
            if http.is_full() {
                return reading.refused(&site, Refusal::no_memory());
            }
        }
    });
    whole.await.unwrap_or_else(|_| reading.late(&site))
}

async fn read_more(conn: &Conn, input: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let read = poll_fn(|cx| conn.poll_read(cx, &mut chunk)).await?;
    input.extend_from_slice(&chunk[..read]);
    Ok(read)
}

/// Whether these are whole empty lines and nothing else. Before a request they mean nothing (RFC 9112, section 2.2): old
/// clients send one after the body of a `POST`.
fn is_empty_lines(input: &[u8]) -> bool {
    let (lines, rest) = input.as_chunks();
    rest.is_empty() && lines.iter().all(|line| line == b"\r\n")
}

/// The part of a request that was read so far.
struct HeadReader {
    input: Vec<u8>,
    /// Number of bytes that were parsed before without a result.
    seen: usize,
    hold: Hold,
}

impl HeadReader {
    fn new(input: Bytes) -> Self {
        Self {
            input: input.into(),
            seen: 0,
            hold: Hold::default(),
        }
    }

    /// The kind of request, once there are enough bytes to know.
    fn look(&mut self, site: &Site) -> Option<RequestStart> {
        let config = &site.config;
        let input = &self.input;
        if input.starts_with(H2_PREFACE) {
            return Some(RequestStart::Http2(self.take()));
        }
        if is_empty_lines(input) {
            return Some(RequestStart::EmptyLines);
        }
        if H2_PREFACE.starts_with(input) || !self.is_worth_a_look() {
            return None;
        }
        self.seen = input.len();
        if input.capacity() > SMALL {
            self.hold.grow_to(input.capacity());
        }
        match Framing::read(input) {
            Ok(Some(framing)) => Some(RequestStart::Http1(self.take(), framing)),
            Ok(None) if input.len() < max_head(config) => None,
            Ok(None) | Err(Malformed::TooManyHeaders) => {
                Some(self.refused(site, too_long(input, config)))
            }
            Err(malformed) => {
                let message = format!("this is no HTTP request: {malformed}");
                Some(self.refused(site, Refusal::bad("request", message)))
            }
        }
    }

    /// Whether parsing is worthwhile: the head may be complete, or the input has doubled. Parsing again after each byte
    /// would cost too much.
    fn is_worth_a_look(&self) -> bool {
        let new = &self.input[self.seen.saturating_sub(3)..];
        let ends = new.windows(2).any(|pair| pair == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n");
        ends || self.input.len() >= 2 * self.seen
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.input).into()
    }

    /// The result when the client sends nothing more.
    fn cut(&self, site: &Site) -> RequestStart {
        let asks = !without_line_ends(&self.input).is_empty();
        if !asks || H2_PREFACE.starts_with(&self.input) {
            return RequestStart::Closed;
        }
        let message =
            "this is no HTTP request: the client closed its side before the head was complete";
        self.refused(site, Refusal::bad("request", message))
    }

    /// The result when the time limit is over.
    fn late(&self, site: &Site) -> RequestStart {
        if H2_PREFACE.starts_with(&self.input) {
            return RequestStart::Closed; // it may be HTTP/1 or HTTP/2: too little to answer
        }
        let limit = site.config.header_time;
        let message = format!("the head of the request was not complete after {limit:?}");
        let refusal = Refusal::new(Reason::Timeout, message);
        self.refused(site, refusal)
    }

    fn refused(&self, site: &Site, refusal: Refusal) -> RequestStart {
        RequestStart::Refused(refusal.asked_by(site, &self.input))
    }
}

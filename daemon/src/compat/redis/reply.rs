//! Writes the replies of Redis: RESP2, and RESP3 where a client has asked for it.

/// The version of the protocol that a connection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resp {
    Two,
    Three,
}

pub(super) fn simple(text: &str, out: &mut Vec<u8>) {
    line(b'+', text, out);
}

/// An error. `text` begins with its code, such as `ERR`.
pub(crate) fn error(text: &str, out: &mut Vec<u8>) {
    line(b'-', text, out);
}

pub(super) fn integer(number: u64, out: &mut Vec<u8>) {
    line(b':', &number.to_string(), out);
}

pub(super) fn bulk(bytes: impl AsRef<[u8]>, out: &mut Vec<u8>) {
    let bytes = bytes.as_ref();
    line(b'$', &bytes.len().to_string(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The head of an array of `count` values.
pub(super) fn array(count: usize, out: &mut Vec<u8>) {
    line(b'*', &count.to_string(), out);
}

/// One line. The text may come from a client, so it may not end the line early.
fn line(kind: u8, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        byte => byte,
    }));
    out.extend_from_slice(b"\r\n");
}

impl Resp {
    pub(super) fn null(self, out: &mut Vec<u8>) {
        let null: &[u8] = match self {
            Self::Two => b"$-1\r\n",
            Self::Three => b"_\r\n",
        };
        out.extend_from_slice(null);
    }

    /// The head of a map of `count` pairs.
    pub(super) fn map(self, count: usize, out: &mut Vec<u8>) {
        match self {
            Self::Two => array(2 * count, out),
            Self::Three => line(b'%', &count.to_string(), out),
        }
    }

    /// The head of something that the client did not ask for, such as a message of a channel.
    pub(super) fn push(self, count: usize, out: &mut Vec<u8>) {
        match self {
            Self::Two => array(count, out),
            Self::Three => line(b'>', &count.to_string(), out),
        }
    }
}

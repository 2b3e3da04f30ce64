//! Parses the requests of memcached's text protocol (`doc/protocol.txt` of memcached).

use std::borrow::Cow;

/// The longest line in bytes: a `get` of many keys.
const MAX_LINE: usize = 32 << 10;

/// The longest key in bytes.
const MAX_KEY: usize = 250;

/// The largest value in bytes.
pub(crate) const MAX_VALUE: usize = 1 << 20;

/// The first byte of a request in the binary protocol.
const BINARY: u8 = 0x80;

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// `set KEY FLAGS EXPTIME BYTES`, and the data.
    Set {
        key: &'a [u8],
        flags: u32,
        data: &'a [u8],
        quiet: bool,
    },
    /// `touch KEY EXPTIME`
    Touch {
        key: &'a [u8],
        quiet: bool,
    },
    /// `incr KEY DELTA` or `decr KEY DELTA`. The delta does not matter.
    Count {
        key: &'a [u8],
        quiet: bool,
    },
    /// `get KEY…`, or with `cas` `gets KEY…`
    Get {
        keys: Vec<&'a [u8]>,
        cas: bool,
    },
    /// `stats`, or with a topic `stats TOPIC`
    Stats {
        has_topic: bool,
    },
    Version,
    Verbosity {
        quiet: bool,
    },
    Quit,
    /// A command that cannot be served, with the reply that says why.
    Refused {
        reply: Cow<'static, str>,
        quiet: bool,
    },
}

/// What is at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    Incomplete,
    /// A request and its number of bytes. Only a refused request may have more bytes than were passed.
    Request(Request<'a>, usize),
    /// A request of the binary protocol. Nothing that follows can be understood.
    Binary,
    /// A request of HTTP. The body of a request that a web page sends here could contain commands.
    Http,
    /// The line is too long. Nothing that follows can be understood.
    TooLong,
}

/// Parses the first request.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.first() == Some(&BINARY) {
        return Parsed::Binary;
    }
    let Some(end) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return match bytes.len() < MAX_LINE {
            true => Parsed::Incomplete,
            false => Parsed::TooLong,
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let command = words.next().unwrap_or_default();
    if words.clone().any(|word| word.starts_with(b"HTTP/1")) {
        return Parsed::Http;
    }
    let arguments: Vec<&[u8]> = words.collect();
    let (rest, length) = (&bytes[end + 1..], end + 1);
    match command {
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => {
            store(command, &arguments, rest, length)
        }
        _ => Parsed::Request(simple(command, arguments), length),
    }
}

/// A request that stores a value: its data follow the line.
fn store<'a>(command: &[u8], arguments: &[&'a [u8]], rest: &'a [u8], line: usize) -> Parsed<'a> {
    let (arguments, quiet) = without_noreply(arguments);
    let expected = if command == b"cas" { 5 } else { 4 };
    let numbers = match arguments {
        [key, flags, expiry, size, ..] if arguments.len() == expected => number::<u32>(flags)
            .zip(number::<usize>(size))
            .filter(|_| number::<i64>(expiry).is_some())
            .map(|(flags, size)| (*key, flags, size)),
        _ => None,
    };
    let Some((key, flags, size)) = numbers else {
        // The length of the data is unknown, so the data will be read as commands. memcached does the same.
        return Parsed::Request(refused("CLIENT_ERROR bad command line format", quiet), line);
    };
    let length = line.saturating_add(size).saturating_add(2);
    if let Some(reply) = refuse_store(command, key, size) {
        return Parsed::Request(Request::Refused { reply, quiet }, length);
    }
    let Some(data) = rest.get(..size + 2) else {
        return Parsed::Incomplete;
    };
    let Some(data) = data.strip_suffix(b"\r\n") else {
        // What follows is read as a command. memcached does the same.
        return Parsed::Request(refused("CLIENT_ERROR bad data chunk", quiet), length);
    };
    let set = Request::Set {
        key,
        flags,
        data,
        quiet,
    };
    Parsed::Request(set, length)
}

/// Why a value cannot be stored. The data must still be read over.
fn refuse_store(command: &[u8], key: &[u8], size: usize) -> Option<Cow<'static, str>> {
    if command != b"set" {
        let command = String::from_utf8_lossy(command);
        return Some(
            format!("SERVER_ERROR {command} needs a stored value, and a channel has none; publish with set")
                .into(),
        );
    }
    if size > MAX_VALUE {
        return Some("SERVER_ERROR object too large for cache: a message has at most 1 MiB".into());
    }
    (!is_key(key)).then(|| BAD_KEY.into())
}

const BAD_KEY: &str = "CLIENT_ERROR a key has 1 to 250 bytes and no control characters";

/// A request that is one line.
fn simple<'a>(command: &[u8], arguments: Vec<&'a [u8]>) -> Request<'a> {
    let (without, quiet) = without_noreply(&arguments);
    match (command, without) {
        (b"get" | b"gets", []) => refused("ERROR", false),
        (b"get" | b"gets", _) if !arguments.iter().all(|key| is_key(key)) => {
            refused(BAD_KEY, false)
        }
        (b"get" | b"gets", _) => Request::Get {
            cas: command == b"gets",
            keys: arguments,
        },
        (b"touch" | b"incr" | b"decr", [key, _]) if !is_key(key) => refused(BAD_KEY, quiet),
        (b"touch", [key, expiry]) => match number::<i64>(expiry) {
            Some(_) => Request::Touch { key, quiet },
            None => refused("CLIENT_ERROR invalid exptime argument", quiet),
        },
        (b"incr" | b"decr", [key, delta]) => match number::<u64>(delta) {
            Some(_) => Request::Count { key, quiet },
            None => refused("CLIENT_ERROR invalid numeric delta argument", quiet),
        },
        (b"stats", topic) => Request::Stats {
            has_topic: !topic.is_empty(),
        },
        (b"version", _) => Request::Version,
        (b"verbosity", _) => Request::Verbosity { quiet },
        (b"quit", _) => Request::Quit,
        (b"delete" | b"flush_all", _) => refused(
            "SERVER_ERROR messages cannot be deleted; history under [history] limits how long they are kept",
            quiet,
        ),
        (b"gat" | b"gats", _) => {
            refused("SERVER_ERROR use touch to publish, and get to ask", false)
        }
        _ => refused("ERROR", quiet),
    }
}

fn refused(reply: &'static str, quiet: bool) -> Request<'static> {
    let reply = reply.into();
    Request::Refused { reply, quiet }
}

/// The arguments before `noreply`, and whether that word is there.
fn without_noreply<'b, 'a>(arguments: &'b [&'a [u8]]) -> (&'b [&'a [u8]], bool) {
    match arguments {
        [before @ .., b"noreply"] => (before, true),
        _ => (arguments, false),
    }
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    str::from_utf8(word).ok()?.parse().ok()
}

fn is_key(key: &[u8]) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && !key.iter().any(u8::is_ascii_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(bytes: &[u8]) -> (String, usize) {
        match parse(bytes) {
            Parsed::Request(Request::Refused { reply, .. }, length) => (reply.into(), length),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_value_may_contain_anything() {
        let data = b"a\r\nquit\r\n\0";
        let request = [b"set k 3 0 10\r\n", &data[..], b"\r\nversion\r\n"].concat();
        let set = Request::Set {
            key: b"k",
            flags: 3,
            data,
            quiet: false,
        };
        let length = request.len() - b"version\r\n".len();
        assert_eq!(parse(&request), Parsed::Request(set, length));
        for cut in 0..length {
            assert_eq!(parse(&request[..cut]), Parsed::Incomplete, "{cut}");
        }
    }

    #[test]
    fn the_data_of_a_refused_value_are_skipped() {
        assert_eq!(reply(b"add k 0 0 5\r\n").1, 13 + 7);
        let (text, length) = reply(b"set k 0 0 1048577\r\nabc");
        assert!(text.starts_with("SERVER_ERROR object too large"));
        assert_eq!(length, 19 + 1_048_577 + 2);
        assert_eq!(
            reply(b"set k 0 0 2\r\nabc\r\nversion\r\n"),
            ("CLIENT_ERROR bad data chunk".into(), 17)
        );
        let long = [b"set ", &[b'k'; 251][..], b" 0 0 1\r\nx\r\n"].concat();
        assert_eq!(reply(&long), (BAD_KEY.into(), long.len()));
    }

    #[test]
    fn words_and_ends_are_read_as_memcached_reads_them() {
        let keys = |bytes| match parse(bytes) {
            Parsed::Request(Request::Get { keys, .. }, _) => keys.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(keys(b"get a\n"), 1);
        assert_eq!(keys(b"gets  a  b c \r\n"), 3);
        assert_eq!(reply(b"get\r\n").0, "ERROR");
        assert_eq!(reply(b"\r\n").0, "ERROR");
        assert_eq!(
            reply(b"incr k x\r\n").0,
            "CLIENT_ERROR invalid numeric delta argument"
        );
        assert_eq!(parse(&[b'x'; MAX_LINE]), Parsed::TooLong);
        assert_eq!(parse(b"\x80\0"), Parsed::Binary);
        assert_eq!(parse(b"POST / HTTP/1.1\r\n"), Parsed::Http);
        let touch = Request::Touch {
            key: b"k",
            quiet: true,
        };
        assert_eq!(parse(b"touch k 0 noreply\r\n"), Parsed::Request(touch, 19));
    }
}

//! Parses the commands of Redis clients: arrays of bulk strings, or a line of words (`docs/reference/protocol-spec` of Redis).

use std::borrow::Cow;

/// The most words of one command.
const MAX_WORDS: usize = 1024;

/// The longest word in bytes, and so the largest message.
pub(crate) const MAX_WORD: usize = 1 << 20;

/// The longest command in bytes.
const MAX_COMMAND: usize = MAX_WORD + (128 << 10);

/// The longest line in bytes: of an inline command, or a number.
const MAX_INLINE: usize = 64 << 10;
const MAX_NUMBER: usize = 32;

/// The words of a command. The first one is its name.
pub(crate) type Words<'a> = Vec<Cow<'a, [u8]>>;

/// What is at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    Incomplete,
    /// The words of a command, perhaps none, and its number of bytes.
    Command(Words<'a>, usize),
    /// Nothing that follows can be understood.
    Broken(&'static str),
}

/// Why the bytes are not a command: they are not complete, or they break a rule.
enum Fault {
    Incomplete,
    Broken(&'static str),
}

/// Parses the first command.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let parsed = match bytes.first() {
        None => Err(Fault::Incomplete),
        Some(b'*') => array(bytes),
        Some(_) => inline(bytes),
    };
    match parsed {
        Ok((words, length)) => Parsed::Command(words, length),
        Err(Fault::Incomplete) => Parsed::Incomplete,
        Err(Fault::Broken(reason)) => Parsed::Broken(reason),
    }
}

/// `*COUNT`, and as many bulk strings.
fn array(bytes: &[u8]) -> Result<(Words<'_>, usize), Fault> {
    let (count, mut at) = number(bytes, 1).map_err(|fault| fault.or("invalid multibulk length"))?;
    if count > MAX_WORDS as i64 {
        return Err(Fault::Broken(
            "invalid multibulk length: at most 1024 words",
        ));
    }
    let mut words = Vec::new();
    for _ in 0..count {
        match bytes.get(at) {
            Some(b'$') => {}
            None => return Err(Fault::Incomplete),
            Some(_) => return Err(Fault::Broken("expected '$'")),
        }
        let (length, start) =
            number(bytes, at + 1).map_err(|fault| fault.or("invalid bulk length"))?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_WORD);
        let Some(length) = length else {
            return Err(Fault::Broken(
                "invalid bulk length: a message has at most 1 MiB",
            ));
        };
        let end = start + length;
        if end > MAX_COMMAND {
            return Err(Fault::Broken("command too long: at most 1 MiB"));
        }
        let word = bytes.get(start..end + 2).ok_or(Fault::Incomplete)?;
        // Redis does not look at the line end either.
        words.push(Cow::Borrowed(&word[..length]));
        at = end + 2;
    }
    Ok((words, at))
}

impl Fault {
    /// The reason for a number that is malformed.
    fn or(self, reason: &'static str) -> Self {
        match self {
            Self::Broken(_) => Self::Broken(reason),
            Self::Incomplete => Self::Incomplete,
        }
    }
}

/// The number in the line from `at` on, and where the next line begins.
fn number(bytes: &[u8], at: usize) -> Result<(i64, usize), Fault> {
    let line = &bytes[at..];
    let Some(end) = line.iter().take(MAX_NUMBER).position(|byte| *byte == b'\r') else {
        return Err(match line.len() < MAX_NUMBER {
            true => Fault::Incomplete,
            false => Fault::Broken(""),
        });
    };
    let number = str::from_utf8(&line[..end])
        .ok()
        .and_then(|text| text.parse().ok());
    match (number, line.get(end + 1)) {
        (_, None) => Err(Fault::Incomplete),
        (Some(number), Some(b'\n')) => Ok((number, at + end + 2)),
        _ => Err(Fault::Broken("")),
    }
}

/// A line of words, as a person types them.
fn inline(bytes: &[u8]) -> Result<(Words<'_>, usize), Fault> {
    let Some(end) = bytes
        .iter()
        .take(MAX_INLINE)
        .position(|byte| *byte == b'\n')
    else {
        return Err(match bytes.len() < MAX_INLINE {
            true => Fault::Incomplete,
            false => Fault::Broken("too big inline request"),
        });
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let words = words(line).ok_or(Fault::Broken("unbalanced quotes in request"))?;
    if words.len() > MAX_WORDS {
        return Err(Fault::Broken("too many words: at most 1024"));
    }
    Ok((words, end + 1))
}

/// The words of a line. A word may be in single or double quotes. `None`: a quote is not closed, or not at the end of its word.
fn words(line: &[u8]) -> Option<Words<'_>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        let Some(&first) = rest.first() else {
            return Some(words);
        };
        if first == b'"' || first == b'\'' {
            let (word, length) = quoted(first, &rest[1..])?;
            rest = &rest[1 + length..];
            if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                return None;
            }
            words.push(Cow::Owned(word));
        } else {
            let end = rest
                .iter()
                .position(u8::is_ascii_whitespace)
                .unwrap_or(rest.len());
            words.push(Cow::Borrowed(&rest[..end]));
            rest = &rest[end..];
        }
    }
}

/// The word up to the closing quote, and its length with this quote.
fn quoted(quote: u8, text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut word, mut at) = (Vec::new(), 0);
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (byte, _) if *byte == quote => return Some((word, at + 1)),
            (b'\\', Some(b'x')) if quote == b'"' && hexadecimal(text, at + 2).is_some() => {
                word.extend(hexadecimal(text, at + 2));
                at += 4;
            }
            (b'\\', Some(&next)) if quote == b'"' || next == quote => {
                word.push(match next {
                    b'n' if quote == b'"' => b'\n',
                    b'r' if quote == b'"' => b'\r',
                    b't' if quote == b'"' => b'\t',
                    other => other,
                });
                at += 2;
            }
            (byte, _) => {
                word.push(*byte);
                at += 1;
            }
        }
    }
}

/// The byte that two hexadecimal digits stand for.
fn hexadecimal(text: &[u8], at: usize) -> Option<u8> {
    let digit = |at| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(at)? << 4 | digit(at + 1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(bytes: &[u8]) -> (Vec<String>, usize) {
        match parse(bytes) {
            Parsed::Command(words, length) => {
                let text = |word: &Cow<'_, [u8]>| String::from_utf8_lossy(word).into_owned();
                (words.iter().map(text).collect(), length)
            }
            other => panic!("{other:?}"),
        }
    }

    fn broken(bytes: &[u8]) -> &'static str {
        match parse(bytes) {
            Parsed::Broken(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arrays_may_contain_any_bytes() {
        let bytes = b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$4\r\n\r\n*1\r\nPING\r\n";
        let (words, length) = command(bytes);
        assert_eq!(words, ["PUBLISH", "a", "\r\n*1"]);
        assert_eq!(&bytes[length..], b"PING\r\n");
        for cut in 0..length {
            assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete, "{cut}");
        }
        assert_eq!(command(b"*0\r\n").0.len(), 0);
        assert_eq!(command(b"*-1\r\n").0.len(), 0);
    }

    #[test]
    fn lines_are_split_as_a_shell_splits_them() {
        let cases: [(&[u8], &[&str]); 6] = [
            (b"PING\r\n", &["PING"]),
            (b"\n", &[]),
            (
                b" publish  news \"hello world\"\n",
                &["publish", "news", "hello world"],
            ),
            (b"echo \"\\x41\\n\\\"\\q\"\r\n", &["echo", "A\n\"q"]),
            (b"echo 'it\\'s' ''\r\n", &["echo", "it's", ""]),
            (b"echo a\"b\n", &["echo", "a\"b"]),
        ];
        for (line, words) in cases {
            assert_eq!(command(line).0, words);
        }
        assert_eq!(broken(b"echo \"a\n"), "unbalanced quotes in request");
        assert_eq!(broken(b"echo \"a\"b\n"), "unbalanced quotes in request");
    }

    #[test]
    fn lengths_have_limits() {
        assert!(broken(b"*1025\r\n").starts_with("invalid multibulk length"));
        assert!(broken(b"*1\r\n$1048577\r\n").starts_with("invalid bulk length"));
        assert!(broken(b"*1\r\n$-1\r\n").starts_with("invalid bulk length"));
        assert!(broken(b"*x\r\n").starts_with("invalid multibulk length"));
        assert!(broken(b"*1\r\nPING\r\n").starts_with("expected '$'"));
        assert!(broken(&[b'x'; MAX_INLINE]).starts_with("too big"));
        let half = [b"*3\r\n$1048576\r\n", &[b'x'; MAX_COMMAND][..]].concat();
        assert!(broken(&half).starts_with("expected '$'"));
        let half = [
            b"*3\r\n$1048576\r\n",
            &[b'x'; MAX_WORD][..],
            b"\r\n$1048576\r\n",
            &[b'x'; 200_000],
        ]
        .concat();
        assert!(broken(&half).starts_with("command too long"));
    }
}

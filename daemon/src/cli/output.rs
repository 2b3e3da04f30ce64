//! Standard output and standard error of the commands.

use std::{
    borrow::Cow,
    io::{self, Write},
};

/// No process reads our standard output any more. The command then ends without an error.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct ClosedPipe;

/// Writes to standard output and flushes it.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClosedPipe.into()),
        written => {
            written.map_err(|error| anyhow::anyhow!("cannot write to standard output: {error}"))
        }
    }
}

/// Writes to standard error, which may be closed.
pub(super) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "comet: {}", visible(text));
}

/// Escapes characters that control a terminal or change the direction of text: control characters except line end and tab,
/// direction marks, and invisible characters. The escapes are those of JSON, so escaped JSON keeps its meaning.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hidden(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    shown.push_str(&format!("\\u{unit:04x}"));
                }
            }
            false => shown.push(c),
        }
    }
    shown.into()
}

fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Direction; line and paragraph separators; word joiner and invisible operators; byte order mark; annotations.
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
        // Tags, and code points that are not characters.
        '\u{e0000}'..='\u{e007f}' | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        let cases = [
            ("a\tb\n", "a\tb\n"),
            ("hé 日本 👩\u{200d}💻", "hé 日本 👩\u{200d}💻"),
            ("\u{9b}31m", "\\u009b31m"),
            ("\u{1b}[2J\r", "\\u001b[2J\\u000d"),
            ("\u{7f}\u{85}", "\\u007f\\u0085"),
            (
                "\u{202e}\u{2066}\u{200f}\u{61c}",
                "\\u202e\\u2066\\u200f\\u061c",
            ),
            ("\u{2028}\u{feff}\u{e0041}", "\\u2028\\ufeff\\udb40\\udc41"),
        ];
        for (text, shown) in cases {
            assert_eq!(visible(text), shown);
            // The same text as JSON.
            let json = serde_json::to_string(text).unwrap();
            let read: String = serde_json::from_str(&visible(&json)).unwrap();
            assert_eq!(read, text);
        }
    }
}

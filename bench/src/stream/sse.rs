//! Parses server-sent events, as far as they carry messages.

use memchr::memchr_iter;

use super::event::Event;

/// Passes on the complete events at the front of `body`. Returns their length in bytes. Comments and events of other
/// types are skipped.
pub(super) fn events(body: &[u8], each: &mut impl FnMut(Event<'_>)) -> usize {
    let (mut line_start, mut taken) = (0, 0);
    let (mut kind, mut data, mut lines) = (&b""[..], &b""[..], 0);
    for end in memchr_iter(b'\n', body) {
        let line = &body[line_start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line_start = end + 1;
        if let Some(value) = field(line, b"data:") {
            data = value;
            lines += 1;
        } else if let Some(value) = field(line, b"event:") {
            kind = value;
        } else if line.is_empty() {
            match (kind, lines) {
                (b"gap", _) => each(Event::Gap),
                (b"", 1) => each(Event::Message(data)),
                // No message of the bench has several lines.
                (b"", 2..) => each(Event::Message(b"")),
                _ => {}
            }
            (kind, data, lines) = (b"", b"", 0);
            taken = end + 1;
        }
    }
    taken
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> (Vec<String>, usize) {
        let mut events = Vec::new();
        let taken = super::events(body, &mut |event| events.push(format!("{event:?}")));
        (events, taken)
    }

    fn message(data: &[u8]) -> String {
        format!("{:?}", Event::Message(data))
    }

    #[test]
    fn gives_out_messages_and_gaps_alone() {
        let body = b": hi\n\nid: 1\nevent: cursor\ndata: {}\n\nid: 2\ndata: one\n\n\
            id: 3\nevent: gap\ndata: {}\n\ndata:two\r\n\r\nid: 4\n\n:\nretry: 5\n\n";
        let (events, taken) = read(body);
        let gap = format!("{:?}", Event::Gap);
        assert_eq!(events, [message(b"one"), gap, message(b"two")]);
        assert_eq!(taken, body.len());
    }

    #[test]
    fn waits_for_the_blank_line() {
        let body = b"data: one\n\nid: 2\ndata: two\n";
        assert_eq!(read(body), (vec![message(b"one")], 11));
        assert_eq!(read(b"data: one"), (vec![], 0));
    }

    #[test]
    fn several_lines_of_data_are_no_message_of_ours() {
        let (events, _) = read(b"data: one\ndata: two\n\n");
        assert_eq!(events, [message(b"")]);
    }
}

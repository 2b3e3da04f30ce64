//! Reads Comet's forever-iframe: one script call a line.

use std::io::BufReader;

use super::{Reader, Session, nonsense, refused};
use crate::{
    http::{Body, Head, Trouble, line},
    target::Transport,
};

pub(super) fn listen(reader: &mut Reader, session: &mut Session<'_>) -> Result<(), Trouble> {
    session.send(reader, Transport::Iframe, "")?;
    let head = Head::read(reader)?;
    let body = Body::new(&head, reader)?;
    if head.status != 200 {
        return Err(refused(head.status, &body.text()?));
    }
    let mut lines = BufReader::new(body);
    loop {
        let line = line(&mut lines)?;
        if let Some(call) = line.strip_prefix("<script>parent.comet.show(") {
            let json = call
                .strip_suffix(")</script>")
                .ok_or_else(|| nonsense(&line))?;
            // These escapes have the same meaning in JavaScript and in JSON.
            session.json(json)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Cursor, News,
        tests::{json, message, told},
    };
    use super::*;
    use crate::target::Kind;

    #[test]
    fn calls_are_messages_and_gaps() {
        let stream = format!(
            "HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE html>\n<body>\n\n<script>parent.comet.show({{\"gap\":true,\"cursor\":\"6\"}})</script>\n\
             <script>parent.comet.show({})</script>\n<script>parent.comet.show({})</sc",
            json(7, 0),
            json(8, 1)
        );
        let (news, cursor, _) = told(Kind::Comet, Transport::Iframe, Cursor::None, &stream);
        assert_eq!(news, [News::Gap, message(Some(7), 0)]);
        assert_eq!(cursor, Cursor::Id("7".into()));
    }
}

//! Reads by long-poll, from Comet or nchan: one request after the other.

use std::time::Duration;

use serde_json::Value;

use super::{Cursor, News, Reader, Session, nonsense, refused};
use crate::{
    http::{Body, Head, Trouble},
    target::{Kind, Transport},
};

pub(super) fn listen(reader: &mut Reader, session: &mut Session<'_>) -> Result<(), Trouble> {
    if session.target.kind == Kind::Comet {
        // The server answers after `wait`, with or without a message.
        reader.get_mut().limit = Some(Duration::from_secs(30));
    }
    loop {
        let fields = match &*session.cursor {
            Cursor::Validators { modified, tag } => {
                format!("If-Modified-Since: {modified}\r\nIf-None-Match: {tag}\r\n")
            }
            _ => String::new(),
        };
        session.send(reader, Transport::Poll, &fields)?;
        let head = Head::read(reader)?;
        let body = Body::new(&head, reader)?.text()?;
        match (session.target.kind, head.status) {
            (Kind::Comet, 200) => comet(&body, session)?,
            (_, 200) => nchan(&head, &body, session)?,
            // These statuses mean that nothing was published.
            (Kind::Nchan, 304 | 408) => {}
            (_, status) => return Err(refused(status, &body)),
        }
        if head.closes() {
            return Ok(());
        }
    }
}

fn comet(body: &str, session: &mut Session<'_>) -> Result<(), Trouble> {
    let json: Value = serde_json::from_str(body).map_err(|_| nonsense(body))?;
    let cursor = json["cursor"].as_str().ok_or_else(|| nonsense(body))?;
    let messages = json["messages"].as_array().ok_or_else(|| nonsense(body))?;
    if json["gap"] == true {
        (session.tell)(News::Gap);
    }
    for message in messages {
        session.message(message).ok_or_else(|| nonsense(body))?;
    }
    *session.cursor = Cursor::Id(cursor.into());
    Ok(())
}

/// Reads nchan's response, which has one message. Its validators are sent with the next request without a change.
fn nchan(head: &Head, body: &str, session: &mut Session<'_>) -> Result<(), Trouble> {
    let field = |name| head.field(name).map(str::to_owned);
    let (Some(modified), Some(tag)) = (field("last-modified"), field("etag")) else {
        return Err(nonsense("an answer without Last-Modified or Etag"));
    };
    session.data(None, body, None);
    *session.cursor = Cursor::Validators { modified, tag };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{json, message, stamp, told};
    use super::*;

    fn answer(fields: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
    }

    #[test]
    fn comets_answer_moves_the_cursor_as_a_whole() {
        let body = format!(
            r#"{{"cursor":"9","gap":true,"messages":[{},{}]}}"#,
            json(7, 0),
            json(9, 1)
        );
        let whole = answer("", &body);
        let (news, cursor, request) =
            told(Kind::Comet, Transport::Poll, Cursor::Id("5".into()), &whole);
        assert!(
            request.starts_with("GET /ch/news?wait=5&since=5 "),
            "{request}"
        );
        assert_eq!(news, [News::Gap, message(Some(7), 0), message(Some(9), 1)]);
        assert_eq!(cursor, Cursor::Id("9".into()));

        let cut = &whole[..whole.len() - 1];
        let (news, cursor, _) = told(Kind::Comet, Transport::Poll, Cursor::Id("5".into()), cut);
        assert_eq!((news, cursor), (vec![], Cursor::Id("5".into())));
    }

    #[test]
    fn nchans_validators_come_back_as_they_were() {
        let validators = |tag: &str| Cursor::Validators {
            modified: "Mon".into(),
            tag: tag.into(),
        };
        let whole = answer("Last-Modified: Mon\r\nEtag: 3\r\n", &stamp(4).text(50));
        let (news, cursor, request) = told(Kind::Nchan, Transport::Poll, validators("2"), &whole);
        assert!(request.contains("\r\nIf-Modified-Since: Mon\r\nIf-None-Match: 2\r\n"));
        assert_eq!((news, cursor), (vec![message(None, 4)], validators("3")));
    }
}

//! Reads event streams as a browser does (HTML standard, "Server-sent events"): an id becomes the cursor when its event
//! is dispatched.

use std::io::BufReader;

use serde_json::Value;

use super::{Cursor, News, Reader, Session, refused};
use crate::{
    http::{Body, Head, Trouble, line},
    target::{Kind, Transport},
};

pub(super) fn listen(reader: &mut Reader, session: &mut Session<'_>) -> Result<(), Trouble> {
    let mut fields = String::from("Accept: text/event-stream\r\n");
    if let Cursor::Id(id) = &*session.cursor {
        fields.push_str(&format!("Last-Event-ID: {id}\r\n"));
    }
    session.send(reader, Transport::Sse, &fields)?;
    let head = Head::read(reader)?;
    let body = Body::new(&head, reader)?;
    if head.status != 200 {
        return Err(refused(head.status, &body.text()?));
    }
    let (mut lines, mut event) = (BufReader::new(body), Event::default());
    loop {
        let line = line(&mut lines)?;
        if line.is_empty() {
            std::mem::take(&mut event).dispatch(session);
        } else {
            event.add(&line);
        }
    }
}

#[derive(Default)]
struct Event {
    id: Option<String>,
    kind: String,
    data: Vec<String>,
}

impl Event {
    fn add(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "id" => self.id = Some(value),
            "event" => self.kind = value,
            "data" => self.data.push(value),
            // Comments are fields without a name.
            _ => {}
        }
    }

    fn dispatch(self, session: &mut Session<'_>) {
        let data = self.data.join("\n");
        match self.kind.as_str() {
            _ if self.data.is_empty() => {}
            "gap" => (session.tell)(News::Gap),
            "" | "message" if session.target.kind == Kind::Comet => {
                match serde_json::from_str::<Value>(&data) {
                    Ok(json) => drop(session.message(&json)),
                    Err(_) => (session.tell)(News::Damaged(data)),
                }
            }
            "" | "message" => session.data(None, &data, None),
            // Other event types belong to the server.
            _ => {}
        }
        if let Some(id) = self.id {
            *session.cursor = Cursor::Id(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{json, message, stamp, told};
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

    #[test]
    fn an_id_holds_when_its_event_is_whole() {
        let (one, two) = (json(7, 0), json(8, 1));
        let stream = format!(
            "{HEAD}id: 5\nevent: cursor\ndata: {{}}\n\nid: 6\nevent: gap\ndata: {{}}\n\nid: 7\ndata: {one}\n\nid: 8\ndata: {two}\n"
        );
        let at = Cursor::Id("4".into());
        let (news, cursor, request) = told(Kind::Comet, Transport::Sse, at, &stream);
        assert!(request.contains("\r\nLast-Event-ID: 4\r\n"), "{request}");
        assert_eq!(news, [News::Gap, message(Some(7), 0)]);
        assert_eq!(cursor, Cursor::Id("7".into()));
    }

    #[test]
    fn any_servers_events_are_read() {
        let data = stamp(3).text(50);
        let stream = format!("{HEAD}: hi\r\n\r\nid: 17:0\r\ndata: {data}\r\n\r\n");
        let (news, cursor, _) = told(Kind::Nchan, Transport::Sse, Cursor::None, &stream);
        assert_eq!(news, [message(None, 3)]);
        assert_eq!(cursor, Cursor::Id("17:0".into()));
    }
}

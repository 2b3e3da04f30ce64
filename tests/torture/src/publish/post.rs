//! Publishes by HTTP POST on a connection that is kept open.

use std::{io::BufReader, sync::Arc, time::Duration};

use serde_json::Value;

use super::{Outcome, Publish};
use crate::{
    http::{Body, Head, Trouble},
    random::Random,
    stage::Stage,
    target::{Kind, Target},
    wire::Wire,
};

/// Time-out for a response.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Post {
    target: Target,
    stage: Arc<Stage>,
    random: Random,
    reader: Option<BufReader<Wire>>,
}

impl Post {
    #[must_use]
    pub fn new(target: Target, stage: Arc<Stage>, random: Random) -> Self {
        Self {
            target,
            stage,
            random,
            reader: None,
        }
    }

    fn connect(&mut self) -> Option<BufReader<Wire>> {
        let random = Random::new(self.random.number(), "connection");
        let mut wire = Wire::connect(self.target.addr, self.stage.clone(), random).ok()?;
        wire.limit = Some(PATIENCE);
        Some(BufReader::new(wire))
    }
}

impl Publish for Post {
    fn publish(&mut self, channel: &str, data: &str, key: &str) -> Outcome {
        let Some(mut reader) = self.reader.take().or_else(|| self.connect()) else {
            return Outcome::Away;
        };
        let request = self.target.post(channel, data, key);
        match exchange(&mut reader, &request) {
            Err(_) => Outcome::Unknown,
            Ok((head, body)) => {
                if !head.closes() {
                    self.reader = Some(reader);
                }
                outcome(self.target.kind, head.status, &body)
            }
        }
    }

    fn has_keys(&self) -> bool {
        self.target.kind == Kind::Comet
    }
}

fn exchange(reader: &mut BufReader<Wire>, request: &str) -> Result<(Head, String), Trouble> {
    reader.get_mut().send(request.as_bytes())?;
    let head = Head::read(reader)?;
    let body = Body::new(&head, reader)?.text()?;
    Ok((head, body))
}

fn outcome(kind: Kind, status: u16, body: &str) -> Outcome {
    let id = || serde_json::from_str::<Value>(body).ok()?["id"].as_u64();
    match (kind, status) {
        (Kind::Comet, 201) => id().map_or(Outcome::Unknown, |id| Outcome::Taken(Some(id))),
        (Kind::Nchan | Kind::Sse, 200..=299) => Outcome::Taken(None),
        // A server behind a proxy may have accepted the message.
        (_, 502 | 504) => Outcome::Unknown,
        _ => Outcome::Refused(format!("{status} {}", body.trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_is_an_acknowledgement() {
        let comet = |status, body| outcome(Kind::Comet, status, body);
        assert_eq!(comet(201, "{\"id\":7}"), Outcome::Taken(Some(7)));
        assert_eq!(comet(201, ""), Outcome::Unknown);
        assert_eq!(comet(503, "no\n"), Outcome::Refused("503 no".into()));
        assert_eq!(outcome(Kind::Nchan, 202, ""), Outcome::Taken(None));
        assert_eq!(outcome(Kind::Sse, 504, ""), Outcome::Unknown);
    }
}

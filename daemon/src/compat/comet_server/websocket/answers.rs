//! The answers to commands of a page, and the errors.

use comet_proto::{ChannelName, Message};
use serde_json::{Value, json};

use super::{
    super::{UserId, Users, inbox::LastSeen},
    OpeningError, PageDialect,
    command::{Command, CommandError},
    envelope::{Data, Envelope, Form, SYSTEM},
    may_read, members,
};
use crate::{
    http::date::unix_time,
    session::{
        Session,
        dialect::{Acknowledge, Frames},
    },
};

/// Most bytes of saved messages in one answer: the newest that fit.
const MOST_SAVED_BYTES: usize = 256 * 1024;

impl PageDialect {
    /// Answers a question.
    pub(super) fn answer(
        &self,
        question: Command<'_>,
        session: &Session,
        out: &mut Frames,
    ) -> Result<(), CommandError> {
        let http = session.http();
        let site = http.site();
        let users = Users::new(http.audience().hub(), &*site.broker);
        match question {
            Command::Log { pipe } => self.write_log(&pipe, users, session, out)?,
            Command::Count { pipe, marker } => {
                self.check_visible(&pipe, session)?;
                let facts = http.audience().hub().channel_facts(&pipe);
                let count = facts.map_or(0, |facts| facts.subscribers);
                let data = json!({ "user_in_pipe": count });
                self.write_answer(
                    "_answer_pipe_count",
                    "user_in_pipe",
                    Some(marker),
                    data,
                    out,
                );
            }
            Command::UserData { marker, user } => {
                let data = users.data(user).unwrap_or_default();
                let data = json!({"user_data": data, "user_id": number(user)});
                self.write_answer("_answer", "answer", Some(marker), data, out);
            }
            Command::UserStatus(user) => {
                let seconds = since_last_seen(users.last_seen(user), unix_time().as_secs());
                let data = json!({"data": seconds, "last_online_time": seconds});
                let event = format!("user_status_{user}");
                self.write_answer("_answer_user_status", &event, None, data, out);
            }
            Command::Members { pipe, marker } => {
                self.check_visible(&pipe, session)?;
                let data = members::list(&pipe, &site);
                self.write_answer("_answer", "answer", Some(marker), data, out);
            }
            Command::Subscribe(_) | Command::Publish(_) | Command::Statistics => {}
        }
        Ok(())
    }

    fn write_answer(
        &self,
        pipe: &str,
        event: &str,
        marker: Option<&str>,
        data: Value,
        out: &mut Frames,
    ) {
        let answer = Envelope {
            data: Data::Json(data),
            event,
            marker,
            message_send_time: unix_time().as_secs(),
            pipe,
            ..Envelope::default()
        };
        self.form.write(answer, out);
    }

    /// Checks that the page may know what happens in the pipe.
    fn check_visible(&self, pipe: &ChannelName, session: &Session) -> Result<(), CommandError> {
        let permission = may_read(pipe, session)?;
        let sees_history = permission.right().oldest.is_none();
        match sees_history && !self.is_hidden(pipe) {
            true => Ok(()),
            false => Err(CommandError::Pipe),
        }
    }

    /// Writes the saved messages of a pipe, oldest first. They have no marker, because the script would ignore them then.
    fn write_log(
        &self,
        pipe: &ChannelName,
        users: Users<'_>,
        session: &Session,
        out: &mut Frames,
    ) -> Result<(), CommandError> {
        self.check_visible(pipe, session)?;
        let saved = users.pipe_log(pipe);
        let mut bytes = 0;
        let fits = |message: &&std::sync::Arc<Message>| {
            bytes += message.data.len();
            bytes <= MOST_SAVED_BYTES || bytes == message.data.len()
        };
        let count = saved.iter().rev().take_while(fits).count();
        for message in &saved[saved.len() - count..] {
            self.write_message(message, pipe, Some(true), out);
        }
        Ok(())
    }
}

/// The report about a published message, when the message is kept.
pub(super) fn report(form: Form, pipe: &ChannelName, payload: &str, others: usize) -> Acknowledge {
    let pipe = format!("_answer_to_{pipe}");
    let data = json!({"message": payload, "number_messages": others});
    Box::new(move |outcome, out| match outcome {
        Ok(_) => {
            let report = Envelope {
                data: Data::Json(data),
                event: "answer",
                message_send_time: unix_time().as_secs(),
                pipe: &pipe,
                ..Envelope::default()
            };
            form.write(report, out);
        }
        Err(reason) => write_error(form, &CommandError::Refused(reason.to_string()), out),
    })
}

/// Writes why a command is refused.
pub(super) fn write_error(form: Form, error: &CommandError, out: &mut Frames) {
    let data = json!({"error": error.to_string(), "number_messages": -1});
    write_error_data(form, data, out);
}

/// Writes that a list has too many pipes.
pub(super) fn write_too_many(form: Form, out: &mut Frames) {
    write_error_data(
        form,
        json!({"code": "403", "error": "Too many letters"}),
        out,
    );
}

/// Writes why the page may not connect.
pub(super) fn write_opening_error(form: Form, error: &OpeningError, out: &mut Frames) {
    let code = match error {
        OpeningError::NoUser => 401,
        OpeningError::NoSite => 406,
        OpeningError::NoVersion => 418,
        OpeningError::Origin(_) => 423,
    };
    let info = "Closed due to error. See last message.";
    let data = json!({"error": error.to_string(), "error_code": code, "info": info});
    write_error_data(form, data, out);
}

fn write_error_data(form: Form, data: Value, out: &mut Frames) {
    let message = Envelope {
        data: Data::Json(data),
        event: "error",
        message_send_time: unix_time().as_secs(),
        pipe: SYSTEM,
        ..Envelope::default()
    };
    form.write(message, out);
}

pub(super) fn number(user: UserId) -> u32 {
    user.to_string().parse().unwrap_or_default()
}

/// The seconds since a user was last there. The original server subtracts the value of `users_time`, which is 0 for a user who is
/// there and -1 for an unknown user.
fn since_last_seen(seen: LastSeen, now: u64) -> u64 {
    match seen {
        LastSeen::Online => now,
        LastSeen::At(second) => now.saturating_sub(second),
        LastSeen::Never => now + 1,
    }
}

//! A connection whose client sends commands and gets a reply to each, in order.

use std::{io::ErrorKind, mem, rc::Rc, time::Duration};

use super::{CommandBuffer, PortClient, Replies};
use crate::{
    connection::{Conn, Input, Protocol, Step, Then, due_in},
    hub::subscriber::Feed,
    worker::Due,
};

/// A command must be complete after this time. A client that must show a key has this time for the key, too.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// The commands of a protocol.
pub(crate) trait Commands {
    /// Runs the command at the beginning of `bytes`, and adds its reply.
    fn run(&mut self, conn: &Rc<Conn>, bytes: &[u8], replies: &mut Replies) -> CommandOutcome;

    /// Writes an error in the words of the protocol.
    fn write_error(reason: &str, out: &mut Vec<u8>)
    where
        Self: Sized;

    fn client(&self) -> &PortClient;

    /// Whether the client must still show the key.
    fn needs_key(&self) -> bool;

    /// Whether the client has subscribed, and so may be silent.
    fn is_subscribed(&self) -> bool {
        false
    }

    /// Writes messages of the client's channels, if there are any. Returns false if the connection must end.
    fn read_messages(&mut self, _read: MessageRead<'_, '_>, _out: &mut Vec<u8>) -> bool {
        true
    }

    /// The settings have changed. Returns true if messages must be read: the next read then ends the connection.
    fn settings_changed(&mut self) -> bool {
        false
    }
}

/// Which messages a call of [`Commands::read_messages`] reads.
pub(crate) enum MessageRead<'a, 'f> {
    /// The next ones, during a delivery.
    Delivery(&'a mut Feed<'f>),
    /// The next ones.
    Next,
    /// All that were published before this call. Then the connection ends.
    Rest,
}

/// What a call of [`Commands::run`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// The command is not complete.
    Incomplete,
    /// The command had this number of bytes. If the number is larger than what was read, the rest is discarded.
    Done(usize),
    /// The connection ends after the replies.
    End,
}

/// A connection that speaks the protocol `C`.
pub(crate) struct CommandConnection<C> {
    commands: C,
    buffer: CommandBuffer,
    /// The buffer may contain a complete command.
    has_more: bool,
    /// When the command in the buffer must be complete. `None`: the client is not in the middle of a command.
    deadline: Option<Due>,
}

impl<C: Commands> CommandConnection<C> {
    pub(crate) fn new(commands: C) -> Self {
        Self {
            commands,
            buffer: CommandBuffer::default(),
            has_more: false,
            deadline: None,
        }
    }

    /// Runs the commands in the buffer, until one is not complete or the replies are long.
    fn run_commands(&mut self, conn: &Rc<Conn>) -> Step {
        let mut replies = Replies::new(C::write_error);
        let buffer = mem::take(&mut self.buffer);
        let (mut used, mut then) = (0, Then::Again);
        self.has_more = true;
        while used < buffer.bytes().len() && !replies.is_long() {
            match self
                .commands
                .run(conn, &buffer.bytes()[used..], &mut replies)
            {
                CommandOutcome::Done(length) => used += length,
                CommandOutcome::Incomplete => {
                    self.has_more = false;
                    break;
                }
                CommandOutcome::End => {
                    then = Then::End;
                    break;
                }
            }
        }
        self.buffer = buffer;
        self.buffer.consume(used);
        self.has_more &= !self.buffer.bytes().is_empty();
        if used > 0 || self.buffer.is_empty() {
            self.deadline = None;
        }
        if self.buffer.is_large() && conn.worker().context.is_full() {
            replies.error("no memory left for connections, see http.max_memory");
            then = Then::End;
        }
        replies.into_step(then)
    }

    /// Writes new messages, or waits.
    fn wait(&mut self, conn: &Rc<Conn>) -> Step {
        // The daemon may have begun to stop while replies were written.
        if conn.worker().is_stopping() {
            return self.end();
        }
        let mut out = Vec::new();
        match self.commands.read_messages(MessageRead::Next, &mut out) {
            false => Step::Write(out.into(), Then::End),
            true if out.is_empty() => Step::Wait(self.due(conn)),
            true => Step::Write(out.into(), Then::Again),
        }
    }

    /// Ends the connection after the messages that are there.
    fn end(&mut self) -> Step {
        let mut out = Vec::new();
        self.commands.read_messages(MessageRead::Rest, &mut out);
        Step::Write(out.into(), Then::End)
    }

    /// When the connection ends if nothing comes.
    fn due(&mut self, conn: &Conn) -> Due {
        if !self.buffer.is_empty() || self.commands.needs_key() {
            let due = || due_in(conn, COMMAND_TIME);
            return *self.deadline.get_or_insert_with(due);
        }
        self.deadline = None;
        match self.commands.is_subscribed() {
            true => Due::NEVER,
            false => due_in(conn, self.commands.client().limits.idle),
        }
    }
}

impl<C: Commands> Protocol for CommandConnection<C> {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        if !self.has_more {
            match input.read() {
                Ok(read @ 1..) => {
                    self.buffer.push(input.bytes());
                    input.consume(read);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return self.wait(conn),
                Ok(0) => return self.end(),
                Err(_) => return Step::Close,
            }
        }
        self.run_commands(conn)
    }

    fn news(&mut self, conn: &Rc<Conn>, feed: &mut Feed<'_>) -> Step {
        let (mut out, read) = (Vec::new(), MessageRead::Delivery(feed));
        let then = match self.commands.read_messages(read, &mut out) {
            true => Then::Wait(self.due(conn)),
            false => Then::End,
        };
        Step::Write(out.into(), then)
    }

    /// The client was silent for too long, or the settings have changed.
    fn time(&mut self, _: &Rc<Conn>) -> Step {
        self.end()
    }

    fn farewell(&mut self, _: &Rc<Conn>) -> Step {
        self.end()
    }

    fn changed(&mut self, _: &Conn) -> Option<Due> {
        self.commands.settings_changed().then_some(Due::NOW)
    }
}

//! The bytes of a request that has not come completely.

use std::io::ErrorKind;

use crate::connection::{
    Conn, Input, Step,
    memory::{Hold, SMALL},
};

/// What a client has sent so far.
#[derive(Default)]
pub(crate) struct RequestBuffer {
    pub(crate) bytes: Vec<u8>,
    /// The client has closed its sending side.
    pub(crate) has_ended: bool,
    /// Counts the bytes, if there are many.
    memory: Hold,
}

/// Connections use all the memory that they may.
pub(crate) struct NoMemory;

impl RequestBuffer {
    /// Reads what has come. `Some`: nothing has come, and this is the next step.
    pub(crate) fn read(
        &mut self,
        conn: &Conn,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, NoMemory> {
        match input.read() {
            Ok(0) => self.has_ended = true,
            Ok(count) => {
                self.bytes.extend_from_slice(input.bytes());
                input.consume(count);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Some(Step::Wait(conn.due()))),
            Err(_) => return Ok(Some(Step::Close)),
        }
        if self.bytes.capacity() > SMALL {
            self.memory.grow_to(self.bytes.capacity());
            if conn.worker().context.is_full() {
                return Err(NoMemory);
            }
        }
        Ok(None)
    }
}

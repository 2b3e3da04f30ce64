//! What the loop asks of the connections that it serves.

use std::{
    io,
    net::{IpAddr, TcpStream},
    rc::Rc,
};

use super::Worker;

/// One connection of a thread. All its methods are called on that thread.
pub(crate) trait Connection: Sized + 'static {
    /// What the connections of one thread share.
    type Context;

    /// Handles an event of the socket.
    fn ready(self: &Rc<Self>, ready: Ready);

    /// The time that was set for the connection has passed.
    fn expire(self: &Rc<Self>);

    /// The daemon stops: sends the last answers and ends.
    fn farewell(self: &Rc<Self>);

    /// Ends at once, because its own code has panicked.
    fn cut(&self);
}

/// An event of a socket. The socket is watched edge-triggered: an event is reported once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// There are bytes to read, or the end of the client's data.
    pub(crate) readable: bool,
    /// The end has come: the client has closed its sending side, or the connection is broken.
    pub(crate) ended: bool,
}

/// What stands behind a listener: it lets clients in, and decides which protocol they speak.
pub(crate) trait Door<C: Connection> {
    /// Takes a client that has connected, by [`Worker::add`]. A client for which there is no room is told so.
    ///
    /// # Errors
    /// When the machine has no resources left for the connection.
    fn open(&self, stream: TcpStream, peer: IpAddr, worker: &Rc<Worker<C>>) -> io::Result<()>;
}

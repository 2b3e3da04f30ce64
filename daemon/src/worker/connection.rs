//! The interface between the event loop and the connections that it serves.

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

    /// Handles the time-out of the connection.
    fn expire(self: &Rc<Self>);

    /// Sends the last answers and ends the connection, because the daemon stops.
    fn farewell(self: &Rc<Self>);

    /// Ends the connection at once, because its code has panicked.
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

/// Creates the connections of a listener, and so decides which protocol they speak.
pub(crate) trait Door<C: Connection> {
    /// Adds a new connection with [`Worker::add`], or refuses the client if there is no room.
    ///
    /// # Errors
    /// When the machine has no resources left for the connection.
    fn open(&self, stream: TcpStream, peer: IpAddr, worker: &Rc<Worker<C>>) -> io::Result<()>;
}

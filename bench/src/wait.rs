//! Waiting for events.

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollEvent, EpollTimeout},
};

/// As epoll waits, and again when it was interrupted, as by a machine that was stopped for a moment.
pub(crate) fn wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: EpollTimeout,
) -> nix::Result<usize> {
    loop {
        match epoll.wait(events, timeout) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

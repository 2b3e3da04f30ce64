//! Waits for epoll events.

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollEvent, EpollTimeout},
};

/// Waits like epoll, and repeats the wait if a signal interrupted it, for example when the machine was suspended for a
/// moment.
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

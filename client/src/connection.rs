//! One connection to the daemon: it sends bytes and receives lines, with a deadline, and never causes SIGPIPE.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use comet_proto::Pace;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt,
            socket, sockopt::SendTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};

/// Maximum length in bytes of a line from the daemon. The answer to `history` is one line.
pub(crate) const MAX_LINE: usize = 64 << 20;

/// Bytes of the input buffer that stay allocated after a longer line.
const INPUT: usize = 64 << 10;

/// The time at which a call must be finished.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// The remaining time, or `Timeout`.
    fn left(self) -> Result<Duration, Failure> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(Failure::Timeout)
        } else {
            Ok(left)
        }
    }
}

/// Why the connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Timeout,
    Closed,
    TooLong,
}

#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    /// Received bytes. Lines before `taken` are already consumed.
    input: Vec<u8>,
    taken: usize,
    /// The number of bytes that were already searched for a line end.
    searched: usize,
    pace: Pace,
}

impl Connection {
    /// Connects. The error is `EAGAIN` if connecting took too long.
    pub(crate) fn open(path: &Path, deadline: Deadline) -> Result<Self, Errno> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        loop {
            // With a full listen queue `connect` blocks, and only the send time-out limits that.
            let left = deadline.left().map_err(|_| Errno::EAGAIN)?;
            let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1);
            setsockopt(&socket, SendTimeout, &TimeVal::microseconds(micros))?;
            match connect(socket.as_raw_fd(), &address) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        }
        Ok(Self {
            socket,
            input: Vec::new(),
            taken: 0,
            searched: 0,
            pace: Pace::default(),
        })
    }

    /// Sends all of `bytes`. An error has the number of bytes that were sent.
    pub(crate) fn send(
        &mut self,
        bytes: &[u8],
        deadline: Deadline,
    ) -> Result<(), (usize, Failure)> {
        let mut sent = 0;
        while sent < bytes.len() {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.socket.as_raw_fd(), &bytes[sent..], flags) {
                Ok(n) => sent += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    // A daemon that cannot write its replies stops reading, so read replies while waiting to send.
                    let ready = self.wait(PollFlags::POLLOUT | PollFlags::POLLIN, deadline);
                    let ready = ready.map_err(|failure| (sent, failure))?;
                    if ready.contains(PollFlags::POLLIN) {
                        self.fill().map_err(|failure| (sent, failure))?;
                    }
                }
                Err(_) => return Err((sent, Failure::Closed)),
            }
        }
        Ok(())
    }

    /// The next line without its end, if it has already arrived. Reads from the socket once.
    pub(crate) fn line_at_hand(&mut self) -> Result<Option<&[u8]>, Failure> {
        if self.line_end().is_none() {
            self.fill()?;
        }
        Ok(self.take_line())
    }

    /// The next line without its end.
    pub(crate) fn line(&mut self, deadline: Deadline) -> Result<&[u8], Failure> {
        while self.line_end().is_none() {
            if self.input.len() - self.taken > MAX_LINE {
                return Err(Failure::TooLong);
            }
            self.wait_for_input(deadline)?;
        }
        self.take_line().ok_or(Failure::Closed)
    }

    /// The position of the next line end. No byte is searched twice.
    fn line_end(&mut self) -> Option<usize> {
        let begin = self.searched.max(self.taken);
        let end = self.input[begin..].iter().position(|byte| *byte == b'\n');
        self.searched = end.map_or(self.input.len(), |end| begin + end);
        end.map(|_| self.searched)
    }

    fn take_line(&mut self) -> Option<&[u8]> {
        let end = self.line_end()?;
        let start = std::mem::replace(&mut self.taken, end + 1);
        Some(&self.input[start..end])
    }

    /// Waits for the daemon. At first this process polls without sleeping, because the answer often arrives before the process
    /// could fall asleep.
    fn wait_for_input(&mut self, deadline: Deadline) -> Result<(), Failure> {
        let start = Instant::now();
        let awake = self.pace.stays_awake();
        while awake && start.elapsed() < deadline.left()?.min(Pace::AWAKE) {
            if self.fill()? > 0 {
                self.pace.waited(start.elapsed(), false);
                return Ok(());
            }
        }
        self.wait(PollFlags::POLLIN, deadline)?;
        self.fill()?;
        self.pace.waited(start.elapsed(), awake);
        Ok(())
    }

    /// Reads the bytes that have already arrived, without waiting. Returns their number.
    fn fill(&mut self) -> Result<usize, Failure> {
        self.input.drain(..self.taken);
        self.searched = self.searched.saturating_sub(self.taken);
        self.taken = 0;
        if self.input.is_empty() {
            self.input.shrink_to(INPUT);
        }
        let mut chunk = [0; 16 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(Failure::Closed),
                Ok(n) => {
                    self.input.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(0),
                Err(_) => return Err(Failure::Closed),
            }
        }
    }

    fn wait(&self, events: PollFlags, deadline: Deadline) -> Result<PollFlags, Failure> {
        loop {
            let left = deadline.left()?;
            // Rounded up, because a poll that ends early would only be repeated.
            let ms = left.as_micros().div_ceil(1000);
            let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.socket.as_fd(), events)];
            match poll(&mut fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(fds[0].revents().unwrap_or(events)),
                Err(_) => return Err(Failure::Closed),
            }
        }
    }
}

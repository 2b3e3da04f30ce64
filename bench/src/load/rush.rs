//! Opens many connections at the same time, as in a storm.

use std::{
    net::SocketAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::epoll::{EpollEvent, EpollFlags, EpollTimeout},
};

use super::{
    Load,
    connect::{PATIENCE, StormResult, bound},
    connection::PollConnection,
};
use crate::{kind::Kind, message::Fault, wait::wait};

impl Load {
    /// Connects, and sends a poll on each connection as soon as the connection is writable. At most `at_once` connects
    /// run at the same time.
    pub(crate) fn rush(
        kind: Kind,
        addr: SocketAddr,
        channel: &str,
        (count, at_once): (usize, usize),
    ) -> Result<(Self, StormResult)> {
        /// The kernel repeats the first packet after one second.
        const SLOW: Duration = Duration::from_millis(900);
        let mut load = Self::new(kind, addr, channel, count)?;
        let mut request = Vec::new();
        load.target.request(None, &mut request);
        let start = Instant::now();
        let (mut began, mut ready, mut slow) = (Vec::with_capacity(count), 0, 0);
        let mut events = vec![EpollEvent::empty(); 1024];
        while ready < count {
            while began.len() < count && began.len() - ready < at_once {
                began.push(Some(Instant::now()));
                load.begin()?;
            }
            let patience = EpollTimeout::try_from(PATIENCE).unwrap_or(EpollTimeout::MAX);
            let woken = wait(&load.epoll, &mut events, patience)?;
            if woken == 0 {
                bail!("{} connections were never made", began.len() - ready);
            }
            for event in &events[..woken] {
                let i = event.data() as usize;
                let Some(began) = began[i].take() else {
                    load.handle(i)?;
                    continue;
                };
                load.made(i, &mut request)
                    .with_context(|| format!("connection {i} of {count}"))?;
                slow += usize::from(began.elapsed() > SLOW);
                ready += 1;
            }
        }
        let took = start.elapsed();
        Ok((load, StormResult { took, slow }))
    }

    fn begin(&mut self) -> Result<()> {
        let socket = bound()?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.target.addr.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error.into());
            }
            _ => {}
        }
        let event = EpollEvent::new(EpollFlags::EPOLLOUT, self.connections.len() as u64);
        self.epoll.add(socket.as_fd(), event)?;
        self.connections.push(PollConnection::new(socket.into()));
        Ok(())
    }

    fn made(&mut self, i: usize, request: &mut Vec<u8>) -> Result<()> {
        if let Some(error) = self.connections[i].stream().take_error()? {
            self.fault(Fault::Failed, 1, &error.to_string())?;
            self.reconnect(i, &error.to_string())?;
        }
        let connection = &mut self.connections[i];
        connection.stream().set_nodelay(true)?;
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
        self.epoll.modify(connection.stream(), &mut event)?;
        connection.poll(&self.target, request)
    }
}

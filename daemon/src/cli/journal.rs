//! Log lines for the journal: each begins with its priority, `<4>` for a warning (sd-daemon(3)). The journal has the time.

use std::{
    env,
    io::{self, Write},
};

use nix::sys::stat::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether standard error is the journal: systemd names the stream's device and inode in `JOURNAL_STREAM`.
pub(super) fn is_connected() -> bool {
    let Ok(stat) = fstat(io::stderr()) else {
        return false;
    };
    let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
    env::var("JOURNAL_STREAM").is_ok_and(|named| named == stream)
}

/// Writes log lines to standard error, each with its priority in front.
pub(super) struct Journal;

/// Writes one log event in one piece. The number is its priority.
pub(super) struct JournalLine(u8);

impl<'a> MakeWriter<'a> for Journal {
    type Writer = JournalLine;

    fn make_writer(&self) -> JournalLine {
        JournalLine(6)
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> JournalLine {
        // The priorities of syslog(3).
        JournalLine(match *event.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        })
    }
}

impl Write for JournalLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut out = Vec::with_capacity(event.len() + 16);
        for line in event.split_inclusive(|&byte| byte == b'\n') {
            out.extend_from_slice(format!("<{}>", self.0).as_bytes());
            out.extend_from_slice(line);
        }
        io::stderr().write_all(&out)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

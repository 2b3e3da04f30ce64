//! The published messages. Every message differs from all others of all runs and states its run, channel and number. So
//! a message that is lost, doubled, out of order or foreign can be recognised.

use std::{
    fmt,
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// The messages of one publisher on one channel.
pub(crate) struct Series {
    run: u64,
    channel: String,
    last: u64,
}

impl Series {
    pub(crate) fn new(channel: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_micros() as u64);
        Self {
            run: now.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)),
            channel: channel.into(),
            last: 0,
        }
    }

    /// Returns the data of the next message: `length` bytes or a few more.
    pub(crate) fn next(&mut self, length: usize) -> String {
        self.last += 1;
        self.numbered(&self.last.to_string(), length)
    }

    /// Returns data with a number that the caller counts.
    pub(crate) fn numbered(&self, number: &str, length: usize) -> String {
        let data = format!("{:x}.{number}.{}", self.run, self.channel);
        format!("{data:.<length$}")
    }
}

/// The run, number and channel that a message states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    pub(crate) run: u64,
    /// Number of the message in its series. Numbers begin at 1 and have no gaps.
    pub(crate) number: u64,
    pub(crate) channel: &'a str,
}

impl<'a> Stamp<'a> {
    pub(crate) fn read(data: &'a str) -> Option<Self> {
        let mut parts = data.splitn(3, '.');
        Some(Self {
            run: u64::from_str_radix(parts.next()?, 16).ok()?,
            number: parts.next()?.parse().ok()?,
            channel: parts.next()?.trim_end_matches('.'),
        })
    }
}

/// What went wrong with one message at one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The message did not arrive.
    Lost,
    /// The message arrived again.
    Doubled,
    /// An older message arrived after this one.
    Reordered,
    /// The message is of another channel or another run.
    Foreign,
    /// The poll was refused, or its connection was closed.
    Failed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Foreign => "foreign",
            Self::Failed => "failed",
        })
    }
}

/// Judges `data` when the message `due` was expected, at a client that has seen the messages of this series up to
/// `seen`. `Ok(true)`: this is the expected message.
pub(crate) fn judge(data: &str, due: &str, seen: u64) -> Result<bool, Fault> {
    if data == due {
        return Ok(true);
    }
    match (Stamp::read(data), Stamp::read(due)) {
        (Some(got), Some(due)) if (got.run, got.channel) == (due.run, due.channel) => {
            match got.number {
                number if number == seen => Err(Fault::Doubled),
                number if number < seen => Err(Fault::Reordered),
                // A message that was already counted as lost arrives after all.
                number if number < due.number => Ok(false),
                _ => Err(Fault::Foreign),
            }
        }
        _ => Err(Fault::Foreign),
    }
}

/// Number of faults of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    pub(crate) foreign: u64,
    pub(crate) failed: u64,
}

impl Faults {
    pub(crate) fn count(&mut self, fault: Fault, times: u64) {
        *match fault {
            Fault::Lost => &mut self.lost,
            Fault::Doubled => &mut self.doubled,
            Fault::Reordered => &mut self.reordered,
            Fault::Foreign => &mut self.foreign,
            Fault::Failed => &mut self.failed,
        } += times;
    }

    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.failed += other.failed;
    }
}

/// Prints, for example, `lost 4, failed 1`.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (Fault::Lost, self.lost),
            (Fault::Doubled, self.doubled),
            (Fault::Reordered, self.reordered),
            (Fault::Foreign, self.foreign),
            (Fault::Failed, self.failed),
        ];
        for (i, (fault, count)) in all.iter().filter(|(_, count)| *count > 0).enumerate() {
            write!(f, "{}{fault} {count}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_they_are() {
        let (mut series, mut other) = (Series::new("news"), Series::new("news"));
        let (first, second, foreign) = (series.next(100), series.next(100), other.next(100));
        assert_eq!(first.len(), 100);
        assert_ne!(first, foreign);
        let stamp = Stamp::read(&second).unwrap();
        assert_eq!((stamp.number, stamp.channel), (2, "news"));
        assert_eq!(Stamp::read("hello"), None);
    }

    #[test]
    fn what_is_not_due_is_told_apart() {
        let mut series = Series::new("news");
        let mut elsewhere = Series::new("news");
        let all: Vec<String> = (0..5).map(|_| series.next(0)).collect();
        assert_eq!(judge(&all[3], &all[3], 3), Ok(true));
        assert_eq!(judge(&all[2], &all[3], 3), Err(Fault::Doubled));
        assert_eq!(judge(&all[1], &all[3], 3), Err(Fault::Reordered));
        assert_eq!(judge(&all[2], &all[3], 2), Ok(false));
        assert_eq!(judge(&all[4], &all[3], 3), Err(Fault::Foreign));
        assert_eq!(judge(&elsewhere.next(0), &all[3], 3), Err(Fault::Foreign));
        assert_eq!(judge("hello", &all[3], 3), Err(Fault::Foreign));
    }

    #[test]
    fn faults_are_shown_by_name() {
        let mut faults = Faults::default();
        assert!(!faults.any());
        faults.count(Fault::Lost, 4);
        faults += faults;
        faults.count(Fault::Failed, 1);
        assert_eq!(faults.to_string(), "lost 8, failed 1");
    }
}

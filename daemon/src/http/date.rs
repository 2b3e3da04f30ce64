//! The system's clock: for tokens, and for the `Date` header of answers.

use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The time since 1970 by the system's clock, by which tokens expire.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The value of the `Date` header, formatted once a second.
#[derive(Default)]
pub(crate) struct DateLine {
    second: Cell<u64>,
    text: RefCell<String>,
}

impl DateLine {
    /// Formats the time again if the second has changed.
    pub(crate) fn refresh(&self) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.second.replace(second) != second {
            // Reuse the block. A new one each second could end up at the end of the heap, which could not shrink then.
            let text = &mut *self.text.borrow_mut();
            text.clear();
            let _ = write!(text, "{}", httpdate::HttpDate::from(now)); // writing to a String cannot fail
        }
    }

    pub(super) fn with(&self, write: impl FnOnce(&str)) {
        if self.second.get() == 0 {
            self.refresh();
        }
        write(&self.text.borrow());
    }
}

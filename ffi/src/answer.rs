//! Text that a caller in C borrows after a call has returned.

use std::{cell::RefCell, ffi::c_char};

thread_local! {
    /// The thread's last answer, with a NUL at its end.
    static LAST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the text until this thread keeps another one. Returns where the text is, and its length without the NUL.
pub(crate) fn keep(mut text: Vec<u8>) -> (*const c_char, usize) {
    let length = text.len();
    text.push(0);
    LAST.with_borrow_mut(|last| {
        *last = text;
        (last.as_ptr().cast(), length)
    })
}

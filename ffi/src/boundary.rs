//! The boundary of every call from C: no panic crosses it, and the reason of a failure can be read afterwards.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char},
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use crate::{
    handle::Handle,
    result::{CometResult, Fault},
};

#[cfg(all(panic = "abort", not(test)))]
compile_error!(
    "libcomet turns panics into COMET_RESULT_PANIC and must be built with panic = \"unwind\""
);

thread_local! {
    /// The thread's last failure: the address of its handle, and the text. Each thread has its own text, so no other
    /// thread can free a text that this one still reads.
    static LAST: RefCell<(usize, CString)> = RefCell::default();
    /// The text of the thread's last panic.
    static PANIC: RefCell<String> = RefCell::default();
}

/// Runs a call, turns a panic into [`CometResult::Panic`], and stores the reason of a failure.
pub(crate) fn boundary<T: Into<CometResult>>(
    handle: *const Handle,
    call: impl FnOnce() -> Result<T, Fault>,
) -> CometResult {
    quieten();
    let fault = match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => return done.into(),
        Ok(Err(fault)) => fault,
        Err(_) => Fault {
            result: CometResult::Panic,
            text: PANIC.try_with(RefCell::take).unwrap_or_default(),
        },
    };
    let text = CString::new(fault.text.replace('\0', "\\0")).unwrap_or_default();
    // Fails only while the thread ends, and then nobody can ask for the text any more.
    let _ = LAST.try_with(|last| last.replace((handle.addr(), text)));
    fault.result
}

/// The text of the last failure on `handle`; with NULL, of the last failure on any handle.
pub(crate) fn last_error(handle: *const Handle) -> *const c_char {
    let text = LAST.try_with(|last| {
        let last = last.borrow();
        let asked = handle.is_null() || handle.addr() == last.0;
        asked.then(|| last.1.as_ptr())
    });
    text.ok().flatten().unwrap_or(const { CStr::as_ptr(c"") })
}

/// Removes the failure of an earlier handle at the same address: a new handle has no failure yet.
pub(crate) fn forget(handle: *const Handle) {
    let _ = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        if last.0 == handle.addr() {
            *last = Default::default();
        }
    });
}

/// Stores a panic's text for [`last_error`], instead of printing it into the page that PHP is rendering. Only this
/// library's own panics call this hook, because it is linked to its own copy of the standard library.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let text = format!("fault in libcomet, please report it: {info}");
            let _ = PANIC.try_with(|last| last.replace(text));
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn a_new_handle_has_no_error_of_one_that_had_its_address() {
        let handle = ptr::without_provenance::<Handle>(64);
        let fail = || {
            Err::<(), _>(Fault {
                result: CometResult::Panic,
                text: "old".into(),
            })
        };
        boundary(handle, fail);
        forget(ptr::without_provenance(128));
        // SAFETY: a text of this thread, which no call has replaced since.
        let text = || unsafe { CStr::from_ptr(last_error(handle)) };
        assert_eq!(text(), c"old");
        forget(handle);
        assert_eq!(text(), c"");
    }
}

//! libcomet: casts, checks and the panic boundary over `comet-client`. `include/comet.h` is made from this
//! file and `result.rs`, so their comments speak to C programmers.

mod answer;
mod boundary;
mod handle;
mod result;

use std::{
    ffi::{CStr, c_char},
    ptr, slice,
};

use comet_client::{
    Acknowledge, Options, OptionsError, Outcome,
    proto::{
        ChannelName, ChannelNames, Cursor, EventName,
        line::{Publish, parse_key},
    },
};

use boundary::boundary;
use result::Fault;

pub use handle::Handle;
pub use result::{CometFlag, CometResult, Receipt};

/// Version of this interface: major in the upper 16 bits, minor in the lower. Minor versions only add.
const ABI_VERSION: u32 = 1 << 16 | 2;

/// The version of the interface: major << 16 | minor. A program made for another major version must not go on.
#[unsafe(no_mangle)]
pub extern "C" fn comet_abi_version() -> u32 {
    ABI_VERSION
}

/// The version of the library as text, such as "0.1.0". Static.
#[unsafe(no_mangle)]
pub extern "C" fn comet_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Makes a handle of its own for `dsn` and stores it in `out`: `unix:[PATH][?timeout_ms=500&dir=/dev/shm&key=PREFIX&spool=on]`,
/// with %XX for special characters; NULL or "" mean the defaults. Does not connect yet. Threads may share the handle.
///
/// PATH: the daemon's socket; else COMET_SOCKET, else /run/comet/comet.sock, else $XDG_RUNTIME_DIR/comet.sock.
/// timeout_ms: the longest that a call may take, 1 to 60000. dir: where comet_touch and comet_write put files.
/// key: gives every message an idempotency key that starts so; a publish whose acknowledgement was lost is then
/// repeated, and still published once. spool: "on", "off", or the directory where all messages wait while the daemon is
/// away, as with COMET_FLAG_SPOOL; else PATH with ".spool" in place of ".sock", for calls with that flag.
///
/// # Safety
/// `dsn` is NULL or ends with a NUL; `out` takes a pointer. The caller owns the handle and passes it to comet_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_open(dsn: *const c_char, out: *mut *mut Handle) -> CometResult {
    boundary(ptr::null(), || {
        not_null(out)?;
        // SAFETY: the caller's promise.
        let handle = Handle::new(options(unsafe { text(dsn) })?);
        let handle = Box::into_raw(Box::new(handle));
        boundary::forget(handle);
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(handle) };
        Ok(())
    })
}

/// Like comet_open, but one handle per process, thread and dsn, with its connection: for PHP, where it survives
/// requests. It belongs to the library, which keeps it until the thread ends; comet_close leaves it alone.
///
/// # Safety
/// As for comet_open; the handle may be used as long as the thread that asked for it lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_popen(dsn: *const c_char, out: *mut *mut Handle) -> CometResult {
    boundary(ptr::null(), || {
        not_null(out)?;
        // SAFETY: the caller's promise.
        let handle = handle::pooled(unsafe { text(dsn) }, options)?;
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(handle.cast_mut()) };
        Ok(())
    })
}

/// Publishes `len` bytes, any bytes, to the channel. Without flags returns when the daemon has the message and fills
/// `out` with its receipt; `out` may be NULL. COMET_RESULT_TIMEOUT and COMET_RESULT_UNKNOWN leave open whether the
/// message was published. `flags`: 0 or comet_flag values; with COMET_FLAG_SPOOL all three ways in which a daemon can be
/// away end in COMET_RESULT_SPOOLED.
///
/// # Safety
/// `c` is a live handle; `channel` and `data` point to so many bytes (`data` may be NULL if there are none);
/// `out` is NULL or takes a receipt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_publish(
    c: *mut Handle,
    channel: *const c_char,
    channel_len: usize,
    data: *const c_char,
    len: usize,
    flags: u32,
    out: *mut Receipt,
) -> CometResult {
    boundary(c, || {
        // SAFETY: the caller's promise.
        let (handle, channel) = unsafe { (handle(c)?, channel_name(channel, channel_len)?) };
        let how = meaning(flags)?;
        // SAFETY: the caller's promise.
        let data = unsafe { bytes(data, len)? };
        let publish = Publish {
            channel,
            name: EventName::default(),
            data: data.into(),
            key: None,
        };
        // SAFETY: the caller's promise.
        unsafe { send(handle, publish, how, out) }
    })
}

/// Like comet_publish, with a label and an idempotency key for the message. Either may be NULL, or empty, for none.
///
/// name: the message's label, up to 128 bytes of text without control characters. key: up to 128 bytes of text; what is
/// published again with the key that it had, on the same channel and within ten minutes, is not published twice, and
/// the receipt has the first number. It takes the place of the key that the handle's DSN would give.
///
/// # Safety
/// As for comet_publish; `name` and `key` are NULL or point to so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_publish_named(
    c: *mut Handle,
    channel: *const c_char,
    channel_len: usize,
    name: *const c_char,
    name_len: usize,
    key: *const c_char,
    key_len: usize,
    data: *const c_char,
    len: usize,
    flags: u32,
    out: *mut Receipt,
) -> CometResult {
    boundary(c, || {
        // SAFETY: the caller's promise.
        let (handle, channel) = unsafe { (handle(c)?, channel_name(channel, channel_len)?) };
        let how = meaning(flags)?;
        // SAFETY: the caller's promise.
        let (name, key, data) = unsafe {
            (
                bytes(name, name_len)?,
                bytes(key, key_len)?,
                bytes(data, len)?,
            )
        };
        let publish = Publish {
            channel,
            name: EventName::parse_bytes(name)?,
            data: data.into(),
            key: parse_key(key)?.map(Into::into),
        };
        // SAFETY: the caller's promise.
        unsafe { send(handle, publish, how, out) }
    })
}

/// Sends what COMET_FLAG_BUFFER has gathered and waits until all that was published on this handle is acknowledged.
/// Tells the first error that no call has told yet, or COMET_RESULT_SPOOLED when messages that nobody waited for went to
/// the spool. Whatever the result, nothing is left in the buffer.
///
/// # Safety
/// `c` is a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_flush(c: *mut Handle) -> CometResult {
    boundary(c, || {
        // SAFETY: the caller's promise.
        let handle = unsafe { handle(c)? };
        Ok(match handle.with_client(|client| client.flush())? {
            0 => CometResult::Ok,
            _ => CometResult::Spooled,
        })
    })
}

/// Stores the id of the newest message of all channels in `out`. A page that reads its state after this call, and whose
/// browser subscribes from this id, misses nothing. Buffered messages are published first.
///
/// # Safety
/// `c` is a live handle; `out` takes a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_cursor(c: *mut Handle, out: *mut u64) -> CometResult {
    boundary(c, || {
        not_null(out)?;
        // SAFETY: the caller's promise.
        let cursor = unsafe { handle(c)? }.with_client(|client| client.cursor())?;
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(cursor.0) };
        Ok(())
    })
}

/// Stores in `out` what the daemon keeps of some channels after the message `since`, oldest first, as JSON text that ends
/// with a NUL: `{"ok":true,"cursor":"ID","gap":false,"messages":[{"channel":"news","id":1,"name":"","data":"hi"}]}`.
/// `gap` is true when older messages after `since` are gone. Data that is no UTF-8 is base64, and `"encoding":"base64"`
/// says so. `channels`: 1 to 100 names with commas in between. `since`: an id, or 0 for all that is kept. `len` may be
/// NULL; it gets the length of the text in bytes. Buffered messages are published first.
///
/// # Safety
/// `c` is a live handle; `channels` points to so many bytes; `out` takes a pointer. The text belongs to the library, and
/// lives until this thread's next comet_history.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_history(
    c: *mut Handle,
    channels: *const c_char,
    channels_len: usize,
    since: u64,
    out: *mut *const c_char,
    len: *mut usize,
) -> CometResult {
    boundary(c, || {
        not_null(channels)?;
        not_null(out)?;
        // SAFETY: the caller's promise.
        let (handle, names) = unsafe { (handle(c)?, bytes(channels, channels_len)?) };
        let names = names
            .split(|byte| *byte == b',')
            .map(ChannelName::parse_bytes);
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let names = ChannelNames::parse(names.iter().map(|name| &**name))?;
        let text = handle.with_client(|client| client.history(&names, Cursor(since)))?;
        let (text, length) = answer::keep(text);
        // SAFETY: not null, and the caller's promise.
        unsafe {
            out.write(text);
            if !len.is_null() {
                len.write(length);
            }
        }
        Ok(())
    })
}

/// Publishes by touching the channel's file in the handle's directory, as `touch DIR/CHANNEL.comet` does. Needs no
/// daemon now. Touches in quick succession may become one message.
///
/// # Safety
/// `c` is a live handle; `channel` points to so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_touch(
    c: *mut Handle,
    channel: *const c_char,
    channel_len: usize,
) -> CometResult {
    boundary(c, || {
        // SAFETY: the caller's promise.
        let (handle, channel) = unsafe { (handle(c)?, channel_name(channel, channel_len)?) };
        Ok(handle.directory()?.touch(&channel)?)
    })
}

/// Publishes by replacing the channel's file in the handle's directory: no reader ever sees half of the data. Needs no
/// daemon now. Writes in quick succession may become one message, the last.
///
/// # Safety
/// As for comet_publish.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_write(
    c: *mut Handle,
    channel: *const c_char,
    channel_len: usize,
    data: *const c_char,
    len: usize,
) -> CometResult {
    boundary(c, || {
        // SAFETY: the caller's promise.
        let (handle, channel) = unsafe { (handle(c)?, channel_name(channel, channel_len)?) };
        // SAFETY: the caller's promise.
        let data = unsafe { bytes(data, len)? };
        Ok(handle.directory()?.write(&channel, data)?)
    })
}

/// Why the last call that failed on this handle in this thread did, or "". NULL asks for the thread's last failed call,
/// which is how to learn why comet_open failed. Borrowed until the thread's next call that fails.
#[unsafe(no_mangle)]
pub extern "C" fn comet_error(c: *const Handle) -> *const c_char {
    boundary::last_error(c)
}

/// Sends what is buffered, without telling how that went (comet_flush does), and frees the handle. NULL is allowed.
///
/// # Safety
/// `c` is NULL or a handle of comet_open or comet_popen; one of comet_open is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_close(c: *mut Handle) {
    boundary(c, || {
        // SAFETY: the caller's promise; a pooled handle is the pool's to free.
        match unsafe { c.as_ref() } {
            Some(handle) if !handle.is_pooled() => {
                // SAFETY: comet_open made it from a Box, and nobody uses it again.
                drop(unsafe { Box::from_raw(c) });
            }
            _ => {}
        }
        Ok(())
    });
}

fn options(dsn: &[u8]) -> Result<Options, Fault> {
    let dsn = str::from_utf8(dsn).map_err(|_| OptionsError::NotUtf8)?;
    Ok(Options::parse(dsn)?)
}

/// When to return, and whether the message may go to the spool.
fn meaning(flags: u32) -> Result<(Acknowledge, bool), Fault> {
    let [no_ack, buffer, spool] =
        [CometFlag::NoAck, CometFlag::Buffer, CometFlag::Spool].map(|flag| flag as u32);
    if flags & !(no_ack | buffer | spool) != 0 {
        return Err(Fault::flags(flags));
    }
    let acknowledge = match flags & !spool {
        0 => Acknowledge::Each,
        flags if flags & buffer != 0 => Acknowledge::Buffered,
        _ => Acknowledge::Later,
    };
    Ok((acknowledge, flags & spool != 0))
}

/// Publishes, and fills the receipt if there is one.
///
/// # Safety
/// `out` is NULL or takes a receipt.
unsafe fn send(
    handle: &Handle,
    publish: Publish<'_>,
    (acknowledge, spool): (Acknowledge, bool),
    out: *mut Receipt,
) -> Result<Outcome, Fault> {
    let outcome = handle.publish(publish, acknowledge, spool)?;
    if !out.is_null() {
        let id = outcome.id().unwrap_or(0);
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(Receipt { id }) };
    }
    Ok(outcome)
}

fn not_null<T>(pointer: *const T) -> Result<(), Fault> {
    if pointer.is_null() {
        Err(Fault::null())
    } else {
        Ok(())
    }
}

/// # Safety
/// NULL or a live handle.
unsafe fn handle<'a>(c: *const Handle) -> Result<&'a Handle, Fault> {
    // SAFETY: the caller's promise. Handles are shared between threads and lock themselves.
    unsafe { c.as_ref() }.ok_or_else(Fault::null)
}

/// # Safety
/// NULL or so many bytes.
unsafe fn channel_name(channel: *const c_char, len: usize) -> Result<ChannelName, Fault> {
    not_null(channel)?;
    // SAFETY: the caller's promise.
    Ok(ChannelName::parse_bytes(unsafe { bytes(channel, len)? })?)
}

/// # Safety
/// NULL or so many bytes.
unsafe fn bytes<'a>(data: *const c_char, len: usize) -> Result<&'a [u8], Fault> {
    if data.is_null() {
        return if len == 0 {
            Ok(&[])
        } else {
            Err(Fault::null())
        };
    }
    if isize::try_from(len).is_err() {
        return Err(Fault::length(len)); // a negative number, most likely
    }
    // SAFETY: not null, no longer than an object can be, and the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// # Safety
/// NULL or a string that ends with a NUL.
unsafe fn text<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

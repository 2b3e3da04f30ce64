//! libcomet: casts, checks and the panic boundary over `comet-client`. `include/comet.h` is generated from this
//! file and `result.rs`, so their comments address C programmers.

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

/// Version of this interface: major in the upper 16 bits, minor in the lower 16. Minor versions only add functions and values.
const ABI_VERSION: u32 = 1 << 16 | 2;

/// The version of the loaded library's interface: major << 16 | minor. A program built for another major version must not go on.
#[unsafe(no_mangle)]
pub extern "C" fn comet_abi_version() -> u32 {
    ABI_VERSION
}

/// The version of the library as text, such as "0.1.0". The text is static.
#[unsafe(no_mangle)]
pub extern "C" fn comet_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Creates a new handle for `dsn` and stores it in `out`. The DSN is `unix:[PATH][?timeout_ms=500&dir=/dev/shm&key=PREFIX&spool=on]`,
/// with %XX for special characters; NULL or "" means the defaults. Does not connect yet. Threads may share the handle.
///
/// PATH: the daemon's socket; else COMET_SOCKET, else /run/comet/comet.sock, else $XDG_RUNTIME_DIR/comet.sock.
/// timeout_ms: the longest time that a call may take, 1 to 60000. dir: the directory of comet_touch and comet_write.
/// key: gives every message an idempotency key with this prefix; a publish whose acknowledgement was lost is then
/// repeated, and still published once. spool: "on", or a directory: every call acts as with COMET_FLAG_SPOOL; "off": the flag is
/// ignored. Without a directory the spool is PATH with ".spool" in place of ".sock".
///
/// # Safety
/// `dsn` is NULL or ends with a NUL; `out` points to room for a pointer. The caller owns the handle and passes it to comet_close.
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

/// Like comet_open, but returns the same handle for each process, thread and dsn, so that its connection survives PHP
/// requests. The library owns the handle and keeps it until the thread ends; comet_close does not free it.
///
/// # Safety
/// As for comet_open; the handle may be used as long as the thread that opened it lives.
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

/// Publishes `len` bytes, any bytes, to the channel. `channel` may list up to 100 channels, separated by commas: one message, with
/// one id, for all of them. Without flags the call returns when the daemon has the message, and stores
/// the message's receipt in `out`, which may be NULL. After COMET_RESULT_TIMEOUT and COMET_RESULT_UNKNOWN the message may or may
/// not have been published. `flags`: 0 or comet_flag values. With COMET_FLAG_SPOOL the call returns COMET_RESULT_SPOOLED in
/// place of COMET_RESULT_CONNECT, COMET_RESULT_TIMEOUT and COMET_RESULT_UNKNOWN.
///
/// # Safety
/// `c` is a live handle; `channel` and `data` point to as many bytes as their lengths say (`data` may be NULL if `len` is 0);
/// `out` is NULL or points to a receipt.
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
        let (handle, channels) = unsafe { (handle(c)?, channel_names(channel, channel_len)?) };
        let how = meaning(flags)?;
        // SAFETY: the caller's promise.
        let data = unsafe { bytes(data, len)? };
        let publish = Publish {
            channels,
            name: EventName::default(),
            data: data.into(),
            attributes: None,
            key: None,
        };
        // SAFETY: the caller's promise.
        unsafe { send(handle, publish, how, out) }
    })
}

/// Like comet_publish, with a label and an idempotency key for the message. NULL or an empty text means none.
///
/// name: the message's label, up to 200 bytes of text without control characters. key: up to 128 bytes of text. When a message
/// with the same key was published on the same channel in the last ten minutes, nothing is published, and
/// the receipt has the id of the first message. The key replaces the key that the handle's DSN would give.
///
/// # Safety
/// As for comet_publish; `name` and `key` are NULL or point to as many bytes as their lengths say.
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
        let (handle, channels) = unsafe { (handle(c)?, channel_names(channel, channel_len)?) };
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
            channels,
            name: EventName::parse_bytes(name)?,
            data: data.into(),
            attributes: None,
            key: parse_key(key)?.map(Into::into),
        };
        // SAFETY: the caller's promise.
        unsafe { send(handle, publish, how, out) }
    })
}

/// Sends the messages in the buffer (COMET_FLAG_BUFFER), and waits until all messages of this handle are acknowledged.
/// Returns the first error that no earlier call has returned, or COMET_RESULT_SPOOLED when messages without an awaited
/// acknowledgement went to the spool. The buffer is empty afterwards, whatever the result.
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

/// Stores the id of the newest message of all channels in `out`. Call it before reading the state of a page, and let the
/// browser subscribe from this id: then it misses no message. Buffered messages are published first.
///
/// # Safety
/// `c` is a live handle; `out` points to room for a number.
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

/// Stores in `out` the messages of some channels that the daemon keeps after the id `since`, oldest first, as JSON text that ends
/// with a NUL: `{"ok":true,"cursor":"ID","gap":false,"messages":[{"channel":"news","id":1,"name":"","data":"hi"}]}`.
/// `gap` is true when messages after `since` are no longer kept. Data that is not UTF-8 is base64, and `"encoding":"base64"`
/// says so. `channels`: 1 to 100 names, separated by commas. `since`: an id, or 0 for everything that is kept. `len` gets the
/// length of the text in bytes, and may be NULL. Buffered messages are published first.
///
/// # Safety
/// `c` is a live handle; `channels` points to as many bytes as its length says; `out` points to room for a pointer. The library
/// owns the text, which is valid until this thread's next comet_history.
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
        not_null(out)?;
        // SAFETY: the caller's promise.
        let (handle, names) = unsafe { (handle(c)?, channel_names(channels, channels_len)?) };
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

/// Publishes by touching the channel's file in the handle's directory, as `touch DIR/CHANNEL.comet` does. The daemon need not
/// run during the call. Touches in quick succession may become one message.
///
/// # Safety
/// `c` is a live handle; `channel` points to as many bytes as its length says.
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

/// Publishes by replacing the channel's file in the handle's directory, so that no reader ever sees half of the data. The daemon
/// need not run during the call. Writes in quick succession may become one message, the last.
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

/// The reason why the last failed call on this handle in this thread failed, or "". NULL asks for the thread's last failed call on any
/// handle, for example after comet_open failed. The text is valid until the thread's next call that fails.
#[unsafe(no_mangle)]
pub extern "C" fn comet_error(c: *const Handle) -> *const c_char {
    boundary::last_error(c)
}

/// Sends buffered messages without reporting errors (call comet_flush first for that), and frees the handle. NULL is allowed.
///
/// # Safety
/// `c` is NULL or a handle of comet_open or comet_popen. A handle of comet_open must not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn comet_close(c: *mut Handle) {
    boundary(c, || {
        // SAFETY: the caller's promise. The pool frees pooled handles.
        match unsafe { c.as_ref() } {
            Some(handle) if !handle.is_pooled() => {
                // SAFETY: comet_open created it from a Box, and the caller promises not to use it again.
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

/// Decodes `flags`: when to return, and whether the message may go to the spool.
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

/// Publishes, and fills the receipt if `out` is not NULL.
///
/// # Safety
/// `out` is NULL or points to a receipt.
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
/// The pointer is NULL or a live handle.
unsafe fn handle<'a>(c: *const Handle) -> Result<&'a Handle, Fault> {
    // SAFETY: the caller's promise. Threads may share a handle, because it locks itself.
    unsafe { c.as_ref() }.ok_or_else(Fault::null)
}

/// # Safety
/// The pointer is NULL, or points to `len` bytes.
unsafe fn channel_name(channel: *const c_char, len: usize) -> Result<ChannelName, Fault> {
    not_null(channel)?;
    // SAFETY: the caller's promise.
    Ok(ChannelName::parse_bytes(unsafe { bytes(channel, len)? })?)
}

/// Parses channels that are separated by commas.
///
/// # Safety
/// The pointer is NULL, or points to `len` bytes.
unsafe fn channel_names(channels: *const c_char, len: usize) -> Result<ChannelNames, Fault> {
    not_null(channels)?;
    // SAFETY: the caller's promise.
    let names = unsafe { bytes(channels, len)? };
    if !names.contains(&b',') {
        return Ok(ChannelName::parse_bytes(names)?.into());
    }
    let names = names
        .split(|byte| *byte == b',')
        .map(ChannelName::parse_bytes);
    let names = names.collect::<Result<Vec<_>, _>>()?;
    Ok(ChannelNames::parse(names.iter().map(|name| &**name))?)
}

/// # Safety
/// The pointer is NULL, or points to `len` bytes.
unsafe fn bytes<'a>(data: *const c_char, len: usize) -> Result<&'a [u8], Fault> {
    if data.is_null() {
        return if len == 0 {
            Ok(&[])
        } else {
            Err(Fault::null())
        };
    }
    if isize::try_from(len).is_err() {
        return Err(Fault::length(len)); // most likely a negative number
    }
    // SAFETY: not null, no longer than an object can be, and the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// # Safety
/// The pointer is NULL or a string that ends with a NUL.
unsafe fn text<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

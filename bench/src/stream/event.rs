//! The events of a stream, the same for both transports.

#[derive(Debug)]
pub(super) enum Event<'a> {
    Message(&'a [u8]),
    Gap,
    Ping(&'a [u8]),
    Close,
}

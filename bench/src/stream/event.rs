//! What a stream brings, on either transport.

#[derive(Debug)]
pub(super) enum Event<'a> {
    Message(&'a [u8]),
    Gap,
    Ping(&'a [u8]),
    Close,
}

//! A long-poll's answer: the part of HTTP and JSON that is needed to check one.

use serde::Deserialize;

/// The body of an answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer<'a> {
    pub(crate) cursor: &'a str,
    pub(crate) gap: bool,
    #[serde(borrow)]
    pub(crate) messages: Vec<Message<'a>>,
}

/// One message of it; the bench publishes nothing that JSON has to escape.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message<'a> {
    pub(crate) channel: &'a str,
    pub(crate) id: u64,
    #[expect(dead_code, reason = "an answer without it would not be one")]
    pub(crate) name: &'a str,
    pub(crate) data: &'a str,
}

/// The length of the answer's head and body at the start of `bytes`; `None`: it is not complete.
pub(crate) fn complete(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(format!(
            "{status:?}: {}",
            String::from_utf8_lossy(&bytes[end..])
        ));
    }
    let length = lines.filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length
        .last()
        .and_then(|(_, value)| value.trim().parse().ok());
    let length: usize = length.ok_or("an answer without content-length")?;
    let head = end + 4;
    Ok((bytes.len() >= head + length).then_some((head, length)))
}

//! Reads `If-None-Match` as a cursor. The `ETag` of a poll's answer is its cursor. Proxies and caches may have changed
//! the tag before the client sends it back.

use std::iter;

use comet_proto::Since;

use super::parameters::UNKNOWN;
use crate::http::request::{Request, text};

/// Suffixes that proxies append to a tag when they compress the answer, without the separator before them.
const CODINGS: [&str; 9] = [
    "gzip", "x-gzip", "br", "zstd", "deflate", "df", "compress", "dcb", "dcz",
];

/// The newest cursor among the tags of all `If-None-Match` headers. [`UNKNOWN`]: there are tags, but none is a cursor.
/// `None`: there are no tags.
pub(crate) fn cursor(request: &Request<'_>) -> Option<Since> {
    let mut is_given = false;
    let tags = request
        .values("if-none-match")
        .map(|value| text(value).unwrap_or("?"))
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .inspect(|_| is_given = true);
    let newest = tags.filter_map(of_tag).max_by_key(Since::micros);
    newest.or(is_given.then_some(UNKNOWN))
}

/// The cursor in one tag (RFC 9110, section 8.8.3). The tag may be weak or strong, with or without an appended coding,
/// and with or without quotes.
pub(crate) fn of_tag(tag: &str) -> Option<Since> {
    let tag = match tag.split_at_checked(2) {
        Some((weak, tag)) if weak.eq_ignore_ascii_case("w/") => tag,
        _ => tag,
    };
    let bare = |text: &str| Since::parse(text.trim_matches('"')).ok();
    // Each proxy between client and daemon may have appended a coding.
    iter::successors(Some(tag), |tag| without_coding(tag)).find_map(bare)
}

/// Removes one coding from the end of a tag. Apache appends `-gzip` inside the quotes (old versions: after them), Jetty
/// appends `--gzip`, others `;gzip`.
fn without_coding(tag: &str) -> Option<&str> {
    let tag = tag.trim_end_matches('"');
    let at = tag.rfind(['-', ';', ':', '+'])?;
    let (tag, coding) = (&tag[..at], &tag[at + 1..]);
    let is_known = CODINGS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(coding));
    let tag = tag
        .strip_suffix("-x")
        .filter(|_| coding == "gzip")
        .unwrap_or(tag);
    is_known.then(|| tag.trim_end_matches(['-', ';']))
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::*;

    fn read(values: &[&str]) -> Option<u64> {
        let lines = values.iter().map(|value| httparse::Header {
            name: "If-None-Match",
            value: value.as_bytes(),
        });
        let lines: Vec<_> = lines.collect();
        let request = Request::new(Method::GET, "/ch/a", &lines);
        cursor(&request).map(|since| since.micros())
    }

    #[test]
    fn a_tag_that_proxies_have_changed_is_still_read_as_its_cursor() {
        for tag in [
            "\"1795806138183701\"",
            "W/\"1795806138183701\"",
            "w/\"1795806138183701\"",
            "\"1795806138183701-gzip\"",
            "\"1795806138183701--gzip\"",
            "\"1795806138183701;gzip\"",
            "\"1795806138183701-br\"",
            "\"1795806138183701-zstd\"",
            "\"1795806138183701-x-gzip\"",
            "\"1795806138183701-gzip-gzip\"",
            "W/\"1795806138183701-br;gzip\"",
            "\"1795806138183701-gzip\"-gzip",
            "\"1795806138183701-GZIP\"",
            "W/\"1795806138183701-gzip\"",
            "\"1795806138183701\"-gzip",
            "1795806138183701",
            "1795806138183701-gzip",
            " \"1795806138183701\" ",
            "\"1\", \"1795806138183701\", \"3\"",
            "\"1-gzip\",\"1795806138183701-gzip\"",
            "\"other\", W/\"1795806138183701\"",
            "*, \"1795806138183701\"",
            "\"2026-11-27T19:02:18.183701Z\"",
            "\"2026-11-27T19:02:18.183701Z-gzip\"",
        ] {
            assert_eq!(read(&[tag]), Some(1_795_806_138_183_701), "{tag}");
        }
        let lines = ["\"1\"", "\"1795806138183701\"", "\"2\""];
        assert_eq!(read(&lines), Some(1_795_806_138_183_701));
    }

    #[test]
    fn tags_without_a_cursor_are_unknown_and_no_tag_is_none() {
        for tag in [
            "*",
            "\"x\"",
            "\"5f-61c3\"",
            "\"1795806138183701-other\"",
            "\"18446744073709551616\"",
            "\"gzip\"",
            "\"-gzip\"",
            "W/",
            "\u{e9}",
            "\"\"",
        ] {
            assert_eq!(read(&[tag]), Some(UNKNOWN.micros()), "{tag}");
        }
        for none in [&[][..], &[""], &[" , ", ""]] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}

//! The value of `identifier=`: `[LOGIN:PASSWORD@]ITEM,ITEM,…`, where an item is `[*][CURSOR:]ID`.

use memchr::memmem;

use super::decimal::Decimal;

/// The word before the value.
const MARK: &[u8] = b"identifier=";

/// The name and the password of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Login<'a> {
    pub(crate) name: &'a str,
    pub(crate) password: &'a [u8],
}

/// One item of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    /// Whether a `*` stands before the item: a published block is for clients that also listen to this id.
    pub(crate) is_limit: bool,
    /// A number for which [`Decimal::parse`] succeeds.
    pub(crate) cursor: Option<&'a str>,
    pub(crate) id: &'a str,
}

/// The text after the first `identifier=` that is a word of its own.
pub(crate) fn find(text: &[u8]) -> Option<&[u8]> {
    let mut marks = memmem::find_iter(text, MARK);
    let at = marks.find(|at| !text[..*at].last().is_some_and(|byte| is_word(*byte)))?;
    Some(&text[at + MARK.len()..])
}

/// The text after `identifier=`, if the text begins with it.
pub(crate) fn at_start(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(MARK)
}

/// Whether the text may begin with `identifier=` when more of the text has come.
pub(crate) fn may_start(text: &[u8]) -> bool {
    text.starts_with(MARK) || MARK.starts_with(text)
}

/// Splits the login from the value, if there is one.
pub(crate) fn split_login(value: &[u8]) -> (Option<Login<'_>>, &[u8]) {
    let name = value.iter().take_while(|byte| is_word(**byte)).count();
    let (name, rest) = value.split_at(name);
    let login = || {
        let rest = rest.strip_prefix(b":").filter(|_| !name.is_empty())?;
        let is_password = |byte: &u8| *byte != b'@' && !byte.is_ascii_whitespace();
        let end = rest.iter().take_while(|byte| is_password(byte)).count();
        let (password, rest) = rest.split_at(end);
        let rest = rest.strip_prefix(b"@").filter(|_| !password.is_empty())?;
        let name = str::from_utf8(name).ok()?;
        Some((Login { name, password }, rest))
    };
    match login() {
        Some((login, rest)) => (Some(login), rest),
        None => (None, value),
    }
}

/// The length of the list of items. If nothing follows the list, more of the list may come.
pub(crate) fn list_length(value: &[u8]) -> usize {
    let is_listed = |byte: &u8| is_word(*byte) || b"*,.:".contains(byte);
    value.iter().take_while(|byte| is_listed(byte)).count()
}

/// The items of the list. Malformed items are skipped.
pub(crate) fn items(value: &[u8]) -> impl Iterator<Item = Item<'_>> {
    let list = &value[..list_length(value)];
    let list = str::from_utf8(list).expect("a list consists of ASCII characters");
    list.split(',').filter_map(item)
}

fn item(text: &str) -> Option<Item<'_>> {
    let (is_limit, text) = match text.strip_prefix('*') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (cursor, id) = match text.split_once(':') {
        Some((cursor, id)) => (Some(cursor), id),
        None => (None, text),
    };
    if cursor.is_some_and(|cursor| Decimal::parse(cursor).is_none()) {
        return None;
    }
    let is_id = !id.is_empty() && id.bytes().all(is_word);
    is_id.then_some(Item {
        is_limit,
        cursor,
        id,
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(value: &str) -> Vec<String> {
        let write = |item: Item<'_>| {
            let star = if item.is_limit { "*" } else { "" };
            let cursor = item.cursor.map(|cursor| format!("{cursor}:"));
            format!("{star}{}{}", cursor.unwrap_or_default(), item.id)
        };
        items(value.as_bytes()).map(write).collect()
    }

    #[test]
    fn the_first_mark_that_is_a_word_counts() {
        let found = |text: &str| find(text.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(found("GET /?identifier=a&b"), Some(b"a&b".to_vec()));
        assert_eq!(found("identifier="), Some(Vec::new()));
        assert_eq!(
            found("?my_identifier=a&identifier=b&identifier=c"),
            Some(b"b&identifier=c".to_vec())
        );
        assert_eq!(found("?identifier%3Da&Identifier=b"), None);
    }

    #[test]
    fn the_list_ends_at_the_first_other_character_and_malformed_items_are_skipped() {
        for (value, items) in [
            ("abc", &["abc"][..]),
            ("12.5:abc,*u1,0:D_2&ncrnd=1", &["12.5:abc", "*u1", "0:D_2"]),
            ("0:a-b,0:abc", &["0:a"]),
            ("abc%2Cdef", &["abc"]),
            ("*7:a HTTP/1.1", &["*7:a"]),
            (",,a,:b,1.:c,.5:d,1:2:e,**f,g*,1.2.3:h,i.j,k", &["a", "k"]),
            ("", &[]),
        ] {
            assert_eq!(list(value), items, "{value}");
        }
    }

    #[test]
    fn a_login_stands_before_an_at_sign() {
        let split = |value: &'static str| {
            let (login, rest) = split_login(value.as_bytes());
            let text = |bytes| str::from_utf8(bytes).unwrap();
            let login = login.map(|login| (login.name, text(login.password)));
            (login, text(rest))
        };
        assert_eq!(split("me:pa:ss,&@a,b"), (Some(("me", "pa:ss,&")), "a,b"));
        assert_eq!(split("me:x@"), (Some(("me", "x")), ""));
        for none in ["12:abc", "me:@a", ":x@a", "me:x y@a", "me@a", "a-b:x@a", ""] {
            assert_eq!(split(none), (None, none));
        }
    }
}

//! The URL that a page opens: `…/ws/sesion=KEY&myid=USER&devid=SITE&v=VERSION&uuid=BROWSER&api=js`, a path without a query.

use super::{super::UserId, envelope::Form};

/// Longest key of a user in bytes. Tokens are longer than stored keys.
const MAX_KEY: usize = 600;

/// Longest identifier of a browser in bytes. The script makes 32.
const MAX_UUID: usize = 64;

/// Longest number of a site in digits.
const MAX_SITE: usize = 9;

/// What a page says when it connects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PageUrl<'a> {
    /// The user's key or token. Empty: the page has none.
    pub(crate) key: &'a str,
    /// `None`: the page has no user. The script then writes `undefined` or `null`.
    pub(crate) user: Option<UserId>,
    /// The number of the site (`dev_id`) in decimal digits.
    pub(crate) site: &'a str,
    /// The form of messages that the page's version of the script reads.
    pub(crate) form: Form,
    /// The identifier that the script keeps in the browser's storage.
    pub(crate) uuid: &'a str,
}

/// Which field of the URL is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingField {
    User,
    Site,
    Version,
}

/// Whether this rest of a path behind `ws/` is the URL of a page.
pub(crate) fn is_page_url(rest: &str) -> bool {
    rest.starts_with("sesion=")
}

impl<'a> PageUrl<'a> {
    /// Parses the rest of a path behind `ws/`. The order of the fields is fixed. Fields behind `uuid` are ignored.
    pub(crate) fn parse(rest: &'a str) -> Result<Self, MissingField> {
        let rest = rest.strip_prefix("sesion=").unwrap_or(rest);
        let (key, rest) = rest.split_once("&myid=").ok_or(MissingField::User)?;
        let (user, rest) = rest.split_once("&devid=").ok_or(MissingField::Site)?;
        let (site, rest) = rest.split_once("&v=").ok_or(MissingField::Version)?;
        let (version, rest) = rest.split_once('&').unwrap_or((rest, ""));
        let uuid = rest.strip_prefix("uuid=").unwrap_or_default();
        let uuid = uuid.split('&').next().unwrap_or_default();
        Ok(Self {
            key: Some(key).filter(|key| is_key(key)).unwrap_or_default(),
            user: UserId::parse(user),
            site: Some(site).filter(|site| is_site(site)).unwrap_or("0"),
            form: form(version).ok_or(MissingField::Version)?,
            uuid: Some(uuid).filter(|uuid| is_uuid(uuid)).unwrap_or_default(),
        })
    }
}

fn is_key(key: &str) -> bool {
    key.len() <= MAX_KEY && key != "undefined" && key != "null"
}

fn is_site(site: &str) -> bool {
    let is_number = site.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (1..=MAX_SITE).contains(&site.len())
}

fn is_uuid(uuid: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    uuid.len() <= MAX_UUID && uuid.bytes().all(is_allowed)
}

/// The form for a version such as `4.08`. `None`: this is no version.
fn form(version: &str) -> Option<Form> {
    let (major, minor) = version.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(major) || !is_number(minor) {
        return None;
    }
    Some(match major.trim_start_matches('0') {
        "" | "1" | "2" | "3" => Form::Old,
        _ => Form::Current,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(rest: &str) -> PageUrl<'_> {
        PageUrl::parse(rest).unwrap()
    }

    #[test]
    fn the_urls_of_both_scripts_are_read() {
        let uuid = "Abcdefghijklmnopqrstuvwxyz01234_";
        let given = format!("sesion=undefined&myid=undefined&devid=15&v=4.08&uuid={uuid}&api=js");
        let anonymous = PageUrl {
            key: "",
            user: None,
            site: "15",
            form: Form::Current,
            uuid,
        };
        assert_eq!(url(&given), anonymous);
        let given = format!("sesion=null&myid=null&devid=15&v=3.25&uuid={uuid}&api=js");
        let form = Form::Old;
        assert_eq!(url(&given), PageUrl { form, ..anonymous });
        let given = "sesion=a+/b=&myid=5&devid=0&v=4.09&uuid=x&api=js";
        let user = UserId::parse("5");
        let known = PageUrl {
            key: "a+/b=",
            user,
            site: "0",
            form: Form::Current,
            uuid: "x",
        };
        assert_eq!(url(given), known);
    }

    #[test]
    fn values_that_are_no_numbers_count_as_zero() {
        let given = "sesion=&myid=-5&devid=-1&v=10.0&uuid=a%20b";
        let read = url(given);
        assert_eq!((read.user, read.site, read.uuid), (None, "0", ""));
        assert_eq!(read.form, Form::Current);
        let given = "sesion=&myid=1000000000&devid=1234567890&v=4.0";
        let read = url(given);
        assert_eq!((read.user, read.site, read.uuid), (None, "0", ""));
        let long = format!("sesion={}&myid=1&devid=1&v=4.0", "k".repeat(601));
        assert_eq!(url(&long).key, "");
    }

    #[test]
    fn a_missing_field_is_named() {
        use MissingField as M;
        for (given, missing) in [
            ("sesion=", M::User),
            ("sesion=x&devid=1&v=4.0", M::User),
            ("sesion=x&myid=1", M::Site),
            ("sesion=x&myid=1&v=4.0&devid=1", M::Version),
            ("sesion=x&myid=1&devid=1", M::Version),
            ("sesion=x&myid=1&devid=1&v=", M::Version),
            ("sesion=x&myid=1&devid=1&v=4", M::Version),
            ("sesion=x&myid=1&devid=1&v=4.x", M::Version),
        ] {
            assert_eq!(PageUrl::parse(given), Err(missing), "{given}");
        }
    }
}

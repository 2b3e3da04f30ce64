//! Parses the values of the configuration. Each error shows a correct value.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use comet_proto::ChannelName;
use serde::{Deserialize, Deserializer, de};

use super::Origin;
use crate::hub::MAX_WORKERS;

/// The longest duration that can be set. A longer duration is probably a mistake.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A number with or without a unit, such as `10` or `"10m"`.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, or a text such as \"10m\" or \"64KiB\""
)]
enum Quantity {
    Plain(u64),
    WithUnit(String),
}

impl Quantity {
    /// The quantity in the smallest unit. A number without a unit is multiplied by `plain`. `None`: the text is malformed or
    /// the quantity too large.
    fn read(&self, units: &[(&str, u64)], plain: u64) -> Option<u64> {
        match self {
            Self::Plain(number) => number.checked_mul(plain),
            Self::WithUnit(text) => {
                let digits = text.bytes().take_while(u8::is_ascii_digit).count();
                let (number, unit) = text.split_at(digits);
                let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
                number.parse::<u64>().ok()?.checked_mul(*factor)
            }
        }
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(number) => number.fmt(f),
            Self::WithUnit(text) => write!(f, "{text:?}"),
        }
    }
}

/// A duration of at least `MIN` milliseconds.
pub(super) fn duration<'de, D: Deserializer<'de>, const MIN: u64>(
    d: D,
) -> Result<Duration, D::Error> {
    let given = Quantity::deserialize(d)?;
    let millis = given.read(&DURATION_UNITS, 1000).ok_or_else(|| {
        de::Error::custom(format!(
            "{given} is not a duration: a number with ms, s, m, h or d, such as \"500ms\" or \"10m\"; a plain number is seconds"
        ))
    })?;
    let duration = Duration::from_millis(millis);
    if millis < MIN {
        return Err(de::Error::custom(format!(
            "{given} is too short: at least {MIN} ms"
        )));
    }
    if duration > MAX_DURATION {
        return Err(de::Error::custom(format!(
            "{given} is too long: at most 366d"
        )));
    }
    Ok(duration)
}

/// A number of bytes, at least `MIN`.
pub(super) fn size<'de, D: Deserializer<'de>, const MIN: u64>(d: D) -> Result<usize, D::Error> {
    let given = Quantity::deserialize(d)?;
    let bytes = given.read(&SIZE_UNITS, 1).ok_or_else(|| {
        de::Error::custom(format!(
            "{given} is not a size: a number with B, KiB, MiB or GiB, such as \"64KiB\"; a plain number is bytes"
        ))
    })?;
    if bytes < MIN {
        return Err(de::Error::custom(format!(
            "{given} is too small: at least {MIN} bytes"
        )));
    }
    usize::try_from(bytes).map_err(|_| de::Error::custom(format!("{given} is too large")))
}

pub(super) fn some_duration<'de, D: Deserializer<'de>, const MIN: u64>(
    d: D,
) -> Result<Option<Duration>, D::Error> {
    duration::<D, MIN>(d).map(Some)
}

pub(super) fn some_size<'de, D: Deserializer<'de>, const MIN: u64>(
    d: D,
) -> Result<Option<usize>, D::Error> {
    size::<D, MIN>(d).map(Some)
}

/// A number, at least `MIN`.
pub(super) fn count<'de, D: Deserializer<'de>, const MIN: usize>(d: D) -> Result<usize, D::Error> {
    let number = usize::deserialize(d)?;
    if number < MIN {
        return Err(de::Error::custom(format!(
            "{number} is too small: at least {MIN}"
        )));
    }
    Ok(number)
}

pub(super) fn some_count<'de, D: Deserializer<'de>, const MIN: usize>(
    d: D,
) -> Result<Option<usize>, D::Error> {
    count::<D, MIN>(d).map(Some)
}

pub(super) fn workers<'de, D: Deserializer<'de>>(d: D) -> Result<Option<usize>, D::Error> {
    // The control thread is one of the hub's workers, too.
    const MOST: usize = MAX_WORKERS - 1;
    let number = usize::deserialize(d)?;
    if !(1..=MOST).contains(&number) {
        return Err(de::Error::custom(format!(
            "{number} workers are not possible: 1 to {MOST}"
        )));
    }
    Ok(Some(number))
}

pub(super) fn path<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = String::deserialize(d)?;
    if path.is_empty() || path.contains('\0') {
        return Err(de::Error::custom(
            "a path may not be empty or contain a NUL byte",
        ));
    }
    Ok(path.into())
}

pub(super) fn some_path<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    path(d).map(Some)
}

pub(super) fn socket_path<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    let path = path(d)?;
    comet_client::socket_path(Some(&path))
        .map(Some)
        .map_err(de::Error::custom)
}

pub(super) fn addr<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
    parse_addr(&String::deserialize(d)?).map_err(de::Error::custom)
}

pub(super) fn some_addr<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    addr(d).map(Some)
}

/// Parses an address with its port.
///
/// # Errors
/// Says what an address looks like.
pub fn parse_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an address: IP:PORT, such as 127.0.0.1:2061, 0.0.0.0:2061 for all networks, or [::1]:2061")
    })
}

/// Parses origins and writes them in the form that browsers send. Answers contain this form.
pub(super) fn origins<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let origins: Vec<String> = Vec::deserialize(d)?;
    let read = |text: String| match Origin::parse(&text) {
        Some(origin) => Ok(origin.to_string()),
        None if text == "*" => Ok(text),
        None => Err(de::Error::custom(no_origin(&text))),
    };
    origins.into_iter().map(read).collect()
}

fn no_origin(text: &str) -> String {
    match text {
        "null" => "\"null\" is not an origin: browsers send it for pages without one (sandboxed frames, local files), \
            so only \"*\" (any page) admits them"
            .into(),
        _ => format!(
            "{text:?} is not an origin: scheme, host and port as browsers send them, such as \"https://example.org\" \
             (no path, no slash at the end, no *, hosts in ASCII), or \"*\" for any"
        ),
    }
}

pub(super) fn hosts<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let hosts: Vec<String> = Vec::deserialize(d)?;
    match hosts.iter().find(|host| !is_host(host)) {
        None => Ok(hosts),
        Some(wrong) => Err(de::Error::custom(format!(
            "{wrong:?} is not a host name, such as \"example.org\" (no scheme, no port, no dot at the end), or \"*\" for any"
        ))),
    }
}

/// Whether `hosts` may list the text: a host name, or `*`.
pub(crate) fn is_host(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    text == "*" || !text.is_empty() && !text.ends_with('.') && text.bytes().all(plain)
}

/// Parses the path of an endpoint. An empty path switches the endpoint off.
pub(super) fn url_path<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let path = String::deserialize(d)?;
    let plain = |b: u8| b.is_ascii_graphic() && !b"?#\"<>\\%".contains(&b);
    if path.is_empty() || path.starts_with('/') && path.bytes().all(plain) {
        return Ok(path);
    }
    Err(de::Error::custom(format!(
        "{path:?} is not a path: a path starts with a slash and has no query, such as \"/comet.php\"; \"\" switches the endpoint off"
    )))
}

/// Parses the beginning of the paths of an endpoint: a path that ends with a slash. An empty text switches the endpoint off.
pub(super) fn url_prefix<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let path = url_path(d)?;
    if path.is_empty() || path.ends_with('/') {
        return Ok(path);
    }
    Err(de::Error::custom(format!(
        "{path:?} must end with a slash, because a channel's name follows it, such as \"/nchan/sub/\""
    )))
}

pub(super) fn channel<'de, D: Deserializer<'de>>(d: D) -> Result<ChannelName, D::Error> {
    let name = String::deserialize(d)?;
    ChannelName::parse(&name).map_err(de::Error::custom)
}

/// The beginning of channels' names.
pub(super) fn prefix<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    channel(d).map(|name| name.to_string())
}

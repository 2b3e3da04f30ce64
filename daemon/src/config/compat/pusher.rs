//! `[compat.pusher]` and `[[compat.pusher.app]]`

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::config::{Secret, auth, file::read_regular, value};

/// `[compat.pusher]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [compat.pusher]")]
pub struct PusherConfig {
    /// What stands before `/app` and `/apps` in all paths: empty, or a path such as `/reverb`.
    #[serde(default, deserialize_with = "value::url_path")]
    pub path: String,
    /// A page that has got nothing for this time sends a ping.
    #[serde(
        default = "activity_timeout",
        deserialize_with = "value::duration::<_, 1000>"
    )]
    pub activity_timeout: Duration,
    /// The largest data of an event in bytes.
    #[serde(default = "max_data", deserialize_with = "value::size::<_, 1>")]
    pub max_data: usize,
    #[serde(rename = "app", deserialize_with = "apps")]
    pub apps: Vec<PusherApp>,
}

/// `[[compat.pusher.app]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "AppTable")]
pub struct PusherApp {
    /// Names the application in the paths of the HTTP API.
    pub id: String,
    /// Names the application in the path of the WebSocket. Pages know the key.
    pub key: String,
    /// Signs requests and the rights of pages.
    pub secret: Secret,
    /// Whether pages may send events to the other pages of a private or presence channel.
    pub client_events: bool,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table with two brackets: [[compat.pusher.app]]"
)]
struct AppTable {
    id: String,
    key: String,
    #[serde(default, deserialize_with = "auth::some_secret")]
    secret: Option<Secret>,
    #[serde(default, deserialize_with = "value::some_path")]
    secret_file: Option<PathBuf>,
    #[serde(default = "yes")]
    client_events: bool,
}

impl TryFrom<AppTable> for PusherApp {
    type Error = String;

    fn try_from(table: AppTable) -> Result<Self, String> {
        for (name, value) in [("id", &table.id), ("key", &table.key)] {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
            if !(1..=64).contains(&value.len()) || !value.bytes().all(is_plain) {
                return Err(format!(
                    "{name} {value:?} must have 1 to 64 of the characters A-Z a-z 0-9 _ -"
                ));
            }
        }
        let secret = match (table.secret, table.secret_file) {
            (Some(secret), None) => secret,
            (None, Some(path)) => read_secret(&path)?,
            _ => return Err("an app needs either secret or secret_file".into()),
        };
        Ok(Self {
            id: table.id,
            key: table.key,
            secret,
            client_events: table.client_events,
        })
    }
}

/// Reads a secret from the first line of a file.
fn read_secret(path: &std::path::Path) -> Result<Secret, String> {
    let text = read_regular(path)
        .map_err(|cause| format!("cannot read secret_file {}: {cause}", path.display()))?;
    let line = text.lines().next().unwrap_or_default();
    Secret::new(line).ok_or_else(|| format!("the first line of {} is empty", path.display()))
}

fn yes() -> bool {
    true
}

fn activity_timeout() -> Duration {
    Duration::from_secs(120)
}

fn max_data() -> usize {
    10 << 10
}

/// The apps. Each id and each key is there once.
fn apps<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<PusherApp>, D::Error> {
    let apps = Vec::<PusherApp>::deserialize(d)?;
    if apps.is_empty() {
        return Err(de::Error::custom(
            "[compat.pusher] needs at least one table [[compat.pusher.app]]",
        ));
    }
    let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for app in &apps {
        if !ids.insert(&app.id) || !keys.insert(&app.key) {
            let id = &app.id;
            return Err(de::Error::custom(format!(
                "app {id:?} has the id or the key of another app"
            )));
        }
    }
    Ok(apps)
}

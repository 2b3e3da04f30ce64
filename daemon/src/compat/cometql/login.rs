//! MySQL's connection phase: the server's greeting, the client's login, and the check of the key
//! (`mysql_native_password`). No I/O.

use ring::{
    digest,
    rand::{self, SystemRandom},
};

use super::error::SqlError;
use crate::config::Secret;

/// Length of the nonce in bytes.
pub(crate) const NONCE: usize = 20;

/// The version that clients see. PDO and others decide by its number what the server can do.
pub(crate) const VERSION: &str = "5.7.0-comet";

/// The only database.
pub(crate) const DATABASE: &str = "CometQL_v1";

/// The only way to show the key.
const PLUGIN: &str = "mysql_native_password";

/// utf8mb4_general_ci, known to every client that knows utf8mb4.
pub(crate) const CHARSET: u8 = 45;

const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;

/// What the server offers: LONG_PASSWORD, LONG_FLAG, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION and
/// PLUGIN_AUTH. A client uses what both sides offer.
const OFFERED: u32 = 0x0008_a20d;

/// A random nonce without zero bytes, because clients may treat the nonce as a text that ends with a zero byte.
pub(crate) fn new_nonce() -> [u8; NONCE] {
    let random: [u8; NONCE] = rand::generate(&SystemRandom::new())
        .expect("the system has random numbers")
        .expose();
    random.map(|byte| byte % 255 + 1)
}

/// The payload of the server's first packet.
pub(crate) fn greeting(nonce: &[u8; NONCE], connection: u32) -> Vec<u8> {
    let (low, high) = (OFFERED as u16, (OFFERED >> 16) as u16);
    let status = 2_u16; // every statement takes effect at once
    let mut out = vec![10]; // version of the protocol
    out.extend_from_slice(VERSION.as_bytes());
    out.push(0);
    out.extend_from_slice(&connection.to_le_bytes());
    out.extend_from_slice(&nonce[..8]);
    out.push(0);
    out.extend_from_slice(&low.to_le_bytes());
    out.push(CHARSET);
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&high.to_le_bytes());
    out.push(NONCE as u8 + 1);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&nonce[8..]);
    out.push(0);
    out.extend_from_slice(PLUGIN.as_bytes());
    out.push(0);
    out
}

/// The payload that asks a client to show the key by `mysql_native_password`.
pub(crate) fn auth_switch(nonce: &[u8; NONCE]) -> Vec<u8> {
    [&[0xfe], PLUGIN.as_bytes(), &[0], nonce, &[0]].concat()
}

/// What a client sends to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: Vec<u8>,
    pub(crate) auth: Vec<u8>,
    /// Empty: the client has named no database.
    pub(crate) database: Vec<u8>,
    /// The client's way to show the key. Empty: the client has named none.
    plugin: Vec<u8>,
}

impl Login {
    /// Parses the client's first packet. Whatever follows the name of the plugin is ignored, because PHP announces
    /// attributes that it does not send.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, SqlError> {
        let short = || SqlError::Handshake("the login is incomplete");
        let mut rest = payload;
        let flags = take(&mut rest, 4).ok_or_else(short)?;
        let flags = u32::from_le_bytes(flags.try_into().map_err(|_| short())?);
        if flags & PROTOCOL_41 == 0 {
            let reason = "the client must speak the protocol of MySQL 4.1 or newer";
            return Err(SqlError::Handshake(reason));
        }
        take(&mut rest, 28).ok_or_else(short)?; // largest packet, character set, reserved
        if flags & SSL != 0 && rest.is_empty() {
            let reason = "TLS is not offered here; connect without TLS (--skip-ssl)";
            return Err(SqlError::Handshake(reason));
        }
        let user = take_text(&mut rest).ok_or_else(short)?;
        let auth = match flags & SECURE_CONNECTION {
            0 => take_text(&mut rest),
            _ => take_counted(&mut rest),
        };
        let auth = auth.ok_or_else(short)?;
        let flags = flags & OFFERED;
        let optional = |is_sent: bool, rest: &mut &[u8]| match is_sent {
            true => take_text(rest).unwrap_or_default(),
            false => Vec::new(),
        };
        let database = optional(flags & CONNECT_WITH_DB != 0, &mut rest);
        let plugin = optional(flags & PLUGIN_AUTH != 0, &mut rest);
        Ok(Self {
            user,
            auth,
            database,
            plugin,
        })
    }

    /// Parses the payload of COM_CHANGE_USER after the command's byte: user, answer to the nonce, and database.
    pub(crate) fn parse_change(payload: &[u8]) -> Result<Self, SqlError> {
        let mut rest = payload;
        let mut parse = || {
            let user = take_text(&mut rest)?;
            let auth = take_counted(&mut rest)?;
            let database = take_text(&mut rest)?;
            Some(Self {
                user,
                auth,
                database,
                plugin: Vec::new(),
            })
        };
        parse().ok_or(SqlError::Handshake("the change of the user is incomplete"))
    }

    /// Whether the client must be asked to show the key by `mysql_native_password`.
    pub(crate) fn needs_switch(&self) -> bool {
        !self.plugin.is_empty() && self.plugin != PLUGIN.as_bytes()
    }

    /// The login with another answer to the nonce.
    pub(crate) fn with_answer(mut self, auth: &[u8]) -> Self {
        self.auth = auth.to_vec();
        self
    }

    /// Checks the answer to the nonce, and then the names. Returns the number of the site as text.
    pub(crate) fn check(&self, key: &Secret, nonce: &[u8; NONCE]) -> Result<String, SqlError> {
        if self.auth.len() != NONCE {
            let reason = ", authDataLen!=20: the client has sent no password";
            return Err(SqlError::Authentication(reason));
        }
        let expected = answer(key.text().as_bytes(), nonce);
        if !is_same(&expected, &self.auth) {
            return Err(SqlError::Authentication(""));
        }
        let reason = ": the user must be the number of the site";
        let site = site(&self.user).ok_or(SqlError::Authentication(reason))?;
        check_database(&self.database)?;
        Ok(site)
    }
}

/// Checks the name of a database. An empty name stands for no database.
pub(crate) fn check_database(name: &[u8]) -> Result<(), SqlError> {
    match name.is_empty() || name == DATABASE.as_bytes() {
        true => Ok(()),
        false => Err(SqlError::Database),
    }
}

/// The number of the site, of up to 18 digits. The user `root` stands for site 0.
fn site(user: &[u8]) -> Option<String> {
    if user == b"root" {
        return Some("0".into());
    }
    let is_number = (1..=18).contains(&user.len()) && user.iter().all(u8::is_ascii_digit);
    is_number.then(|| String::from_utf8_lossy(user).into_owned())
}

/// What a client with this key answers to the nonce: `SHA1(key) XOR SHA1(nonce + SHA1(SHA1(key)))`.
pub(crate) fn answer(key: &[u8], nonce: &[u8; NONCE]) -> [u8; NONCE] {
    let sha1 = |parts: &[&[u8]]| -> [u8; NONCE] {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &parts.concat());
        *digest.as_ref().first_chunk().expect("SHA-1 has 20 bytes")
    };
    let once = sha1(&[key]);
    let mask = sha1(&[nonce, &sha1(&[&once])]);
    std::array::from_fn(|i| once[i] ^ mask[i])
}

/// Compares two texts. The time that this takes does not tell how much of the given text is right.
fn is_same(expected: &[u8], given: &[u8]) -> bool {
    let hash = |text: &[u8]| digest::digest(&digest::SHA256, text);
    hash(expected).as_ref() == hash(given).as_ref()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    rest.split_off(..length)
}

/// A text that ends with a zero byte.
fn take_text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = take(rest, end)?.to_vec();
    take(rest, 1)?;
    Some(text)
}

/// Bytes after a byte with their number.
fn take_counted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = take(rest, 1)?[0];
    take(rest, length.into()).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Secret {
        serde_json::from_str("\"secretkey\"").unwrap()
    }

    fn nonce() -> [u8; NONCE] {
        std::array::from_fn(|i| i as u8 + 1)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    /// A login with these flags. `tail` follows the answer to the nonce.
    fn login(flags: u32, user: &str, auth: &[u8], tail: &[u8]) -> Vec<u8> {
        let mut out = flags.to_le_bytes().to_vec();
        out.extend([0; 28]);
        out.extend(user.as_bytes());
        out.extend([0, auth.len() as u8]);
        out.extend(auth);
        out.extend(tail);
        out
    }

    /// mysqli with a database: announces attributes, and sends none.
    const MYSQLI: u32 = 0x001a_a28d;

    #[test]
    fn the_greeting_has_the_form_of_protocol_10() {
        let expected = hex(
            "0a 352e372e302d636f6d657400 01000000 0102030405060708 00 0da2 2d 0200 0800 15
             00000000000000000000 090a0b0c0d0e0f101112131400 6d7973716c5f6e61746976655f70617373776f726400",
        );
        assert_eq!(greeting(&nonce(), 1), expected);
    }

    #[test]
    fn the_answer_to_the_nonce_is_that_of_mysql() {
        let expected = hex("7686c6cbe67c2860de68f33d588af46cdd610cfa");
        assert_eq!(answer(b"secretkey", &nonce()).as_slice(), expected);
    }

    #[test]
    fn the_key_the_site_and_the_database_are_checked() {
        let good = answer(b"secretkey", &nonce());
        let check = |user: &str, auth: &[u8], tail: &[u8]| {
            let login = Login::parse(&login(MYSQLI, user, auth, tail)).unwrap();
            login.check(&key(), &nonce()).map_err(|error| error.code())
        };
        let database = b"CometQL_v1\0mysql_native_password\0";
        for user in ["15", "0", "root", "999999999999999999"] {
            let site = if user == "root" { "0" } else { user };
            assert_eq!(check(user, &good, database), Ok(site.into()));
        }
        assert_eq!(check("15", &good, b""), Ok("15".into()), "no database");
        for user in ["", "admin", "-1", "1000000000000000000", "1x"] {
            assert_eq!(check(user, &good, database), Err(16), "{user}");
        }
        let mut wrong = good;
        wrong[19] ^= 1;
        assert_eq!(check("15", &wrong, database), Err(16));
        assert_eq!(check("15", &good[..19], database), Err(16));
        assert_eq!(check("15", b"", database), Err(16));
        for other in [&b"cometql_v1\0"[..], b"db_15\0", b"mysql\0"] {
            assert_eq!(check("15", &good, other), Err(15));
        }
    }

    #[test]
    fn another_way_to_show_the_key_is_switched() {
        let tail = b"CometQL_v1\0caching_sha2_password\0";
        let other = Login::parse(&login(MYSQLI, "15", &[7; 32], tail)).unwrap();
        assert!(other.needs_switch());
        let tail = b"CometQL_v1\0mysql_native_password\0";
        let native = Login::parse(&login(MYSQLI, "15", &[7; 20], tail)).unwrap();
        assert!(!native.needs_switch());
        let ask = auth_switch(&nonce());
        assert_eq!(ask[0], 0xfe);
        assert_eq!(ask[ask.len() - 21..ask.len() - 1], nonce());
    }

    #[test]
    fn a_login_that_is_cut_or_asks_for_tls_is_refused() {
        let whole = login(MYSQLI, "15", &[7; 20], b"");
        for length in 0..whole.len() {
            let parsed = Login::parse(&whole[..length]);
            assert_eq!(parsed.map_err(|error| error.code()), Err(1043), "{length}");
        }
        let tls = Login::parse(&login(MYSQLI | SSL, "", b"", b"")[..32]);
        assert!(tls.unwrap_err().to_string().contains("--skip-ssl"));
        let old = Login::parse(&login(MYSQLI & !PROTOCOL_41, "15", &[7; 20], b""));
        assert_eq!(old.map_err(|error| error.code()), Err(1043));
    }
}

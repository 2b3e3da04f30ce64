//! The logins of publishers: a file with lines `LOGIN:HASH`. The hashes are those of crypt(3) with SHA-512 or SHA-256.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use ring::{hmac, rand::SystemRandom};
use sha_crypt::{PasswordHashRef, PasswordVerifier, ShaCrypt};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::identifier::Login;
use crate::config::read_regular;

/// Who may publish.
pub(crate) struct Logins {
    hashes: HashMap<String, Box<str>>,
    /// Whether a publisher may publish without a login.
    has_guests: bool,
    /// For each login the password that was right last, as a MAC with `key`. So only the first check of a password is slow.
    known: Mutex<HashMap<String, hmac::Tag>>,
    key: hmac::Key,
    /// Held while a password is checked, so that one check runs at a time.
    checking: AsyncMutex<()>,
}

/// Why a file with logins cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginsError {
    #[error("compat.realplexor.logins: cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    #[error("compat.realplexor.logins: {file}, line {line}: {what}")]
    Line {
        file: PathBuf,
        line: usize,
        what: &'static str,
    },
}

/// Why a publisher is refused, in the words of the original server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginRefusal {
    #[error("access denied for guest user")]
    Guest,
    #[error("unknown login: {0}")]
    Unknown(String),
    #[error("invalid password for login: {0}")]
    Password(String),
}

impl Logins {
    /// Without a file everyone may publish, and there are no logins.
    pub(crate) fn guests() -> Self {
        Self::new(HashMap::new(), true)
    }

    fn new(hashes: HashMap<String, Box<str>>, has_guests: bool) -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self {
            hashes,
            has_guests,
            known: Mutex::default(),
            key: key.expect("the system has random bytes"),
            checking: AsyncMutex::default(),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Says which line cannot be used.
    pub(crate) fn load(file: &Path) -> Result<Self, LoginsError> {
        let text = read_regular(file).map_err(|error| LoginsError::Read(file.into(), error))?;
        Self::parse(&text).map_err(|(line, what)| LoginsError::Line {
            file: file.into(),
            line,
            what,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let (mut hashes, mut has_guests) = (HashMap::new(), false);
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (login, hash) = line
                .split_once(':')
                .ok_or((number, "LOGIN:HASH is expected"))?;
            match (login, hash) {
                ("", "") => has_guests = true,
                ("", _) => return Err((number, "a line for guests is only a colon")),
                _ => check_line(login, hash).map_err(|what| (number, what))?,
            }
            hashes.insert(login.to_owned(), hash.into());
        }
        hashes.remove("");
        Ok(Self::new(hashes, has_guests))
    }

    /// Whether the publisher is let in, if this can be told without computing a hash.
    pub(crate) fn check_known(&self, login: Option<Login<'_>>) -> Option<Result<(), LoginRefusal>> {
        let Some(login) = login else {
            return Some(match self.has_guests {
                true => Ok(()),
                false => Err(LoginRefusal::Guest),
            });
        };
        if !self.hashes.contains_key(login.name) {
            return Some(Err(LoginRefusal::Unknown(login.name.to_owned())));
        }
        let known = self.known.lock().expect("no code panics with this lock");
        let tag = known.get(login.name)?;
        hmac::verify(&self.key, login.password, tag.as_ref())
            .ok()
            .map(Ok)
    }

    /// Computes the hash of a password on a thread of its own, because this takes milliseconds.
    pub(crate) async fn check(
        self: &Arc<Self>,
        name: String,
        password: Vec<u8>,
    ) -> Result<(), LoginRefusal> {
        let _turn = self.checking.lock().await;
        let (send, result) = oneshot::channel();
        let (logins, login) = (self.clone(), name.clone());
        let thread = thread::Builder::new().name("realplexor-login".into());
        let started = thread.spawn(move || send.send(logins.is_right(&login, &password)));
        match started.is_ok() && result.await.unwrap_or(false) {
            true => Ok(()),
            false => Err(LoginRefusal::Password(name)),
        }
    }

    fn is_right(&self, login: &str, password: &[u8]) -> bool {
        let hash = self
            .hashes
            .get(login)
            .and_then(|hash| PasswordHashRef::new(hash).ok());
        let is_right =
            hash.is_some_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok());
        if is_right {
            let tag = hmac::sign(&self.key, password);
            let mut known = self.known.lock().expect("no code panics with this lock");
            known.insert(login.to_owned(), tag);
        }
        is_right
    }
}

/// Checks that a login can be written in `identifier=`, and that the kind of its hash is known.
fn check_line(login: &str, hash: &str) -> Result<(), &'static str> {
    if !login
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_')
    {
        return Err("a login consists of A-Z a-z 0-9 _");
    }
    // The schemes of crypt(3) that are strong enough. PasswordHashRef takes the text apart.
    let parts = hash.split('$').collect::<Vec<_>>();
    match parts[..] {
        ["", "5" | "6", _, _] | ["", "5" | "6", _, _, _] => {}
        _ => {
            return Err(
                "the hash must begin with $6$ or $5$ (SHA-512 or SHA-256); MD5, DES and bcrypt are not supported; make a \
                 new hash with: openssl passwd -6",
            );
        }
    }
    // Fails for a malformed hash, and not for a wrong password.
    let is_malformed = PasswordHashRef::new(hash).is_err() || {
        let hash = PasswordHashRef::new(hash).expect("it was parsed");
        let checked = ShaCrypt::default().verify_password(b"", hash);
        !matches!(
            checked,
            Ok(()) | Err(sha_crypt::password_hash::Error::PasswordInvalid)
        )
    };
    match is_malformed {
        true => Err("the hash is malformed"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl passwd -6 -salt SaltSalt secret`, and with `-5`.
    const SHA512: &str = "$6$SaltSalt$0b.Uez5/gDDWuH.qq4Rp.5iuFstPYuEwi/Jz.rcXUjEk04APE4eCqT.F2HUPRLXt5dovVpcu/VZJpqqMxB17G0";
    const SHA256: &str = "$5$SaltSalt$N/xEgsQM0AdSxowmAdQcJZjGp0LeCXivvNpWom1Upc/";

    fn login<'a>(name: &'a str, password: &'a str) -> Option<Login<'a>> {
        Some(Login {
            name,
            password: password.as_bytes(),
        })
    }

    fn logins(text: &str) -> Arc<Logins> {
        Arc::new(Logins::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}")))
    }

    #[tokio::test]
    async fn a_password_is_checked_once_and_then_known() {
        let logins = logins(&format!("# publishers\n\nme:{SHA512}\n you:{SHA256}\n"));
        for name in ["me", "you"] {
            assert_eq!(logins.check_known(login(name, "secret")), None);
            let wrong = logins.check(name.into(), b"Secret".to_vec()).await;
            assert_eq!(wrong, Err(LoginRefusal::Password(name.into())));
            assert_eq!(logins.check_known(login(name, "secret")), None);
            assert_eq!(logins.check(name.into(), b"secret".to_vec()).await, Ok(()));
            assert_eq!(logins.check_known(login(name, "secret")), Some(Ok(())));
            assert_eq!(logins.check_known(login(name, "Secret")), None);
        }
        let unknown = logins.check_known(login("him", "secret"));
        assert_eq!(unknown, Some(Err(LoginRefusal::Unknown("him".into()))));
        assert_eq!(logins.check_known(None), Some(Err(LoginRefusal::Guest)));
    }

    #[test]
    fn guests_need_a_line_of_their_own() {
        assert_eq!(logins(":\n").check_known(None), Some(Ok(())));
        assert_eq!(logins("").check_known(None), Some(Err(LoginRefusal::Guest)));
        assert_eq!(Logins::guests().check_known(None), Some(Ok(())));
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named() {
        for (line, word) in [
            ("me", "LOGIN:HASH"),
            (":x", "guests"),
            ("a-b:$6$Salt$x", "consists"),
            ("me:$1$Salt$x", "openssl"),
            ("me:$2y$10$Salt", "openssl"),
            ("me:rqXexS6ZhobKA", "openssl"),
            ("me:secret", "openssl"),
            ("me:$6$Salt$x", "malformed"),
            ("me:$6$rounds=1$Salt$x", "malformed"),
        ] {
            let Err((number, what)) = Logins::parse(&format!(":\n{line}\n")) else {
                panic!("{line} is accepted");
            };
            assert!(
                number == 2 && what.contains(word),
                "{line}: {number} {what}"
            );
        }
    }
}

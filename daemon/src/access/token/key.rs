//! Keys, as they are used: read, checked, and with the one algorithm that is theirs.

use std::{
    io,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, DecodingKey};

use super::pem;
use crate::config::{Alg, KeyConfig, TokenRight, read_regular};

/// Shortest secret in bytes (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;

pub(super) struct Key {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// What a token signed with it can grant.
    pub(super) may: Vec<TokenRight>,
}

/// Why a key cannot be used. It never shows the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("auth.key: kid {0:?} is there twice")]
    Twice(String),
    #[error("auth.key {0:?}: {1} needs exactly one of {2}")]
    Source(String, Alg, &'static str),
    #[error("auth.key {kid:?}: cannot read {}: {cause}", path.display())]
    Read {
        kid: String,
        path: PathBuf,
        cause: io::Error,
    },
    #[error(
        "auth.key {0:?}: a secret of {1} bytes is too short: {MIN_SECRET} at least, such as `openssl rand -base64 48` gives"
    )]
    Short(String, usize),
    #[error(
        "auth.key {0:?}: {1} has no public key for {2}, such as `openssl pkey -in private.pem -pubout` writes"
    )]
    Public(String, PathBuf, Alg),
}

impl Key {
    /// Tokens that the other key has signed are as good with this one, and grant no less.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let bytes = self.decoding.try_get_as_bytes();
        let is_same = |other: &[u8]| bytes.is_ok_and(|bytes| bytes == other);
        self.kid == other.kid
            && self.algorithm == other.algorithm
            && other.decoding.try_get_as_bytes().is_ok_and(is_same)
            && other.may.iter().all(|right| self.may.contains(right))
    }

    pub(super) fn load(config: &KeyConfig) -> Result<Self, KeyError> {
        let (algorithm, decoding) = match config.alg {
            Alg::Hs256 => (Algorithm::HS256, secret(config)?),
            Alg::Rs256 => (Algorithm::RS256, public(config, pem::PemKind::Rsa)?),
            Alg::Es256 => (Algorithm::ES256, public(config, pem::PemKind::P256)?),
            Alg::EdDsa => (Algorithm::EdDSA, public(config, pem::PemKind::Ed25519)?),
        };
        Ok(Self {
            kid: config.kid.clone(),
            algorithm,
            decoding,
            may: config.may.clone(),
        })
    }
}

fn secret(config: &KeyConfig) -> Result<DecodingKey, KeyError> {
    let kid = || config.kid.clone();
    let text = match (&config.secret, &config.secret_file, &config.public_key_file) {
        (Some(secret), None, None) => secret.text().to_owned(),
        (None, Some(path), None) => read(config, path)?,
        _ => {
            return Err(KeyError::Source(
                kid(),
                config.alg,
                "secret and secret_file",
            ));
        }
    };
    let secret = text.trim_end_matches(['\r', '\n']); // as editors end a file
    if secret.len() < MIN_SECRET {
        return Err(KeyError::Short(kid(), secret.len()));
    }
    Ok(DecodingKey::from_secret(secret.as_bytes()))
}

fn public(config: &KeyConfig, kind: pem::PemKind) -> Result<DecodingKey, KeyError> {
    let kid = || config.kid.clone();
    let path = match (&config.secret, &config.secret_file, &config.public_key_file) {
        (None, None, Some(path)) => path,
        _ => return Err(KeyError::Source(kid(), config.alg, "public_key_file")),
    };
    match pem::public_key(&read(config, path)?) {
        Some((found, key)) if found == kind => Ok(match kind {
            pem::PemKind::Rsa => DecodingKey::from_rsa_der(&key),
            pem::PemKind::P256 => DecodingKey::from_ec_der(&key),
            pem::PemKind::Ed25519 => DecodingKey::from_ed_der(&key),
        }),
        _ => Err(KeyError::Public(kid(), path.clone(), config.alg)),
    }
}

fn read(config: &KeyConfig, path: &Path) -> Result<String, KeyError> {
    read_regular(path).map_err(|cause| KeyError::Read {
        kid: config.kid.clone(),
        path: path.into(),
        cause,
    })
}

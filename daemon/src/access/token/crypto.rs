//! What verifies signatures: ring, behind the interface that `jsonwebtoken` has for that. Nothing is signed here.

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    signature::{self, Verifier},
};
use ring::{
    digest, hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

/// A number for a text, which cannot be computed backwards, or made the same as another one.
pub(super) fn number_for(text: &[u8]) -> u64 {
    let digest = digest::digest(&digest::SHA256, text);
    let first = digest.as_ref().first_chunk().copied();
    u64::from_le_bytes(first.unwrap_or_default())
}

/// Before the first token. Again is as good as once.
pub(super) fn install() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(), // for sets of keys as JSON, which are not read here
    };
    let _ = RING.install_default();
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

/// The caller has compared the token's algorithm with the key's.
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let bytes = key.try_get_as_bytes()?;
    let public = |with: &'static dyn VerificationAlgorithm| {
        Check::Public(UnparsedPublicKey::new(with, bytes.to_vec()))
    };
    let check = match algorithm {
        Algorithm::HS256 => Check::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        Algorithm::RS256 => public(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::ES256 => public(&ECDSA_P256_SHA256_FIXED),
        Algorithm::EdDSA => public(&ED25519),
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(With(*algorithm, check)))
}

struct With(Algorithm, Check);

enum Check {
    Secret(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl Verifier<Vec<u8>> for With {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let verified = match &self.1 {
            Check::Secret(key) => hmac::verify(key, message, tag),
            Check::Public(key) => key.verify(message, tag),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for With {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

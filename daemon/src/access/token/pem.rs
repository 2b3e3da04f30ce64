//! Public keys in PEM files, as `openssl pkey -pubout` writes them: RFC 7468 around the `SubjectPublicKeyInfo` of
//! RFC 5280, of which just those of the three kinds of keys are known.

use base64::{Engine, engine::general_purpose::STANDARD};

/// What kind of key a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemKind {
    Rsa,
    P256,
    Ed25519,
}

/// The identifiers of the kinds (`AlgorithmIdentifier`), as DER.
const KINDS: [(PemKind, &[u8]); 3] = [
    // rsaEncryption, NULL (RFC 3279)
    (
        PemKind::Rsa,
        &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0],
    ),
    // id-ecPublicKey, secp256r1 (RFC 5480)
    (
        PemKind::P256,
        &[
            6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7,
        ],
    ),
    // id-Ed25519 (RFC 8410)
    (PemKind::Ed25519, &[6, 3, 0x2b, 0x65, 0x70]),
];

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 3;
const INTEGER: u8 = 2;

/// The kind of the key in a file, and its bytes. `None`: it is something else.
pub(super) fn public_key(text: &str) -> Option<(PemKind, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).ok()?;
    let (info, []) = element(SEQUENCE, &der)? else {
        return None;
    };
    let (algorithm, rest) = element(SEQUENCE, info)?;
    let (key, []) = element(BIT_STRING, rest)? else {
        return None;
    };
    let (kind, _) = KINDS.into_iter().find(|(_, known)| *known == algorithm)?;
    let [0, key @ ..] = key else {
        return None; // bits that are no whole bytes
    };
    let fits = match kind {
        PemKind::Rsa => modulus(key).is_some_and(|n| (256..=1024).contains(&n.len())),
        PemKind::P256 => key.len() == 65 && key[0] == 4,
        PemKind::Ed25519 => key.len() == 32,
    };
    fits.then(|| (kind, key.to_vec()))
}

/// The modulus of an `RSAPublicKey` (RFC 8017, appendix A.1.1), without the zero that makes it positive.
fn modulus(key: &[u8]) -> Option<&[u8]> {
    let (numbers, []) = element(SEQUENCE, key)? else {
        return None;
    };
    let (modulus, rest) = element(INTEGER, numbers)?;
    let (_, []) = element(INTEGER, rest)? else {
        return None;
    };
    modulus.strip_prefix(&[0])
}

/// The content of the element with this tag, and what follows it (X.690, section 8.1).
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_at_checked(2)?;
    let (length, rest) = match head[1] {
        short @ ..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (bytes, rest) = rest.split_at_checked(2)?;
            (usize::from(bytes[0]) << 8 | usize::from(bytes[1]), rest)
        }
        _ => return None,
    };
    (head[0] == tag).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_public_key_is_none() {
        let wrap = |der: &[u8]| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
        };
        let ed25519 = [
            &[
                SEQUENCE, 42, SEQUENCE, 5, 6, 3, 0x2b, 0x65, 0x70, BIT_STRING, 33, 0,
            ][..],
            &[7; 32],
        ]
        .concat();
        let found = public_key(&wrap(&ed25519));
        assert_eq!(found, Some((PemKind::Ed25519, vec![7; 32])));
        for cut in 0..ed25519.len() {
            assert_eq!(public_key(&wrap(&ed25519[..cut])), None, "{cut}");
        }
        for at in 0..12 {
            for byte in 0..=255 {
                let mut changed = ed25519.clone();
                changed[at] = byte;
                let same = changed == ed25519;
                assert_eq!(public_key(&wrap(&changed)).is_some(), same, "{at} {byte}");
            }
        }
        for text in [
            "",
            "-----BEGIN PUBLIC KEY-----",
            &wrap(&[]),
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert_eq!(public_key(text), None, "{text}");
        }
    }
}

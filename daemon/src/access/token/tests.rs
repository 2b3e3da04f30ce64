use std::fs;

use super::*;
use crate::config::Config;

#[derive(Deserialize)]
struct Vectors {
    now: u64,
    keys: Vec<VectorKey>,
    tokens: Vec<Vector>,
}

#[derive(Deserialize)]
struct VectorKey {
    kid: String,
    alg: String,
    secret: Option<String>,
    public_key: Option<String>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    token: String,
    error: Option<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../tests/vectors/tokens.json")).unwrap()
}

/// The keys of the vectors, with further lines for each.
fn tokens(vectors: &Vectors, more: &str) -> Tokens {
    let root = tempfile::tempdir().unwrap();
    let mut config = String::new();
    for VectorKey {
        kid,
        alg,
        secret,
        public_key,
    } in &vectors.keys
    {
        let file = root.path().join(kid);
        fs::write(&file, public_key.as_ref().or(secret.as_ref()).unwrap()).unwrap();
        let source = if secret.is_some() {
            "secret_file"
        } else {
            "public_key_file"
        };
        config +=
            &format!("[[auth.key]]\nkid = {kid:?}\nalg = {alg:?}\n{source} = {file:?}\n{more}\n");
    }
    Tokens::load(&Config::parse(&config).unwrap().auth).unwrap()
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

#[test]
fn good_tokens_are_taken_and_all_others_refused_for_what_is_wrong() {
    let vectors = vectors();
    let tokens = tokens(&vectors, "");
    for Vector { name, token, error } in &vectors.tokens {
        let verified = tokens.verify(token, vectors.now);
        match (verified, error) {
            (Ok(_), None) => {}
            (Err(e), Some(part)) => assert!(e.to_string().contains(part), "{name}: {e}"),
            (verified, _) => panic!("{name}: {verified:?}"),
        }
    }
}

#[test]
fn a_grant_is_what_the_token_lists() {
    let vectors = vectors();
    let tokens = tokens(&vectors, "");
    for vector in vectors
        .tokens
        .iter()
        .filter(|vector| vector.error.is_none())
    {
        let grant = tokens.verify(&vector.token, vectors.now).unwrap();
        assert_eq!(
            (grant.history, grant.expires),
            (true, 4_102_444_800),
            "{}",
            vector.name
        );
        for (channel, read, publish) in [
            ("chat.7", true, true),
            ("user.42.mail", true, false),
            ("user.42", false, false),
            ("chat.8", false, false),
        ] {
            let may = (
                grant.may_subscribe(&name(channel)),
                grant.may_publish(&name(channel)),
            );
            assert_eq!(may, (read, publish), "{} {channel}", vector.name);
        }
    }
}

#[test]
fn a_key_grants_what_it_is_for_alone() {
    let vectors = vectors();
    let token = &vectors.tokens[0].token;
    for (more, read, publish) in [
        ("may = [\"subscribe\"]", true, false),
        ("may = [\"publish\"]", false, true),
        ("may = []", false, false),
    ] {
        let grant = tokens(&vectors, more).verify(token, vectors.now).unwrap();
        let may = (
            grant.may_subscribe(&name("chat.7")),
            grant.may_publish(&name("chat.7")),
        );
        assert_eq!(may, (read, publish), "{more}");
    }
}

#[test]
fn a_token_holds_until_the_second_it_names() {
    let vectors = vectors();
    let tokens = tokens(&vectors, "");
    let token = &vectors.tokens[0].token;
    assert!(tokens.verify(token, 4_102_444_799).is_ok());
    assert_eq!(
        tokens.verify(token, 4_102_444_800),
        Err(TokenError::Expired)
    );
}

#[test]
fn a_token_need_not_name_the_only_key() {
    let vectors = vectors();
    let mut tokens = tokens(&vectors, "");
    let vector = vectors
        .tokens
        .iter()
        .find(|vector| vector.name.starts_with("no kid"))
        .unwrap();
    assert_eq!(
        tokens.verify(&vector.token, vectors.now),
        Err(TokenError::Key)
    );
    tokens.keys.truncate(1);
    assert!(tokens.verify(&vector.token, vectors.now).is_ok());
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let vectors = vectors();
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rsa = vectors.keys.iter().find(|key| key.kid == "rs").unwrap();
    let rsa = file("rs", rsa.public_key.as_ref().unwrap());
    let (private, long) = (
        file("private", "-----BEGIN PRIVATE KEY-----"),
        "x".repeat(32),
    );
    let cases = [
        ("HS256", "".into(), "exactly one of secret and secret_file"),
        (
            "HS256",
            format!("secret = {long:?}\nsecret_file = {rsa:?}"),
            "exactly one",
        ),
        ("HS256", format!("public_key_file = {rsa:?}"), "exactly one"),
        (
            "RS256",
            format!("secret = {long:?}"),
            "exactly one of public_key_file",
        ),
        (
            "HS256",
            "secret = \"hunter2-hunter2\"".into(),
            "15 bytes is too short: 32",
        ),
        (
            "HS256",
            format!("secret_file = {:?}", file("end", &("x".repeat(31) + "\n"))),
            "31 bytes",
        ),
        (
            "HS256",
            "secret_file = \"/no/such/file\"".into(),
            "cannot read /no/such/file",
        ),
        (
            "RS256",
            format!("public_key_file = {private:?}"),
            "no public key for RS256",
        ),
        (
            "ES256",
            format!("public_key_file = {rsa:?}"),
            "no public key for ES256",
        ),
        (
            "EdDSA",
            format!("public_key_file = {rsa:?}"),
            "no public key for EdDSA",
        ),
    ];
    for (alg, source, reason) in cases {
        let text = format!("[[auth.key]]\nkid = \"k1\"\nalg = \"{alg}\"\n{source}\n");
        let error = Tokens::load(&Config::parse(&text).unwrap().auth)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with("auth.key \"k1\": ") && error.contains(reason),
            "{text}: {error}"
        );
        assert!(
            !error.contains("hunter2") && !error.contains(&long),
            "{error}"
        );
    }
    let key = format!("[[auth.key]]\nkid = \"a\"\nalg = \"HS256\"\nsecret = {long:?}\n");
    let config = Config::parse(&key.repeat(2)).unwrap();
    assert!(!format!("{config:?}").contains(&long));
    let error = Tokens::load(&config.auth).err().unwrap().to_string();
    assert!(error.contains("\"a\" is there twice"), "{error}");
}

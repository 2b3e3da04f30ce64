//! The signature of a request of the HTTP API (Pusher's documentation, "HTTP API", section "Authentication").

use std::borrow::Cow;

use hyper::Method;
use md5::{Digest, Md5};

use super::app::{App, hex};
use crate::http::request::Request;

/// How many seconds the time of a request may differ from ours.
const MOST_SECONDS: u64 = 600;

/// The parts of a request that its signature covers, and the signature.
#[derive(Debug)]
pub(crate) struct SignedRequest {
    method: Method,
    /// The path as it was sent.
    path: String,
    /// The parameters, with decoded values, sorted by their names in lower case.
    parameters: Vec<(String, String)>,
}

/// Why a request is refused with 401. The text fits after "not signed by the app: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("the parameter {0} is missing")]
    Missing(&'static str),
    #[error("auth_key is not the key of this app")]
    Key,
    #[error("auth_version must be 1.0")]
    Version,
    #[error("auth_timestamp {0} is more than 10 minutes away from this server's time {1}")]
    Time(String, u64),
    #[error("body_md5 is not the MD5 of the body")]
    Body,
    #[error("auth_signature is not that of the app's secret")]
    Signature,
}

impl SignedRequest {
    pub(crate) fn of(request: &Request<'_>) -> Self {
        let query = request.query.unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut parameters: Vec<(String, String)> = pairs
            .map(|(name, value)| (decoded(name).to_lowercase(), decoded(value).into_owned()))
            .collect();
        parameters.sort_by(|a, b| a.0.cmp(&b.0));
        Self {
            method: request.method.clone(),
            path: request.path.to_owned(),
            parameters,
        }
    }

    /// The value of a parameter that need not be there.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// Checks that the app has signed this request and its body. `now`: seconds since 1970.
    pub(crate) fn check(&self, app: &App, body: &[u8], now: u64) -> Result<(), SignatureError> {
        use SignatureError as E;
        let parameter = |name| self.parameter(name).ok_or(E::Missing(name));
        if parameter("auth_key")? != app.key {
            return Err(E::Key);
        }
        if parameter("auth_version")? != "1.0" {
            return Err(E::Version);
        }
        let time = parameter("auth_timestamp")?;
        let seconds: Option<u64> = time.parse().ok();
        if seconds.is_none_or(|seconds| seconds.abs_diff(now) > MOST_SECONDS) {
            return Err(E::Time(time.chars().take(32).collect(), now));
        }
        let signature = parameter("auth_signature")?;
        let mut texts = self.paths().into_iter().map(|path| self.text(&path));
        if !texts.any(|text| app.has_signed(text.as_bytes(), signature)) {
            return Err(E::Signature);
        }
        // The signature covers the sum, and the sum covers the body.
        if !body.is_empty() && !parameter("body_md5")?.eq_ignore_ascii_case(&md5(body)) {
            return Err(E::Body);
        }
        Ok(())
    }

    /// The paths that the app may have signed. The libraries sign the path before it is escaped, and know nothing of what a
    /// proxy or the setting `path` adds before `/apps`.
    fn paths(&self) -> Vec<Cow<'_, str>> {
        let behind_prefix = self.path.find("/apps/").map(|at| &self.path[at..]);
        let mut paths = vec![Cow::from(&*self.path)];
        paths.extend(behind_prefix.map(Cow::from));
        if self.path.contains('%') {
            paths.extend(
                [Some(&*self.path), behind_prefix]
                    .into_iter()
                    .flatten()
                    .map(decoded),
            );
        }
        paths
    }

    fn text(&self, path: &str) -> String {
        let signed = self
            .parameters
            .iter()
            .filter(|(name, _)| name != "auth_signature");
        let pairs: Vec<String> = signed
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!("{}\n{path}\n{}", self.method, pairs.join("&"))
    }
}

/// Decodes `%` escapes. A plus stays a plus.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

fn md5(body: &[u8]) -> String {
    hex(&Md5::digest(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const NOW: u64 = 1_353_088_179;

    fn app() -> App {
        let text = "[[compat.pusher.app]]\nid = \"3\"\nkey = \"278d425bdf160c739803\"\nsecret = \"7ad3773142a6692b25b8\"\n";
        let config = Config::parse(text).unwrap().compat.pusher.unwrap();
        App::all(&config).remove(0)
    }

    fn request(path: &str) -> SignedRequest {
        SignedRequest::of(&Request::new(Method::POST, path, &[]))
    }

    /// The example of Pusher's documentation.
    const EXAMPLE: &str = "/apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&\
        body_md5=ec365a775a4cd0599faeb73354201b6f&\
        auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

    #[test]
    fn the_documented_example_is_right() {
        let app = app();
        assert_eq!(request(EXAMPLE).check(&app, BODY, NOW), Ok(()));
        assert_eq!(request(EXAMPLE).check(&app, BODY, NOW + 600), Ok(()));
        let behind_proxy = format!("/prefix{EXAMPLE}");
        assert_eq!(request(&behind_proxy).check(&app, BODY, NOW), Ok(()));
    }

    #[test]
    fn says_what_is_wrong_with_a_signature() {
        use SignatureError as E;
        let app = app();
        let check = |path: &str, body: &[u8], now| request(path).check(&app, body, now);
        assert_eq!(check(EXAMPLE, b"{}", NOW), Err(E::Body));
        let late = E::Time("1353088179".into(), NOW + 601);
        assert_eq!(check(EXAMPLE, BODY, NOW + 601), Err(late));
        for (from, to, error) in [
            ("da4548", "da4549", E::Signature),
            ("events", "event", E::Signature),
            ("auth_version=1.0", "auth_version=2.0", E::Version),
            ("278d42", "178d42", E::Key),
            (
                "auth_signature=",
                "auth_nothing=",
                E::Missing("auth_signature"),
            ),
            ("auth_key=", "auth_kez=", E::Missing("auth_key")),
        ] {
            assert_eq!(
                check(&EXAMPLE.replace(from, to), BODY, NOW),
                Err(error),
                "{to}"
            );
        }
    }

    #[test]
    fn values_and_paths_are_signed_without_escapes() {
        let app = app();
        let text = format!(
            "GET\n/apps/3/channels/a,b\nauth_key={}&auth_timestamp={NOW}&auth_version=1.0&info=user_count,a+b",
            app.key
        );
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"7ad3773142a6692b25b8");
        let signature = hex(ring::hmac::sign(&key, text.as_bytes()).as_ref());
        let path = format!(
            "/apps/3/channels/a%2Cb?info=user_count%2Ca+b&auth_version=1.0&auth_key={}&auth_timestamp={NOW}&auth_signature={signature}",
            app.key
        );
        let request = SignedRequest::of(&Request::new(Method::GET, &path, &[]));
        assert_eq!(request.check(&app, b"", NOW), Ok(()));
        assert_eq!(request.parameter("info"), Some("user_count,a+b"));
    }
}

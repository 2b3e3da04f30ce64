//! The one script that the port runs: it publishes a message to several channels. Laravel's broadcaster sends it.

use std::{
    collections::HashSet,
    fmt::Write,
    sync::{Mutex, MutexGuard},
};

use ring::digest;

/// The script without blanks and semicolons.
const PUBLISH: [&str; 2] = [
    "fori=2,#argvdoredis.call('publish',argv[i],argv[1])end",
    "fori=2,#argvdoredis.pcall('publish',argv[i],argv[1])end",
];

/// The most scripts that clients may load. There are many ways to write the one script.
const MOST: usize = 64;

/// Whether this script publishes its first argument to all channels that its other arguments name.
fn is_publish(script: &[u8]) -> bool {
    let plain = script
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace() && **byte != b';');
    let plain: Vec<u8> = plain
        .map(|byte| match byte {
            b'"' => b'\'',
            byte => byte.to_ascii_lowercase(),
        })
        .collect();
    PUBLISH.iter().any(|script| script.as_bytes() == plain)
}

/// The scripts that clients have loaded, by the hexadecimal digits of their SHA-1.
#[derive(Default)]
pub(super) struct LoadedScripts(Mutex<HashSet<String>>);

impl LoadedScripts {
    /// Loads a script, and returns its digits. `None`: the script cannot be run here.
    pub(super) fn load(&self, script: &[u8]) -> Option<String> {
        if script.len() > 4096 || !is_publish(script) {
            return None;
        }
        let mut digits = String::new();
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, script);
        for byte in hash.as_ref() {
            let _ = write!(digits, "{byte:02x}");
        }
        let mut loaded = self.lock();
        if loaded.len() < MOST {
            loaded.insert(digits.clone());
        }
        Some(digits)
    }

    /// Whether a script with these digits was loaded.
    pub(super) fn has(&self, digits: &[u8]) -> bool {
        let digits = String::from_utf8_lossy(digits).to_ascii_lowercase();
        self.lock().contains(&digits)
    }

    pub(super) fn flush(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().expect("no code panics holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publish_script_is_recognised_as_it_is_written_by_others() {
        let laravel = "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend";
        for script in [
            laravel,
            "for i=2,#ARGV do redis.call(\"PUBLISH\", ARGV[i], ARGV[1]); end;",
            "for i = 2, #ARGV do\r\n\tredis.pcall('publish', ARGV[i], ARGV[1])\r\nend\r\n",
        ] {
            assert!(is_publish(script.as_bytes()), "{script}");
        }
        for script in [
            "",
            "return 1",
            "for i = 1, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end",
        ] {
            assert!(!is_publish(script.as_bytes()), "{script}");
        }
    }

    #[test]
    fn a_loaded_script_is_known_by_its_sha1() {
        let scripts = LoadedScripts::default();
        let script = b"for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end";
        let digits = scripts.load(script).unwrap();
        assert_eq!(digits.len(), 40);
        assert!(scripts.has(digits.to_uppercase().as_bytes()));
        assert!(!scripts.has(b"0123"));
        assert_eq!(scripts.load(b"return 1"), None);
        scripts.flush();
        assert!(!scripts.has(digits.as_bytes()));
    }
}

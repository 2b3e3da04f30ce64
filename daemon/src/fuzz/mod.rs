//! Properties that must hold for any bytes from outside, one function for each parser. `docs/fuzzing.md` says how they are
//! run: libFuzzer searches for bytes that break a property, and a test checks the properties with all inputs that were
//! found so far. This module is built only for these two.

mod comet_server;
mod cometql;
mod compat;
mod config;
mod cursor;
pub(crate) mod http;
mod line;
mod log;
mod names;
mod nchan;
mod ports;
mod push_stream;
mod pusher;
mod realplexor;
mod render;
mod session;
pub(crate) mod token;
mod urls;
mod websocket;

/// A property, under the name of its folders in `fuzz/`.
pub struct FuzzTarget {
    pub name: &'static str,
    /// Panics when the property does not hold for these bytes.
    pub check: fn(&[u8]),
}

/// All properties.
pub const TARGETS: &[FuzzTarget] = &[
    target("comet_server", comet_server::check),
    target("cometql_login", cometql::login),
    target("cometql_packets", cometql::packets),
    target("cometql_query", cometql::query),
    target("config", config::check),
    target("cursor", cursor::check),
    target("head", http::head),
    target("line", line::check),
    target("log", log::check),
    target("memcached", ports::memcached),
    target("names", names::check),
    target("nchan", nchan::check),
    target("novcomet", compat::novcomet),
    target("push_stream", push_stream::check),
    target("pusher", pusher::check),
    target("query", http::query),
    target("realplexor_in", realplexor::publisher),
    target("realplexor_wait", realplexor::client),
    target("redis", ports::redis),
    target("render", render::check),
    target("session", session::check),
    target("token", token::check),
    target("websocket", websocket::check),
    target("zeitoun", compat::zeitoun),
];

const fn target(name: &'static str, check: fn(&[u8])) -> FuzzTarget {
    FuzzTarget { name, check }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    fn inputs(target: &str) -> Vec<PathBuf> {
        let files = |kind: &str| {
            let folder = root().join(kind).join(target);
            let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
            entries.map(|entry| entry.unwrap().path())
        };
        files("seeds").chain(files("corpus")).collect()
    }

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"))
    }

    /// When a property is broken, the panic's message follows the name of the file.
    #[test]
    fn all_inputs_found_so_far_keep_every_property() {
        for target in TARGETS {
            for path in inputs(target.name) {
                let bytes = fs::read(&path).unwrap();
                let held = std::panic::catch_unwind(|| (target.check)(&bytes)).is_ok();
                assert!(held, "{} is broken by {}", target.name, path.display());
            }
        }
    }

    #[test]
    fn every_target_has_a_small_corpus_and_every_corpus_has_a_target() {
        let known: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
        for kind in ["seeds", "corpus"] {
            let folders = fs::read_dir(root().join(kind)).unwrap();
            let folders = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(folders.collect::<BTreeSet<_>>(), known, "{kind}");
        }
        for target in TARGETS {
            let files = inputs(target.name);
            let size = files.iter().map(|path| fs::metadata(path).unwrap().len());
            let size: u64 = size.sum();
            assert!((1..=300).contains(&files.len()), "{}", target.name);
            assert!(size <= 300 << 10, "{}: {size} bytes", target.name);
        }
    }
}

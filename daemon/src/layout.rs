//! Checks the direction of imports between the folders of this crate: each folder imports only folders that stand above
//! it in [`ORDER`]. So a part of the daemon can be read, tested and changed without the parts that use it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The folders and files of `daemon/src`, from the ground up.
const ORDER: &[&str] = &[
    "metrics",
    "drain",
    "machine",
    "log_limit",
    "users",
    "store",
    "hub",
    "config",
    "broker",
    "transport",
    "worker",
    "connection",
    "http",
    "source",
    "access",
    "api",
    "compat",
    "run",
    "cli",
    "fuzz",
    // The two roots, which list the others, and this file.
    "lib",
    "main",
];

#[test]
fn a_folder_imports_only_folders_above_it() {
    let found = imports_of_folders_below();
    assert!(
        found.is_empty(),
        "these files of daemon/src import a folder that stands below their own in ORDER (daemon/src/layout.rs): {found:?}. \
         Move what both need into a folder above both, or hand it in from below, as an argument or by a trait."
    );
}

#[test]
fn every_folder_has_a_place_in_the_order() {
    let found: BTreeSet<String> = sources().iter().map(|file| folder(file)).collect();
    let listed: BTreeSet<String> = ORDER.iter().map(|name| (*name).to_owned()).collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "{unlisted:?} of daemon/src have no place in ORDER (daemon/src/layout.rs). Add each below all that it imports."
    );
    let removed: Vec<_> = listed.difference(&found).collect();
    assert!(
        removed.is_empty(),
        "{removed:?} of ORDER (daemon/src/layout.rs) do not exist. Remove them."
    );
}

fn imports_of_folders_below() -> BTreeSet<(String, String)> {
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut found = BTreeSet::new();
    for file in sources() {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let own = folder(&file);
        for imported in imported(&without_tests(&text), depth(&file)) {
            if place(&imported) > place(&own) {
                found.insert((file.display().to_string(), imported));
            }
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

/// All source files but tests and this file, as paths below `src`.
fn sources() -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![root().to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.file_stem().and_then(|stem| stem.to_str()) {
                Some("tests" | "layout") => {}
                _ if path.is_dir() => folders.push(path),
                _ => files.push(path.strip_prefix(root()).unwrap().to_owned()),
            }
        }
    }
    files
}

/// The folder, or the file, directly below `src`.
fn folder(file: &Path) -> String {
    let first = Path::new(file.iter().next().unwrap());
    first.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// How many `super` lead from the module in this file to the root of the crate.
fn depth(file: &Path) -> usize {
    let names = file.iter().count();
    let is_root = |name: &str| file == Path::new(name);
    match file.ends_with("mod.rs") || is_root("lib.rs") || is_root("main.rs") {
        true => names - 1,
        false => names,
    }
}

/// Without comments, and without the tests at the end: tests may import everything.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines();
    let lines = lines.map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The folders that a file names by a path from the root of the crate: `crate::`, or as many `super::` as `depth`.
fn imported(code: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let supers = "super::".repeat(depth);
    for prefix in ["crate::", &supers] {
        for (at, _) in code.match_indices(prefix).filter(|_| !prefix.is_empty()) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !(before == ':' || before == '_' || before.is_alphanumeric()) {
                found.extend(first_names(&code[at + prefix.len()..]));
            }
        }
    }
    found
}

/// The first names of a path, or of each path in a list in braces.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start().chars();
        text.take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let (mut names, mut level) = (vec![name(list)], 0);
    for (at, character) in list.char_indices() {
        match character {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            ',' if level == 0 => names.push(name(&list[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let names = |code: &str, depth| {
        let names = imported(&without_tests(code), depth);
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("use crate::hub::Hub;", 1), "hub");
    assert_eq!(
        names("use crate::{a::{b, c::d}, e,\n f::g,\n};", 1),
        "a e f"
    );
    assert_eq!(names("let x = crate::machine::memory();", 3), "machine");
    assert_eq!(names("use super::super::{a::b, c};", 2), "a c");
    assert_eq!(names("use super::{a, b};", 2), "");
    assert_eq!(names("use super::super::a;", 3), "");
    assert_eq!(names("pub(crate) use xcrate::a; // crate::b", 1), "");
    assert_eq!(names("#[cfg(test)]\nmod tests {\n use crate::a;\n}", 1), "");
    assert_eq!(depth(Path::new("hub/mod.rs")), 1);
    assert_eq!(depth(Path::new("hub/keep/queue.rs")), 3);
    assert_eq!(depth(Path::new("lib.rs")), 0);
}

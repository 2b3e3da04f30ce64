//! Reads which modules of this crate a source file names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A path from the root of the crate, as names.
pub(super) type ModulePath = Vec<String>;

/// A source file, without comments and without the tests at its end: tests may import everything.
pub(super) struct SourceFile {
    /// Below `src`.
    pub(super) path: PathBuf,
    pub(super) module: ModulePath,
    code: String,
}

impl SourceFile {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code.lines();
        let lines = lines.map(|line| line.split("//").next().unwrap_or_default());
        Self {
            path: path.to_owned(),
            module: module_of(path),
            code: lines.collect::<Vec<_>>().join("\n"),
        }
    }

    /// The file's own folder, or file, directly below `src`.
    pub(super) fn folder(&self) -> String {
        let first = Path::new(self.path.iter().next().unwrap());
        first.file_stem().unwrap().to_str().unwrap().to_owned()
    }

    /// The paths that the file names by `crate::` or `super::`, in a `use` or elsewhere.
    pub(super) fn imports(&self) -> BTreeSet<ModulePath> {
        let mut found = BTreeSet::new();
        for prefix in ["crate::", "super::"] {
            for (at, _) in self.code.match_indices(prefix) {
                let before = self.code[..at].chars().next_back().unwrap_or(' ');
                if !(before == ':' || before == '_' || before.is_alphanumeric()) {
                    found.extend(self.absolute(&self.code[at..]));
                }
            }
        }
        found
    }

    /// The paths in `use` lines that begin with a name. In a parent, such a line takes items of its children, which others
    /// can then name as the parent's.
    pub(super) fn reexports(&self) -> Vec<ModulePath> {
        let uses = self.code.match_indices("use ").filter(|(at, _)| {
            let before = &self.code[..*at];
            before.is_empty() || before.ends_with(['\n', ' '])
        });
        let paths = uses.flat_map(|(at, found)| expand(&self.code[at + found.len()..]));
        paths.map(|path| join(&self.module, path)).collect()
    }

    fn absolute(&self, text: &str) -> Vec<ModulePath> {
        if let Some(text) = text.strip_prefix("crate::") {
            return expand(text);
        }
        let rest = text.trim_start_matches("super::");
        let supers = (text.len() - rest.len()) / "super::".len();
        let Some(names) = self.module.len().checked_sub(supers) else {
            return Vec::new();
        };
        let base = &self.module[..names];
        let paths = expand(rest).into_iter();
        paths.map(|path| join(base, path)).collect()
    }
}

/// All source files but tests and this check.
pub(super) fn sources() -> Vec<SourceFile> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.file_stem().and_then(|stem| stem.to_str()) {
                Some("tests" | "layout") => {}
                _ if path.is_dir() => folders.push(path),
                _ => {
                    let text = fs::read_to_string(&path).unwrap();
                    files.push(SourceFile::new(path.strip_prefix(root).unwrap(), &text));
                }
            }
        }
    }
    files
}

/// The module that a file below `src` is.
fn module_of(path: &Path) -> ModulePath {
    let path = path.with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    let mut names: ModulePath = names.collect();
    let is_root = names.len() == 1 && ["lib", "main"].contains(&&*names[0]);
    if is_root || names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

fn join(base: &[String], path: ModulePath) -> ModulePath {
    base.iter().cloned().chain(path).collect()
}

/// The path at the start of the text, or each path of a list in braces.
fn expand(text: &str) -> Vec<ModulePath> {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        return parts(list).into_iter().flat_map(expand).collect();
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    match rest.strip_prefix("::") {
        _ if name.is_empty() || name == "self" => vec![Vec::new()],
        None => vec![vec![name.to_owned()]],
        Some(rest) => {
            let paths = expand(rest).into_iter();
            paths.map(|path| join(&[name.to_owned()], path)).collect()
        }
    }
}

/// The parts of a list in braces, of which the opening one is taken off.
fn parts(list: &str) -> Vec<&str> {
    let (mut parts, mut start, mut level) = (Vec::new(), 0, 0);
    for (at, character) in list.char_indices() {
        match character {
            '{' => level += 1,
            '}' if level > 0 => level -= 1,
            ',' | '}' if level == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let imports = |path: &str, code: &str| {
        let imports = SourceFile::new(Path::new(path), code).imports();
        let names = imports.into_iter().map(|path| path.join("."));
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(imports("a.rs", "use crate::hub::Hub;"), "hub.Hub");
    assert_eq!(
        imports("a.rs", "use crate::{a::{b, c::d}, e,\n f::{self, g},\n};"),
        "a.b a.c.d e f f.g"
    );
    assert_eq!(
        imports("a/b/c.rs", "let x = crate::machine::memory();"),
        "machine.memory"
    );
    assert_eq!(imports("a/b.rs", "use super::super::{a::b, c};"), "a.b c");
    assert_eq!(imports("a/b.rs", "use super::{a, b::C};"), "a.a a.b.C");
    assert_eq!(imports("a/b/mod.rs", "use super::c;"), "a.c");
    assert_eq!(imports("a.rs", "pub(crate) use xcrate::a; // crate::b"), "");
    let tests = "#[cfg(test)]\nmod tests {\n use crate::a;\n}";
    assert_eq!(imports("a.rs", tests), "");
}

#[test]
fn a_file_is_the_module_of_its_path() {
    let module = |path: &str| module_of(Path::new(path)).join(".");
    assert_eq!(module("hub/mod.rs"), "hub");
    assert_eq!(module("hub/keep/queue.rs"), "hub.keep.queue");
    assert_eq!(module("lib.rs"), "");
}

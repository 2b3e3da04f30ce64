//! Checks the direction of imports between the folders of this crate: each folder imports only folders that stand above
//! it in [`ORDER`]. So a part of the daemon can be read, tested and changed without the parts that use it.
//! `circles` checks the files within the folders, too.

mod circles;
mod imports;

use std::collections::BTreeSet;

use imports::sources;

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
    "presence",
    "transport",
    "worker",
    "connection",
    "http",
    "source",
    "access",
    "api",
    "session",
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
    let found: BTreeSet<String> = sources().iter().map(|file| file.folder()).collect();
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
        let own = place(&file.folder());
        let paths = file.imports().into_iter();
        let folders = paths.filter_map(|path| path.into_iter().next());
        let below = folders.filter(|folder| place(folder) > own);
        found.extend(below.map(|folder| (file.path.display().to_string(), folder)));
    }
    found
}

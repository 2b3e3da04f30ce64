//! Checks that no more than two files import each other in a circle. Whoever reads one file of a circle has to read all of them.
//!
//! A parent lists its children and may use them, so its imports of files below it do not count. When a parent re-exports an item of
//! a child, an import of this item from the parent counts as an import of the child.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::imports::{ModulePath, SourceFile, sources};

/// For each file the files that it imports, by their places in the list.
type Graph = Vec<BTreeSet<usize>>;

#[test]
fn no_more_than_two_files_import_each_other() {
    let files = sources();
    let found = circles(&files);
    assert!(
        found.is_empty(),
        "files of daemon/src import each other in a circle, directly or through others: {found:#?}. Up to two files may. Move \
         what two of the files need into a file that imports neither, or hand it in as an argument, a type parameter or by a \
         trait."
    );
}

/// The circles of more than two files.
fn circles(files: &[SourceFile]) -> Vec<Vec<&Path>> {
    let graph = graph(files);
    let reached: Vec<BTreeSet<usize>> = (0..files.len()).map(|from| reach(&graph, from)).collect();
    let circle = |file: usize| {
        let others = reached[file].iter().copied();
        others
            .filter(|other| reached[*other].contains(&file))
            .collect::<Vec<usize>>()
    };
    let circles: BTreeSet<Vec<usize>> = (0..files.len()).map(circle).collect();
    let large = circles.into_iter().filter(|circle| circle.len() > 2);
    let paths = large.map(|circle| {
        let mut paths: Vec<&Path> = circle.iter().map(|file| &*files[*file].path).collect();
        paths.sort_unstable();
        paths
    });
    paths.collect()
}

fn graph(files: &[SourceFile]) -> Graph {
    let modules = files.iter().enumerate();
    let modules: BTreeMap<&[String], usize> = modules
        .filter(|(_, file)| file.path != Path::new("main.rs"))
        .map(|(place, file)| (&*file.module, place))
        .collect();
    let imported = |file: &SourceFile| {
        let imports = file.imports().into_iter();
        let places = imports.filter_map(|path| owner(files, &modules, &path));
        places
            .filter(|place| !files[*place].module.starts_with(&file.module))
            .collect()
    };
    files.iter().map(imported).collect()
}

/// The file with the item of this path. An item that a parent re-exports is in the file of the child.
fn owner(
    files: &[SourceFile],
    modules: &BTreeMap<&[String], usize>,
    path: &ModulePath,
) -> Option<usize> {
    let known = (0..=path.len()).rev();
    let known = known.filter_map(|end| Some((end, *modules.get(&path[..end])?)));
    let (end, file) = known.into_iter().next()?;
    let Some(item) = path.get(end) else {
        return Some(file);
    };
    let reexports = files[file].reexports().into_iter();
    let from_child = reexports
        .filter(|child| child.len() > path.len() && child.last() == Some(item))
        .find(|child| modules.contains_key(&child[..=end]));
    from_child.map_or(Some(file), |child| owner(files, modules, &child))
}

/// The files that this file imports, and those that they import, and so on.
fn reach(graph: &Graph, from: usize) -> BTreeSet<usize> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        open.extend(graph[file].iter().filter(|next| reached.insert(**next)));
    }
    reached
}

#[test]
fn circles_of_more_than_two_files_are_found() {
    let found = |files: &[(&str, &str)]| {
        let files = files.iter();
        let files = files.map(|(path, code)| SourceFile::new(Path::new(path), code));
        let files: Vec<SourceFile> = files.collect();
        let circles = circles(&files).into_iter();
        let circles = circles.map(|circle| circle.into_iter().map(Path::to_owned).collect());
        circles.collect::<Vec<Vec<PathBuf>>>()
    };
    let (a, b) = (("a.rs", "use crate::b;"), ("b.rs", "use super::c::C;"));
    let three = found(&[a, b, ("c.rs", "fn c() { crate::a::a() }")]);
    assert_eq!(three, [["a.rs", "b.rs", "c.rs"].map(PathBuf::from)]);
    let two = found(&[a, b, ("c.rs", "use crate::b::B;")]);
    assert!(two.is_empty(), "two files may import each other");

    let parent = ("p/mod.rs", "mod d;\nmod e;\npub use d::D;\nuse e::E;");
    let (d, e) = (("p/d.rs", "use super::E;"), ("p/e.rs", "use super::P;"));
    let listed = found(&[parent, d, e]);
    assert!(listed.is_empty(), "a parent may use its children");
    let e = ("p/e.rs", "use crate::f::F;");
    let named = found(&[parent, d, e, ("f.rs", "use crate::p::D;")]);
    assert_eq!(named, [["f.rs", "p/d.rs", "p/e.rs"].map(PathBuf::from)]);
}

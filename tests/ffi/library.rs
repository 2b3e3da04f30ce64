//! Tests of the library file: its headers, its exported names, and its linking.

use std::{fs, process::Command};

use super::{
    headers,
    support::{library, library_dir, repository, run},
};

#[test]
fn the_committed_headers_are_those_of_the_source() {
    let copies = [
        ("include/comet.h", headers::c()),
        ("include/comet_ffi.h", headers::php()),
        ("php-ext-example/comet_ffi.h", headers::php()),
    ];
    for (name, expected) in copies {
        let committed = fs::read_to_string(repository().join(name)).unwrap();
        assert!(
            committed == expected,
            "{name} is out of date: run `make headers`"
        );
    }
}

#[test]
fn the_header_is_plain_c_and_plain_cpp() {
    let header = repository().join("include/comet.h");
    for compiler in [["cc", "-std=c99", "-xc"], ["c++", "-std=c++11", "-xc++"]] {
        let mut check = Command::new(compiler[0]);
        check.args(&compiler[1..]).args([
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-fsyntax-only",
        ]);
        run(check.arg(&header));
    }
}

#[test]
fn php_reads_its_header_and_finds_every_function() {
    let script = "$comet = FFI::load($argv[1]);
        echo $comet->comet_abi_version() >> 16, ' ', $comet->COMET_RESULT_PANIC, ' ', $comet->COMET_FLAG_BUFFER;";
    let mut php = Command::new("php");
    php.args(["-d", "ffi.enable=1", "-r", script])
        .arg(repository().join("include/comet_ffi.h"));
    assert_eq!(run(php.env("LD_LIBRARY_PATH", library_dir())), "1 -12 2");
}

#[test]
fn only_comets_names_are_exported() {
    let mut nm = Command::new("nm");
    let symbols = run(nm
        .args(["--dynamic", "--defined-only", "--format=just-symbols"])
        .arg(library()));
    let header = headers::c();
    let mut count = 0;
    for symbol in symbols.lines() {
        assert!(
            header.contains(&format!("{symbol}(")),
            "{symbol} is exported and not in the header"
        );
        count += 1;
    }
    assert_eq!(
        count,
        header.matches("(").count() - header.matches("((").count() - prose(&header),
        "{symbols}"
    );
}

/// Number of parentheses in the header's comments.
fn prose(header: &str) -> usize {
    let comments = header
        .lines()
        .filter(|line| line.trim_start().starts_with(['*', '/']));
    comments.map(|line| line.matches('(').count()).sum()
}

#[test]
fn it_has_a_name_for_the_loader_and_is_never_unloaded() {
    let mut readelf = Command::new("readelf");
    let dynamic = run(readelf.args(["--dynamic", "--wide"]).arg(library()));
    assert!(
        dynamic.contains("Library soname: [libcomet.so.1]"),
        "{dynamic}"
    );
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

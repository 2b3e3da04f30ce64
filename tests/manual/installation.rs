//! Tests `make install` into a directory, which needs no root rights.

use std::{fs, path::Path, process::Command};

use crate::{output, profile, repository, run};

/// `make` with the directory tree of a package as its target.
fn make_command(directory: &Path, arguments: &[&str]) -> Command {
    let mut make = Command::new("make");
    make.current_dir(repository()).args(arguments);
    make.arg(format!("PROFILE={}", profile()));
    make.arg(format!("DESTDIR={}", directory.display()));
    make
}

fn make(directory: &Path, arguments: &[&str]) -> String {
    run(&mut make_command(directory, arguments))
}

/// Builds the library. It belongs to another package, which cargo does not build for these tests.
fn build() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(repository())
        .args(["build", "--quiet", "--workspace"]);
    if profile() == "release" {
        cargo.arg("--release");
    }
    run(&mut cargo);
}

/// All files and links below a directory.
fn files(directory: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    let found = run(find
        .arg(directory)
        .args(["-not", "-type", "d", "-printf", "/%P\n"]));
    let mut found: Vec<String> = found.lines().map(String::from).collect();
    found.sort();
    found
}

#[test]
fn install_puts_everything_in_its_place_and_uninstall_removes_it() {
    build();
    let root = tempfile::tempdir().unwrap();
    make(root.path(), &["install"]);
    let installed = files(root.path());
    for file in [
        "/etc/comet.toml",
        "/usr/local/bin/comet",
        "/usr/local/include/comet.h",
        "/usr/local/lib/libcomet.so",
        "/usr/local/lib/libcomet.so.1",
        "/usr/local/lib/pkgconfig/comet.pc",
        "/usr/local/lib/systemd/system/comet.service",
        "/usr/local/lib/systemd/system/comet.socket",
        "/usr/local/lib/sysusers.d/comet.conf",
        "/usr/local/lib/tmpfiles.d/comet.conf",
        "/usr/local/share/comet/php/comet_ffi.h",
        "/usr/local/share/comet/php/examples/web/form.php",
        "/usr/local/share/comet/php/src/Client.php",
        "/usr/local/share/doc/comet/operations.md",
    ] {
        assert!(
            installed.iter().any(|path| path == file),
            "{file}: {installed:?}"
        );
    }
    let sections = run(Command::new("readelf")
        .arg("-SW")
        .arg(root.path().join("usr/local/bin/comet")));
    // `strip` keeps .debug_gdb_scripts of an unoptimized program, because that section is loaded with the program.
    assert!(
        !sections.contains(".debug_info") && !sections.contains(".symtab"),
        "not stripped: {sections}"
    );

    fs::write(root.path().join("etc/comet.toml"), "grace = \"1s\"\n").unwrap();
    make(root.path(), &["install"]);
    make(root.path(), &["uninstall"]);
    assert_eq!(files(root.path()), ["/etc/comet.toml"]);
    let settings = fs::read_to_string(root.path().join("etc/comet.toml")).unwrap();
    assert_eq!(settings, "grace = \"1s\"\n");
}

#[test]
fn install_stops_at_the_first_file_that_cannot_be_written() {
    build();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("usr/local")).unwrap();
    fs::write(root.path().join("usr/local/include"), "no directory").unwrap();
    let mut make = make_command(root.path(), &["install"]);
    let (succeeded, text) = output(&mut make);
    assert!(!succeeded, "{text}");
    assert!(!text.contains("files are in place"), "{text}");
    assert!(!root.path().join("etc/comet.toml").exists(), "{text}");
}

#[test]
fn another_prefix_is_named_by_all_that_is_installed() {
    build();
    let root = tempfile::tempdir().unwrap();
    let prefix = ["PREFIX=/opt/comet", "SYSCONFDIR=/opt/comet/etc"];
    make(root.path(), &[&["install"], &prefix[..]].concat());
    let installed = files(root.path());
    assert!(
        installed.iter().all(|path| path.starts_with("/opt/comet/")),
        "{installed:?}"
    );
    let mut grep = Command::new("grep");
    grep.args([
        "-rlE",
        "(^|[ =\"])/(usr/local/(bin|share)|etc/comet.toml)",
        "--include=comet.*",
        "--include=*.ini",
    ]);
    grep.args(["--include=nginx.conf", "--include=preload.php"]);
    let (found, text) = output(grep.arg(root.path()));
    assert!(!found, "these name /usr/local: {text}");
    make(root.path(), &[&["uninstall"], &prefix[..]].concat());
    assert_eq!(files(root.path()), ["/opt/comet/etc/comet.toml"]);
}

/// C programs find the library by pkg-config. At run time they need only its soname.
#[test]
fn a_program_is_linked_by_pkg_config() {
    build();
    let root = tempfile::tempdir().unwrap();
    make(root.path(), &["install"]);
    let source = root.path().join("version.c");
    fs::write(
        &source,
        "#include <stdio.h>\n#include <comet.h>\nint main(void) { puts(comet_version()); return 0; }\n",
    )
    .unwrap();
    let library = root.path().join("usr/local/lib");
    let script = "cc -o version version.c $(pkg-config --cflags --libs comet) && ./version";
    let mut shell = Command::new("sh");
    shell.current_dir(root.path()).args(["-e", "-c", script]);
    shell.env("PKG_CONFIG_PATH", library.join("pkgconfig"));
    shell.env("PKG_CONFIG_SYSROOT_DIR", root.path());
    shell.env("LD_LIBRARY_PATH", &library);
    assert_eq!(run(&mut shell).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn make_alone_lists_the_targets_and_starts_nothing() {
    let help = run(Command::new("make")
        .current_dir(repository())
        .env_remove("MAKEFLAGS"));
    for target in ["build", "install", "uninstall", "run", "test"] {
        let line = help
            .lines()
            .find(|line| line.starts_with(&format!("{target} ")));
        assert!(line.is_some(), "{target}: {help}");
    }
}

/// An old cargo stops with a message that names the required version and how to get it.
#[test]
fn a_cargo_that_is_too_old_is_named_before_it_fails() {
    let root = tempfile::tempdir().unwrap();
    let packages = |version: &str| {
        let script = "printf '#!/bin/sh\\necho \"cargo %s\"\\n' \"$1\" >cargo; chmod +x cargo
                      PATH=$PWD:$PATH exec \"$0\" run";
        let mut shell = Command::new("sh");
        shell.current_dir(root.path()).args(["-e", "-c", script]);
        output(
            shell
                .arg(repository().join("scripts/packages"))
                .arg(version),
        )
    };
    for old in ["0.66.0", "1.63.0", "1.94.9"] {
        let (succeeded, text) = packages(old);
        let wanted = env!("CARGO_PKG_RUST_VERSION");
        assert!(
            !succeeded && text.contains(wanted) && text.contains(old),
            "{text}"
        );
        assert!(text.contains("rustup"), "{text}");
    }
    for new in [
        env!("CARGO_PKG_RUST_VERSION"),
        "1.100.0 (abc 2026-01-01)",
        "2.0.0-nightly",
    ] {
        let (succeeded, text) = packages(new);
        assert!(succeeded, "{new}: {text}");
    }
}

//! Generates the two headers from the library's source with cbindgen.

use std::path::Path;

const NOTICE: &str = "/* Generated from ffi/src by `make headers`; do not edit. */";

/// Generates `include/comet.h`, for C and C++.
pub(super) fn c() -> String {
    let mut config = config();
    config.header = Some(NOTICE.into());
    config.include_guard = Some("COMET_H".into());
    config.sys_includes = vec!["stddef.h".into(), "stdint.h".into()];
    config.cpp_compat = true;
    generate(config)
}

/// Generates `include/comet_ffi.h`, for PHP. `FFI::load` reads the two names only in the first lines of the file.
pub(super) fn php() -> String {
    let mut config = config();
    let names = "#define FFI_SCOPE \"COMET\"\n#define FFI_LIB \"libcomet.so.1\"";
    config.header = Some(format!("{names}\n{NOTICE}"));
    generate(config)
}

fn source(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn config() -> cbindgen::Config {
    cbindgen::Config::from_file(source("cbindgen.toml")).expect("cbindgen.toml is valid")
}

fn generate(config: cbindgen::Config) -> String {
    let mut out = Vec::new();
    cbindgen::Builder::new()
        .with_src(source("src/result.rs"))
        .with_src(source("src/handle.rs"))
        .with_src(source("src/lib.rs"))
        .with_config(config)
        .generate()
        .expect("the source parses")
        .write(&mut out);
    String::from_utf8(out).expect("a header is text")
}

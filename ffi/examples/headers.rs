//! Writes `include/comet.h` for C and C++ and `include/comet_ffi.h` for PHP's FFI, whose parser takes neither
//! `extern "C"` nor an include guard: `cargo run -p comet-ffi --example headers`. The PHP package holds a copy of the
//! second one. A test compares.

use std::{fs, path::Path};

fn main() -> std::io::Result<()> {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include");
    fs::write(include.join("comet.h"), headers::c())?;
    fs::write(include.join("comet_ffi.h"), headers::php())?;
    fs::write(
        include.join("../php-ext-example/comet_ffi.h"),
        headers::php(),
    )
}

#[path = "../../tests/ffi/headers.rs"]
mod headers;

//! How libcomet is linked: its name for the loader, and that it is never unloaded.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcomet.so.1");
    // The pool outlives every dlclose; a thread that ends later still runs this library's destructors.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
